/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conntrack entries, by netfilter's netlink protocol. Deletes some: one dump of the table, then one deletion
 * per selected entry, which contains the entry's id, so that a new entry with the same ends is not deleted.
 * Reads the generation of netfilter's rules.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include "system.h"
#include "netlink.h"

#define LOOPBACK_NET 127

/* Room for the nested addresses, protocol, ports and zone of one direction. */
#define MAX_TUPLE_BYTES 64

struct flow {
	__be32 source, destination, reply_source;
	__be16 source_port, destination_port, reply_port;
	__u8 protocol;
	__be32 id;
	__be16 zone;
	bool has_id, has_zone;
	/* As the kernel reported the original direction, for the deletion. */
	size_t original_size;
	char original[MAX_TUPLE_BYTES];
};

/* Whether it is an entry of IPv4 with both directions. */
static bool read_flow(struct part all, struct flow *flow)
{
	struct part original = find_attribute(all, CTA_TUPLE_ORIG);
	struct part ips = find_attribute(original, CTA_TUPLE_IP);
	struct part proto = find_attribute(original, CTA_TUPLE_PROTO);
	struct part reply = find_attribute(all, CTA_TUPLE_REPLY);

	flow->has_id = read_part(find_attribute(all, CTA_ID), &flow->id, sizeof(flow->id));
	flow->has_zone = read_part(find_attribute(all, CTA_ZONE), &flow->zone, sizeof(flow->zone));
	flow->original_size = size_of(original);
	return flow->original_size <= MAX_TUPLE_BYTES &&
	       read_part(original, flow->original, flow->original_size) &&
	       read_part(find_attribute(ips, CTA_IP_V4_SRC), &flow->source, sizeof(__be32)) &&
	       read_part(find_attribute(ips, CTA_IP_V4_DST), &flow->destination, sizeof(__be32)) &&
	       read_part(find_attribute(proto, CTA_PROTO_NUM), &flow->protocol, sizeof(__u8)) &&
	       read_part(find_attribute(proto, CTA_PROTO_SRC_PORT), &flow->source_port,
			 sizeof(__be16)) &&
	       read_part(find_attribute(proto, CTA_PROTO_DST_PORT), &flow->destination_port,
			 sizeof(__be16)) &&
	       read_part(find_attribute(find_attribute(reply, CTA_TUPLE_IP), CTA_IP_V4_SRC),
			 &flow->reply_source, sizeof(__be32)) &&
	       read_part(find_attribute(find_attribute(reply, CTA_TUPLE_PROTO), CTA_PROTO_SRC_PORT),
			 &flow->reply_port, sizeof(__be16));
}

static bool is_meant(const struct flow *flow, const struct flow_filter *filter)
{
	size_t index;

	if (flow->protocol != IPPROTO_TCP || flow->destination != filter->dialled.ip ||
	    flow->destination_port != filter->dialled.port)
		return false;
	if (filter->answered_by && flow->reply_source == filter->answered_by)
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
	struct part all = attributes_of(message, sizeof(struct nfgenmsg));
	struct flow flow = {};

	if (!all.at)
		return -EBADMSG;
	return read_flow(all, &flow) && is_meant(&flow, listing->filter) ?
		       keep(listing->flows, &flow) :
		       0;
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
	struct request request;

	start_flow_request(&request, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
	put(&request, CTA_TUPLE_ORIG | NLA_F_NESTED, flow->original, flow->original_size);
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

static int read_generation(const struct nlmsghdr *message, void *context)
{
	struct part all = attributes_of(message, sizeof(struct nfgenmsg));

	return read_part(find_attribute(all, NFTA_GEN_ID), context, sizeof(__u32)) ? 0 : -EBADMSG;
}

int rule_generation(__u32 *generation, struct fault *fault)
{
	struct channel channel;
	struct request request;
	int error;

	if (open_channel(&channel, NETLINK_NETFILTER, fault))
		return -1;
	start_request(&request, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_ACK,
		      sizeof(struct nfgenmsg));
	error = ask(&channel, &request, read_generation, generation);
	close_channel(&channel);
	return error ? fail(fault, "read generation", error) : 0;
}
