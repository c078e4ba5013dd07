/* flood KIND IFACE SECS: frames as fast as the interface takes them, past the network stack.
 *   syn    connections to addresses where nobody answers
 *   ack    segments of no connection
 *   udp    datagrams from every port to every port of somebody who refuses them
 *   frag   fragments that never make a packet
 *   arp    questions for every neighbour
 *   tiny   one byte a segment, on a connection to 10.9.0.3 port 7000
 *   spin   nothing: a busy processor alone, to compare with
 * Addresses are those of compare.py. Prints how many frames a second went out. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void die(const char *m) { perror(m); exit(1); }
static uint32_t noise(void)
{
	static uint64_t x = 0x9e3779b97f4a7c15ull;
	x ^= x << 13; x ^= x >> 7; x ^= x << 17;
	return x >> 16;
}
static uint8_t frame[1514];
/* An IPv4 header behind the Ethernet one. Checksums are not looked at on this link. */
static uint8_t *ipv4(int protocol, int fragment, uint32_t dst, int len)
{
	uint8_t *ip = frame + 14;
	uint16_t total = htons(20 + len), offset = htons(fragment), id = noise();
	uint32_t src = htonl(0x0a090002); dst = htonl(dst);
	memset(ip, 0, 20); ip[0] = 0x45; ip[8] = 64; ip[9] = protocol;
	memcpy(ip + 2, &total, 2); memcpy(ip + 4, &id, 2); memcpy(ip + 6, &offset, 2); memcpy(ip + 12, &src, 4); memcpy(ip + 16, &dst, 4);
	frame[12] = 8; frame[13] = 0;
	return ip + 20;
}
static int tcp(int flags, uint32_t dst, int len)
{
	uint8_t *t = ipv4(6, 0, dst, 20 + len);
	for (int i = 0; i < 12; i += 4) { uint32_t n = noise(); memcpy(t + i, &n, 4); }
	memset(t + 12, 0, 8); t[12] = 0x50; t[13] = flags; t[14] = t[15] = 0xff;
	return 14 + 20 + 20 + len;
}
static int next(const char *kind)
{
	uint8_t *p; uint32_t n = noise();
	if (!strcmp(kind, "syn")) return tcp(2, 0x0a090064 + n % 100, 0);
	if (!strcmp(kind, "ack")) return tcp(0x10, 0x0a090003, 8);
	if (!strcmp(kind, "udp")) {
		static const uint8_t rest[8] = { 0, 12, 0, 0, 1, 2, 3, 4 };
		p = ipv4(17, 0, 0x0a090003, 12);
		memcpy(p, &n, 4); memcpy(p + 4, rest, 8);
		return 14 + 20 + 12;
	}
	if (!strcmp(kind, "frag")) {
		ipv4(17, 0x2000 | n % 8000, 0x0a090003, 400);
		return 14 + 20 + 400;
	}
	if (!strcmp(kind, "arp")) {
		static const uint8_t head[8] = { 0, 1, 8, 0, 6, 4, 0, 1 }, us[4] = { 10, 9, 0, 2 };
		p = frame + 14; frame[12] = 8; frame[13] = 6;
		memset(p, 0, 28); memcpy(p, head, 8); memcpy(p + 8, frame + 6, 6); memcpy(p + 14, us, 4);
		p[24] = 10; p[25] = 9; p[26] = n; p[27] = n >> 8;
		return 14 + 28;
	}
	fprintf(stderr, "unknown kind %s\n", kind);
	exit(1);
}
int main(int argc, char **argv)
{
	if (argc != 4) { fprintf(stderr, "flood KIND IFACE SECS\n"); return 1; }
	double start = now(), end = start + atof(argv[3]); long n = 0;
	if (!strcmp(argv[1], "spin")) {
		while (now() < end) n++;
		return 0;
	}
	if (!strcmp(argv[1], "tiny")) {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(7000), .sin_addr.s_addr = htonl(0x0a090003) };
		int s = socket(AF_INET, SOCK_STREAM, 0), one = 1; char b[4096];
		if (s < 0 || connect(s, (void *)&a, sizeof a)) die("connect");
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		fcntl(s, F_SETFL, O_NONBLOCK);
		for (; now() < end; n++) if (write(s, "x", 1) < 0 || n % 64 == 0) while (read(s, b, sizeof b) > 0) ;
	} else {
		struct ifreq r; memset(&r, 0, sizeof r); snprintf(r.ifr_name, sizeof r.ifr_name, "%s", argv[2]);
		int s = socket(AF_PACKET, SOCK_RAW, 0);
		if (s < 0 || ioctl(s, SIOCGIFHWADDR, &r)) die("interface");
		memset(frame, 0xff, 6); frame[0] = 0x9a; frame[1] = frame[3] = frame[5] = 0x55; frame[2] = frame[4] = 0x9a;
		memcpy(frame + 6, r.ifr_hwaddr.sa_data, 6);
		struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[2]) };
		if (bind(s, (void *)&a, sizeof a)) die("bind");
		for (; now() < end; n++) send(s, frame, next(argv[1]), MSG_DONTWAIT);
	}
	printf("frames/s %.0f\n", n / (now() - start));
	return 0;
}
