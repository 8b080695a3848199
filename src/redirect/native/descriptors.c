/* SPDX-License-Identifier: Apache-2.0 */
/* Listening, and passing the socket to another process over a Unix socket. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "system.h"

/* Equal to the server's limit of connections in caller look-up. The kernel caps it at somaxconn. */
#define BACKLOG 1024

static int close_failed(int descriptor, struct fault *fault, const char *step)
{
	int error = errno;

	close(descriptor);
	return fail(fault, step, error);
}

int open_listener(__be32 ip, __be16 port, struct fault *fault)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = port };
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (sock < 0)
		return fail(fault, "listen", errno);
	address.sin_addr.s_addr = ip;
	/* Connections of an earlier listener may still be closing. Permits no second listener. */
	if (setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(sock, (struct sockaddr *)&address, sizeof(address)) || listen(sock, BACKLOG))
		return close_failed(sock, fault, "listen");
	return sock;
}

static int option_of(int descriptor, int name)
{
	int value = 0;
	socklen_t length = sizeof(value);

	return getsockopt(descriptor, SOL_SOCKET, name, &value, &length) ? -errno : value;
}

int listener_address(int descriptor, struct flow_end *end, struct fault *fault)
{
	struct sockaddr_in address = {};
	socklen_t length = sizeof(address);
	int listens = option_of(descriptor, SO_ACCEPTCONN);

	if (listens < 0)
		return fail(fault, "read listener", listens);
	if (listens != 1 || option_of(descriptor, SO_TYPE) != SOCK_STREAM ||
	    option_of(descriptor, SO_DOMAIN) != AF_INET ||
	    option_of(descriptor, SO_PROTOCOL) != IPPROTO_TCP)
		return fail(fault, "read listener", EPROTOTYPE);
	if (getsockname(descriptor, (struct sockaddr *)&address, &length))
		return fail(fault, "read listener", errno);
	*end = (struct flow_end){ address.sin_addr.s_addr, address.sin_port };
	return 0;
}

int set_listening(int descriptor, bool listens, struct fault *fault)
{
	int on = 1, off = 0;

	if (!listens) {
		/* While both have the option and neither listens, another socket could bind the port. */
		if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off)) ||
		    shutdown(descriptor, SHUT_RD))
			return fail(fault, "stop listening", errno);
		return 0;
	}
	/* Without the option until then, unless connections of an earlier agent are still closing. */
	if (listen(descriptor, BACKLOG) &&
	    (errno != EADDRINUSE ||
	     setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	     listen(descriptor, BACKLOG)))
		return fail(fault, "listen", errno);
	/* Connections inherit it, and must not keep a later listener from the port. */
	if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		return fail(fault, "listen", errno);
	return 0;
}

int duplicate_descriptor(int descriptor, struct fault *fault)
{
	int copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? fail(fault, "duplicate", errno) : copy;
}

int connect_local(const char *path, struct fault *fault)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock;

	if (strlen(path) >= sizeof(address.sun_path))
		return fail(fault, "connect", ENAMETOOLONG);
	strcpy(address.sun_path, path);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return fail(fault, "connect", errno);
	/* Does not block: fails with EAGAIN if the backlog of the other end is full. */
	if (connect(sock, (struct sockaddr *)&address, sizeof(address)))
		return close_failed(sock, fault, "connect");
	return sock;
}

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header;
};

int send_note(int socket, __u8 note, int descriptor, struct fault *fault)
{
	struct iovec content = { &note, sizeof(note) };
	struct msghdr message = { .msg_iov = &content, .msg_iovlen = 1 };
	union control control = {};

	if (descriptor >= 0) {
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(int));
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
	}
	if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(note))
		return fail(fault, "send descriptor", errno);
	return 0;
}

int receive_note(int socket, __u8 *note, int *descriptor, struct fault *fault)
{
	union control control = {};
	struct iovec content = { note, sizeof(*note) };
	struct msghdr message = {
		.msg_iov = &content,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		/* Room for exactly one descriptor: the kernel closes any other. */
		.msg_controllen = CMSG_LEN(sizeof(int)),
	};
	struct cmsghdr *header;
	ssize_t length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (length < 0)
		return errno == EAGAIN ? 0 : fail(fault, "receive descriptor", errno);
	if (length == 0)
		return fail(fault, "receive descriptor", ECONNRESET);
	*descriptor = -1;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(descriptor, CMSG_DATA(header), sizeof(int));
	return 1;
}
