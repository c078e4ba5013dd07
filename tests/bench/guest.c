/* A fast guest for passt: relays frames between a tap device and the stream socket, so that the
 * network stack behind the tap, which is the kernel's, stands for that of a virtual machine.
 *
 *   guest SOCKET TAP     connects to the socket
 *   guest -F FD TAP      is connected already
 *
 * Run it in the network namespace that is to be the guest. TAP is created there unless it exists;
 * if it does, with the addresses and connections of the guest, it is there again for the next run.
 * Like the network card of a machine on such a socket it offloads nothing. Ends with the connection.
 *
 * One thread for each direction. Frames that are ready go out with one write. */

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAME = 65535, BATCH = 256 << 10, INBOX = 512 << 10 };

static int tap, sock;

static int open_tap(const char *name)
{
	struct ifreq req = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		err(1, "/dev/net/tun");
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &req) < 0)
		err(1, "%s", name);
	return fd;
}

static int connect_to(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		err(1, "%s", path);
	return fd;
}

static void *outbound(void *unused)
{
	static uint8_t buf[BATCH + 4 + FRAME];
	struct pollfd ready = { .fd = tap, .events = POLLIN };
	size_t len = 0, sent;
	ssize_t n = 0;

	for (;;) {
		while (len < BATCH && (n = read(tap, buf + len + 4, FRAME)) > 0) {
			uint32_t prefix = htonl(n);
			memcpy(buf + len, &prefix, 4);
			len += 4 + n;
		}
		/* EIO: the interface is down. */
		if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EIO)
			err(1, "tap");
		for (sent = 0; sent < len; sent += n)
			if ((n = send(sock, buf + sent, len - sent, MSG_NOSIGNAL)) < 0)
				exit(0);
		if (!len)
			poll(&ready, 1, -1);
		len = 0;
	}
	return unused;
}

static void inbound(void)
{
	static uint8_t buf[INBOX];
	size_t start = 0, end = 0;
	uint32_t len;
	ssize_t n;

	while ((n = recv(sock, buf + end, sizeof(buf) - end, 0)) > 0) {
		for (end += n; end - start >= 4; start += 4 + len) {
			memcpy(&len, buf + start, 4);
			len = ntohl(len);
			if (len < 14 || len > FRAME)
				errx(1, "a frame of %u bytes", len);
			if (end - start < 4 + len)
				break;
			/* A full or absent interface loses frames, as a card would. */
			if (write(tap, buf + start + 4, len) < 0 && errno == EBADFD)
				err(1, "tap");
		}
		memmove(buf, buf + start, end - start);
		end -= start;
		start = 0;
	}
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc == 4 && !strcmp(argv[1], "-F"))
		sock = atoi(argv[2]);
	else if (argc == 3)
		sock = connect_to(argv[1]);
	else
		errx(2, "usage: guest SOCKET TAP | guest -F FD TAP");
	tap = open_tap(argv[argc - 1]);
	if (pthread_create(&thread, NULL, outbound, NULL))
		errx(1, "no thread");
	inbound();
	return 0;
}
