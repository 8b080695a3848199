/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets for netlink.ts, which reads and writes them like files. */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "system.h"

#define WAIT_SEC 10

int open_netlink(int protocol, struct fault *fault)
{
	struct timeval patience = { .tv_sec = WAIT_SEC };
	/* Connected to it: any process with CAP_NET_ADMIN could send a message otherwise. */
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int error, sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	if (sock < 0)
		return fail(fault, "open netlink", errno);
	if (!setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) &&
	    !connect(sock, (struct sockaddr *)&kernel, sizeof(kernel)))
		return sock;
	error = errno;
	close(sock);
	return fail(fault, "open netlink", error);
}
