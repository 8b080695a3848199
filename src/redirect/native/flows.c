/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forgetting tracked connections, by netfilter's own netlink protocol: one dump of the table, then
 * one deletion for each connection that is meant. A deletion names the connection's id, so that a
 * new one between the same ends, tracked in between, is left alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include "flows.h"

#define RECEIVE_BYTES (64 * 1024)
#define WAIT_SEC 10
#define MAX_FLOWS 65536
#define LOOPBACK_NET 127

struct flow {
	__be32 source, destination, reply_source;
	__be16 source_port, destination_port, reply_port;
	__be32 id;
	__be16 zone;
	bool has_id, has_zone, has_original, has_reply;
	__u8 protocol;
};

struct flows {
	struct flow *all;
	size_t count, room;
};

/* Netlink attributes: a length that counts its own header, a type, then the payload, aligned. */
static const struct nlattr *next_attribute(const void **at, const void *end)
{
	const struct nlattr *attribute = *at;
	size_t left = (const char *)end - (const char *)*at;

	if (left < sizeof(*attribute) || attribute->nla_len < sizeof(*attribute) ||
	    attribute->nla_len > left)
		return NULL;
	*at = (const char *)*at + NLA_ALIGN(attribute->nla_len);
	return attribute;
}

static int type_of(const struct nlattr *attribute)
{
	return attribute->nla_type & NLA_TYPE_MASK;
}

static const void *payload_of(const struct nlattr *attribute, const void **end)
{
	*end = (const char *)attribute + attribute->nla_len;
	return (const char *)attribute + NLA_HDRLEN;
}

static bool read_attribute(const struct nlattr *attribute, void *value, size_t size)
{
	const void *end, *payload = payload_of(attribute, &end);

	if ((size_t)((const char *)end - (const char *)payload) < size)
		return false;
	memcpy(value, payload, size);
	return true;
}

struct tuple {
	__be32 source, destination;
	__be16 source_port, destination_port;
	__u8 protocol;
};

static void read_tuple_part(const struct nlattr *nested, struct tuple *tuple)
{
	const void *end, *at = payload_of(nested, &end);
	bool is_ip = type_of(nested) == CTA_TUPLE_IP;
	const struct nlattr *attribute;

	while ((attribute = next_attribute(&at, end))) {
		int type = type_of(attribute);

		if (is_ip && type == CTA_IP_V4_SRC)
			read_attribute(attribute, &tuple->source, sizeof(tuple->source));
		else if (is_ip && type == CTA_IP_V4_DST)
			read_attribute(attribute, &tuple->destination, sizeof(tuple->destination));
		else if (!is_ip && type == CTA_PROTO_NUM)
			read_attribute(attribute, &tuple->protocol, sizeof(tuple->protocol));
		else if (!is_ip && type == CTA_PROTO_SRC_PORT)
			read_attribute(attribute, &tuple->source_port, sizeof(tuple->source_port));
		else if (!is_ip && type == CTA_PROTO_DST_PORT)
			read_attribute(attribute, &tuple->destination_port,
				       sizeof(tuple->destination_port));
	}
}

static struct tuple read_tuple(const struct nlattr *nested)
{
	const void *end, *at = payload_of(nested, &end);
	const struct nlattr *attribute;
	struct tuple tuple = {};

	while ((attribute = next_attribute(&at, end))) {
		if (type_of(attribute) == CTA_TUPLE_IP || type_of(attribute) == CTA_TUPLE_PROTO)
			read_tuple_part(attribute, &tuple);
	}
	return tuple;
}

static struct flow read_flow(const void *at, const void *end)
{
	const struct nlattr *attribute;
	struct flow flow = {};
	struct tuple tuple;

	while ((attribute = next_attribute(&at, end))) {
		switch (type_of(attribute)) {
		case CTA_TUPLE_ORIG:
			tuple = read_tuple(attribute);
			flow.source = tuple.source;
			flow.destination = tuple.destination;
			flow.source_port = tuple.source_port;
			flow.destination_port = tuple.destination_port;
			flow.protocol = tuple.protocol;
			flow.has_original = true;
			break;
		case CTA_TUPLE_REPLY:
			tuple = read_tuple(attribute);
			flow.reply_source = tuple.source;
			flow.reply_port = tuple.source_port;
			flow.has_reply = true;
			break;
		case CTA_ID:
			flow.has_id = read_attribute(attribute, &flow.id, sizeof(flow.id));
			break;
		case CTA_ZONE:
			flow.has_zone = read_attribute(attribute, &flow.zone, sizeof(flow.zone));
			break;
		}
	}
	return flow;
}

static bool is_meant(const struct flow *flow, const struct flow_filter *filter)
{
	size_t index;

	if (!flow->has_original || !flow->has_reply || flow->protocol != IPPROTO_TCP)
		return false;
	if (flow->destination != filter->dialled.ip ||
	    flow->destination_port != filter->dialled.port)
		return false;
	if (flow->reply_source == filter->answered_by.ip &&
	    flow->reply_port == filter->answered_by.port)
		return false;
	/* 127.0.0.0/8 as a whole is the node, its interface list has 127.0.0.1 only. */
	if (ntohl(flow->source) >> 24 == LOOPBACK_NET)
		return false;
	for (index = 0; index < filter->spared_count; index++) {
		if (flow->source == filter->spared[index])
			return false;
	}
	return true;
}

static int keep_flow(struct flows *flows, const struct flow *flow)
{
	if (flows->count == flows->room) {
		size_t room = flows->room ? 2 * flows->room : 64;
		struct flow *all;

		if (room > MAX_FLOWS)
			return 0;
		all = realloc(flows->all, room * sizeof(*all));
		if (!all)
			return -ENOMEM;
		flows->all = all;
		flows->room = room;
	}
	flows->all[flows->count++] = *flow;
	return 0;
}

/* A request: its header, netfilter's own header, then attributes. */
struct request {
	struct nlmsghdr header;
	struct nfgenmsg netfilter;
	char attributes[256];
};

static void start_request(struct request *request, int operation, int flags)
{
	memset(request, 0, sizeof(*request));
	request->header.nlmsg_len = NLMSG_LENGTH(sizeof(request->netfilter));
	request->header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | operation;
	request->header.nlmsg_flags = NLM_F_REQUEST | flags;
	request->netfilter.nfgen_family = AF_INET;
	request->netfilter.version = NFNETLINK_V0;
}

static struct nlattr *put(struct request *request, int type, const void *value, size_t size)
{
	struct nlattr *attribute;

	attribute = (struct nlattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + size;
	if (size)
		memcpy((char *)attribute + NLA_HDRLEN, value, size);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + NLA_ALIGN(attribute->nla_len);
	return attribute;
}

static void end_nest(struct request *request, struct nlattr *nest)
{
	nest->nla_len = (char *)request + request->header.nlmsg_len - (char *)nest;
}

static int send_request(int channel, const struct request *request)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t sent;

	sent = sendto(channel, request, request->header.nlmsg_len, 0, (struct sockaddr *)&kernel,
		      sizeof(kernel));
	return sent < 0 ? -errno : 0;
}

typedef int message_reader(const struct nlmsghdr *message, void *context);

/* Reads messages to the end of an answer: 0, or the negative errno that the kernel or a reader gave. */
static int receive_answer(int channel, char *buffer, message_reader *reader, void *context)
{
	for (;;) {
		ssize_t received = recv(channel, buffer, RECEIVE_BYTES, 0);
		const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
		size_t left = received;

		if (received < 0) {
			if (errno == EINTR)
				continue;
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		}
		for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
			int result;

			if (message->nlmsg_type == NLMSG_DONE)
				return 0;
			if (message->nlmsg_type == NLMSG_ERROR) {
				if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
					return -EBADMSG;
				return ((const struct nlmsgerr *)NLMSG_DATA(message))->error;
			}
			result = reader ? reader(message, context) : 0;
			if (result)
				return result;
		}
	}
}

struct listing {
	const struct flow_filter *filter;
	struct flows *flows;
};

static int list_flow(const struct nlmsghdr *message, void *context)
{
	const struct listing *listing = context;
	const char *start = NLMSG_DATA(message);
	const char *end = (const char *)message + message->nlmsg_len;
	struct flow flow;

	if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct nfgenmsg)))
		return -EBADMSG;
	flow = read_flow(start + NLMSG_ALIGN(sizeof(struct nfgenmsg)), end);
	return is_meant(&flow, listing->filter) ? keep_flow(listing->flows, &flow) : 0;
}

static int delete_flow(int channel, char *buffer, const struct flow *flow)
{
	struct nlattr *tuple, *part;
	struct request request;
	int error;

	start_request(&request, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
	tuple = put(&request, CTA_TUPLE_ORIG | NLA_F_NESTED, NULL, 0);
	part = put(&request, CTA_TUPLE_IP | NLA_F_NESTED, NULL, 0);
	put(&request, CTA_IP_V4_SRC, &flow->source, sizeof(flow->source));
	put(&request, CTA_IP_V4_DST, &flow->destination, sizeof(flow->destination));
	end_nest(&request, part);
	part = put(&request, CTA_TUPLE_PROTO | NLA_F_NESTED, NULL, 0);
	put(&request, CTA_PROTO_NUM, &flow->protocol, sizeof(flow->protocol));
	put(&request, CTA_PROTO_SRC_PORT, &flow->source_port, sizeof(flow->source_port));
	put(&request, CTA_PROTO_DST_PORT, &flow->destination_port, sizeof(flow->destination_port));
	end_nest(&request, part);
	end_nest(&request, tuple);
	if (flow->has_zone)
		put(&request, CTA_ZONE, &flow->zone, sizeof(flow->zone));
	if (flow->has_id)
		put(&request, CTA_ID, &flow->id, sizeof(flow->id));
	error = send_request(channel, &request);
	return error ? error : receive_answer(channel, buffer, NULL, NULL);
}

static int delete_flows(int channel, char *buffer, const struct flows *flows, struct fault *fault)
{
	size_t index;
	int cut = 0, error;

	for (index = 0; index < flows->count; index++) {
		error = delete_flow(channel, buffer, &flows->all[index]);
		/* It ended by itself in between. */
		if (error == -ENOENT)
			continue;
		if (error)
			return fail(fault, "cut flow", error);
		cut++;
	}
	return cut;
}

int cut_flows(const struct flow_filter *filter, struct fault *fault)
{
	struct timeval patience = { .tv_sec = WAIT_SEC };
	struct flows flows = {};
	struct listing listing = { filter, &flows };
	struct request request;
	char *buffer = NULL;
	int channel, result = -1, error;

	channel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (channel < 0)
		return fail(fault, "open netlink", errno);
	buffer = malloc(RECEIVE_BYTES);
	if (!buffer) {
		fail(fault, "open netlink", ENOMEM);
		goto cleanup;
	}
	if (setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience))) {
		fail(fault, "open netlink", errno);
		goto cleanup;
	}
	start_request(&request, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
	error = send_request(channel, &request);
	if (!error)
		error = receive_answer(channel, buffer, list_flow, &listing);
	if (error) {
		fail(fault, "list flows", error);
		goto cleanup;
	}
	result = delete_flows(channel, buffer, &flows, fault);
cleanup:
	free(flows.all);
	free(buffer);
	close(channel);
	return result;
}
