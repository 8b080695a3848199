/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds where the kernel sends packets for an address, by up to three look-ups through routing
 * netlink: the route; if it is for more than this address, the station (neighbor); then the bridge
 * port of the station. No look-up needs a capability.
 *
 * IPv4 only: the metadata address is an IPv4 address, so all connections come over IPv4.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include "netlink.h"
#include "place.h"

#define WHOLE_ADDRESS 32

struct route {
	__u32 link;
	__u8 prefix_bits;
	bool is_unicast, has_gateway;
};

static int read_route(const struct nlmsghdr *message, void *context)
{
	const void *end, *at = attributes_of(message, sizeof(struct rtmsg), &end);
	const struct nlattr *attribute;
	struct route *route = context;
	const struct rtmsg *fixed;

	if (message->nlmsg_type != RTM_NEWROUTE || !at)
		return -EBADMSG;
	fixed = NLMSG_DATA(message);
	route->prefix_bits = fixed->rtm_dst_len;
	route->is_unicast = fixed->rtm_type == RTN_UNICAST;
	while ((attribute = next_attribute(&at, end))) {
		int type = type_of(attribute);

		if (type == RTA_OIF)
			read_attribute(attribute, &route->link, sizeof(route->link));
		else if (type == RTA_GATEWAY || type == RTA_VIA)
			route->has_gateway = true;
	}
	return 0;
}

static int find_route(struct channel *channel, __be32 ip, struct route *route)
{
	struct request request;
	struct rtmsg *fixed;

	fixed = start_request(&request, RTM_GETROUTE, NLM_F_ACK, sizeof(*fixed));
	fixed->rtm_family = AF_INET;
	fixed->rtm_dst_len = WHOLE_ADDRESS;
	/* Requests the route as it is configured, with its prefix length. */
	fixed->rtm_flags = RTM_F_FIB_MATCH;
	put(&request, RTA_DST, &ip, sizeof(ip));
	return ask(channel, &request, read_route, route);
}

static int read_station(const struct nlmsghdr *message, void *context)
{
	const void *end, *at = attributes_of(message, sizeof(struct ndmsg), &end);
	const struct nlattr *attribute;
	struct place *place = context;
	const struct ndmsg *fixed;

	if (message->nlmsg_type != RTM_NEWNEIGH || !at)
		return -EBADMSG;
	fixed = NLMSG_DATA(message);
	if (fixed->ndm_state & (NUD_INCOMPLETE | NUD_FAILED | NUD_NOARP))
		return 0;
	while ((attribute = next_attribute(&at, end))) {
		if (type_of(attribute) == NDA_LLADDR && attribute->nla_len == NLA_HDRLEN + MAC_BYTES)
			place->has_mac = read_attribute(attribute, place->mac, MAC_BYTES);
	}
	return 0;
}

static int find_station(struct channel *channel, __be32 ip, struct place *place)
{
	struct request request;
	struct ndmsg *fixed;

	fixed = start_request(&request, RTM_GETNEIGH, NLM_F_ACK, sizeof(*fixed));
	fixed->ndm_family = AF_INET;
	fixed->ndm_ifindex = place->link;
	put(&request, NDA_DST, &ip, sizeof(ip));
	return ask(channel, &request, read_station, place);
}

static int read_port(const struct nlmsghdr *message, void *context)
{
	struct place *place = context;

	if (message->nlmsg_type != RTM_NEWNEIGH ||
	    message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ndmsg)))
		return -EBADMSG;
	place->port = ((const struct ndmsg *)NLMSG_DATA(message))->ndm_ifindex;
	return 0;
}

/* The kernel refuses this for a link that is not a bridge. */
static int find_port(struct channel *channel, struct place *place)
{
	struct request request;
	struct ndmsg *fixed;

	fixed = start_request(&request, RTM_GETNEIGH, NLM_F_ACK, sizeof(*fixed));
	fixed->ndm_family = AF_BRIDGE;
	put(&request, NDA_LLADDR, place->mac, MAC_BYTES);
	put(&request, NDA_MASTER, &place->link, sizeof(place->link));
	return ask(channel, &request, read_port, place);
}

int find_place(__be32 ip, struct place *place, struct fault *fault)
{
	struct route route = {};
	struct channel channel;

	memset(place, 0, sizeof(*place));
	if (open_channel(&channel, NETLINK_ROUTE, fault))
		return -1;
	/* An address that the kernel refuses to look up has no place. */
	if (find_route(&channel, ip, &route) || !route.is_unicast)
		goto found;
	if (route.prefix_bits < WHOLE_ADDRESS && route.has_gateway)
		goto found;
	place->link = route.link;
	if (route.prefix_bits == WHOLE_ADDRESS)
		goto found;
	find_station(&channel, ip, place);
	if (place->has_mac)
		find_port(&channel, place);
	else
		place->link = 0;
found:
	close_channel(&channel);
	return 0;
}

struct kind {
	bool is_pair; /* packets sent to it reach one network namespace */
	bool has_master;
};

static bool is_pair(const struct nlattr *info)
{
	const void *end, *at = payload_of(info, &end);
	const struct nlattr *attribute;

	while ((attribute = next_attribute(&at, end))) {
		const void *name_end;
		const char *name = payload_of(attribute, &name_end);
		size_t length = (const char *)name_end - name;

		if (type_of(attribute) != IFLA_INFO_KIND)
			continue;
		length = strnlen(name, length);
		return (length == 4 && !memcmp(name, "veth", 4)) ||
		       (length == 6 && !memcmp(name, "netkit", 6));
	}
	return false;
}

static int read_kind(const struct nlmsghdr *message, void *context)
{
	const void *end, *at = attributes_of(message, sizeof(struct ifinfomsg), &end);
	const struct nlattr *attribute;
	struct kind *kind = context;

	if (message->nlmsg_type != RTM_NEWLINK || !at)
		return -EBADMSG;
	while ((attribute = next_attribute(&at, end))) {
		int type = type_of(attribute);

		if (type == IFLA_MASTER)
			kind->has_master = true;
		else if (type == IFLA_LINKINFO)
			kind->is_pair = is_pair(attribute);
	}
	return 0;
}

int owns_link(__be32 ip, bool *owns, struct fault *fault)
{
	struct route route = {};
	struct kind kind = {};
	struct channel channel;
	struct request request;
	struct ifinfomsg *fixed;

	*owns = false;
	if (open_channel(&channel, NETLINK_ROUTE, fault))
		return -1;
	if (find_route(&channel, ip, &route) || !route.is_unicast || route.has_gateway ||
	    route.prefix_bits != WHOLE_ADDRESS)
		goto found;
	fixed = start_request(&request, RTM_GETLINK, NLM_F_ACK, sizeof(*fixed));
	fixed->ifi_family = AF_UNSPEC;
	fixed->ifi_index = route.link;
	*owns = !ask(&channel, &request, read_kind, &kind) && kind.is_pair && !kind.has_master;
found:
	close_channel(&channel);
	return 0;
}

bool has_link(__u32 link)
{
	char name[IF_NAMESIZE];

	return if_indextoname(link, name);
}
