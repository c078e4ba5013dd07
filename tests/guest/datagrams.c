/* Moves a file in datagrams, whole: for machines that have no program for that.
 *
 *   datagrams send HOST PORT SIZE <FILE     in datagrams of SIZE bytes
 *   datagrams receive HOST PORT >FILE       from whoever sends to that address, and ends
 *
 * Each datagram begins with the offset of what follows, eight bytes in network order. One that
 * holds no more than that is the end. It is answered with the offset up to which everything came;
 * the end, with one more. What is not answered within a while is sent again from there on. */

#define _DEFAULT_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <err.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD = 8, MOST = 65507, WINDOW = 128 << 10, AGAIN_MS = 300, TRIES = 60, LINGER_MS = 1000 };

static uint8_t buf[MOST];

/* A socket, and the address in its form; all zeros stand for IPv4, too. */
static int address(const char *host, uint16_t port, struct sockaddr_storage *to, socklen_t *len)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)to;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;

	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, host, &v4->sin_addr)) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, host, &v6->sin6_addr)) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*len = sizeof(*v6);
	} else {
		errx(1, "%s: no address", host);
	}
	return socket(to->ss_family, SOCK_DGRAM, 0);
}

static int receive(const char *host, uint16_t port)
{
	struct sockaddr_storage at;
	socklen_t size;
	int s = address(host, port, &at, &size), off = 0, room = 4 << 20;
	struct sockaddr_storage from;
	struct pollfd ready = { .fd = s, .events = POLLIN };
	uint64_t next = 0, offset;
	int over = 0;

	setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(s, (struct sockaddr *)&at, size))
		err(1, "%s", host);
	/* The last answer may be lost: then there are questions. */
	while (!over || poll(&ready, 1, LINGER_MS) > 0) {
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(s, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

		if (n < HEAD)
			err(1, "receive");
		memcpy(&offset, buf, HEAD);
		if (be64toh(offset) == next && !over) {
			if (n == HEAD)
				over = 1;
			else if (fwrite(buf + HEAD, 1, n - HEAD, stdout) != (size_t)n - HEAD)
				err(1, "write");
			next += n == HEAD ? 1 : n - HEAD;
		}
		offset = htobe64(next);
		sendto(s, &offset, HEAD, 0, (struct sockaddr *)&from, len);
		if (over && fflush(stdout))
			err(1, "write");
	}
	return 0;
}

static int dial(const char *host, uint16_t port)
{
	struct sockaddr_storage to;
	socklen_t len;
	int s = address(host, port, &to, &len);

	if (connect(s, (struct sockaddr *)&to, len))
		err(1, "%s", host);
	return s;
}

static int transmit(int s, size_t size)
{
	struct pollfd ready = { .fd = s, .events = POLLIN };
	uint64_t base = 0, next = 0, end, offset;
	int tries = 0;

	for (end = lseek(0, 0, SEEK_END); base <= end;) {
		/* At the end an empty one, when all else has come. */
		while (next <= end && next - base < WINDOW && (next < end || base == end)) {
			ssize_t n = pread(0, buf + HEAD, size, next);

			offset = htobe64(next);
			memcpy(buf, &offset, HEAD);
			send(s, buf, HEAD + n, 0);
			next += n ? n : 1;
		}
		if (poll(&ready, 1, AGAIN_MS) <= 0) {
			if (++tries > TRIES)
				errx(1, "no answer at %llu", (unsigned long long)base);
			next = base;
			continue;
		}
		if (recv(s, &offset, HEAD, 0) == HEAD && be64toh(offset) > base) {
			base = be64toh(offset);
			next = next < base ? base : next;
			tries = 0;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "receive"))
		return receive(argv[2], atoi(argv[3]));
	if (argc == 5 && !strcmp(argv[1], "send"))
		return transmit(dial(argv[2], atoi(argv[3])), atoi(argv[4]));
	errx(2, "usage: datagrams send HOST PORT SIZE | receive HOST PORT");
}
