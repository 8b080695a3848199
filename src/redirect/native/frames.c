/* SPDX-License-Identifier: Apache-2.0 */
/* What a process with NET_RAW can do to others: the node lab tries it on the agent. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "frames.h"

int open_frames(const char *interface, int patience_s, struct fault *fault)
{
	struct timeval patience = { .tv_sec = patience_s };
	struct sockaddr_ll end = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) };
	int sock = -1, error;

	end.sll_ifindex = if_nametoindex(interface);
	if (!end.sll_ifindex)
		return fail(fault, "find interface", errno);
	/* Without a protocol it hears nothing until it is bound, so no frame of another interface. */
	sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return fail(fault, "open frames", errno);
	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    bind(sock, (struct sockaddr *)&end, sizeof(end))) {
		error = errno;
		close(sock);
		return fail(fault, "open frames", error);
	}
	return sock;
}
