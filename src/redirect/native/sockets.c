/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds and closes sockets of other processes in this network namespace, by the kernel's socket
 * diagnosis. A close request contains the socket's cookie, so that a new socket with the same address and
 * port is not closed. (The diagnosis can select by cgroup, but not with descendants.)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include "netlink.h"

/*
 * States of a connection, by the kernel's numbers: established, SYN sent and received, both FIN waits,
 * close wait, last ACK, closing. Not closed, listening, time wait or new request.
 */
#define CONNECTED ((1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11))

struct found_socket {
	__u8 family;
	struct inet_diag_sockid id;
	__u64 cgroup_id;
};

struct found_sockets {
	const struct flow_end *dialled;
	struct kept sockets;
};

static bool is_dialled(const struct inet_diag_msg *found, const struct flow_end *dialled)
{
	const __be32 *ip = found->id.idiag_dst;

	if (found->id.idiag_dport != dialled->port)
		return false;
	if (found->idiag_family == AF_INET)
		return ip[0] == dialled->ip;
	return ip[0] == 0 && ip[1] == 0 && ip[2] == htonl(0xffff) && ip[3] == dialled->ip;
}

static int list_socket(const struct nlmsghdr *message, void *context)
{
	const struct inet_diag_msg *told = NLMSG_DATA(message);
	struct part all = attributes_of(message, sizeof(*told));
	struct found_sockets *found = context;
	struct found_socket socket = {};

	if (!all.at)
		return -EBADMSG;
	if (!is_dialled(told, found->dialled))
		return 0;
	socket.family = told->idiag_family;
	socket.id = told->id;
	read_part(find_attribute(all, INET_DIAG_CGROUP_ID), &socket.cgroup_id, sizeof(__u64));
	return keep(&found->sockets, &socket);
}

static int list_family(struct channel *channel, int family, struct found_sockets *found)
{
	struct inet_diag_req_v2 *wanted;
	struct request request;

	wanted = start_request(&request, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sizeof(*wanted));
	wanted->sdiag_family = family;
	wanted->sdiag_protocol = IPPROTO_TCP;
	wanted->idiag_states = CONNECTED;
	return ask(channel, &request, list_socket, found);
}

static bool is_among(__u64 id, const __u64 *ids, size_t count)
{
	size_t index;

	for (index = 0; index < count; index++) {
		if (ids[index] == id)
			return true;
	}
	return false;
}

static int close_socket(struct channel *channel, const struct found_socket *socket)
{
	struct inet_diag_req_v2 *meant;
	struct request request;

	meant = start_request(&request, SOCK_DESTROY, NLM_F_ACK, sizeof(*meant));
	meant->sdiag_family = socket->family;
	meant->sdiag_protocol = IPPROTO_TCP;
	meant->id = socket->id;
	return ask(channel, &request, NULL, NULL);
}

int cut_sockets(const struct flow_end *dialled, const __u64 *ids, size_t count,
		struct fault *fault)
{
	struct found_sockets found = {
		.dialled = dialled,
		.sockets.size = sizeof(struct found_socket),
	};
	const struct found_socket *socket;
	struct channel channel;
	size_t index;
	int cut = 0, error;

	if (open_channel(&channel, NETLINK_SOCK_DIAG, fault))
		return -1;
	error = list_family(&channel, AF_INET, &found);
	if (!error)
		error = list_family(&channel, AF_INET6, &found);
	if (error)
		cut = fail(fault, "list sockets", error);
	socket = found.sockets.all;
	for (index = 0; index < found.sockets.count && cut >= 0; index++) {
		if (!is_among(socket[index].cgroup_id, ids, count))
			continue;
		error = close_socket(&channel, &socket[index]);
		if (!error)
			cut++;
		else if (error != -ENOENT)
			cut = fail(fault, "close socket", error);
	}
	free(found.sockets.all);
	close_channel(&channel);
	return cut;
}
