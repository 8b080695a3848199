/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deletes conntrack entries, by netfilter's netlink protocol: one dump of the table, then one deletion
 * per selected entry. A deletion contains the entry's id, so that a new entry with the same ends is not
 * deleted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include "flows.h"
#include "netlink.h"

#define LOOPBACK_NET 127

struct flow {
	__be32 source, destination, reply_source;
	__be16 source_port, destination_port, reply_port;
	__be32 id;
	__be16 zone;
	bool has_id, has_zone, has_original, has_reply;
	__u8 protocol;
};

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
	/* All of 127.0.0.0/8 is the node, but its interface list has 127.0.0.1 only. A flow that it
	 * answers belongs to another agent of this node, aad-pod-identity's, until that ends. */
	if (ntohl(flow->source) >> 24 == LOOPBACK_NET ||
	    ntohl(flow->reply_source) >> 24 == LOOPBACK_NET)
		return false;
	for (index = 0; index < filter->spared_count; index++) {
		if (flow->source == filter->spared[index])
			return false;
	}
	return true;
}

struct listing {
	const struct flow_filter *filter;
	struct kept *flows;
};

static int list_flow(const struct nlmsghdr *message, void *context)
{
	const struct listing *listing = context;
	const void *end, *at = attributes_of(message, sizeof(struct nfgenmsg), &end);
	struct flow flow;

	if (!at)
		return -EBADMSG;
	flow = read_flow(at, end);
	return is_meant(&flow, listing->filter) ? keep(listing->flows, &flow) : 0;
}

static void start_flow_request(struct request *request, int operation, int flags)
{
	struct nfgenmsg *netfilter;

	netfilter = start_request(request, NFNL_SUBSYS_CTNETLINK << 8 | operation, flags,
				  sizeof(*netfilter));
	netfilter->nfgen_family = AF_INET;
	netfilter->version = NFNETLINK_V0;
}

static int delete_flow(struct channel *channel, const struct flow *flow)
{
	struct nlattr *tuple, *part;
	struct request request;

	start_flow_request(&request, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
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
	return ask(channel, &request, NULL, NULL);
}

static int delete_flows(struct channel *channel, const struct kept *flows, struct fault *fault)
{
	const struct flow *flow = flows->all;
	size_t index;
	int cut = 0, error;

	for (index = 0; index < flows->count; index++) {
		error = delete_flow(channel, &flow[index]);
		/* The entry expired between dump and deletion. */
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
	struct kept flows = { .size = sizeof(struct flow) };
	struct listing listing = { filter, &flows };
	struct channel channel;
	struct request request;
	int result, error;

	if (open_channel(&channel, NETLINK_NETFILTER, fault))
		return -1;
	start_flow_request(&request, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
	error = ask(&channel, &request, list_flow, &listing);
	result = error ? fail(fault, "list flows", error) : delete_flows(&channel, &flows, fault);
	free(flows.all);
	close_channel(&channel);
	return result;
}
