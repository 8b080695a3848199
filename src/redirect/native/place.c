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
#include <string.h>
#include <sys/socket.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include "netlink.h"

#define WHOLE_ADDRESS 32

struct route {
	__u32 link;
	__u8 prefix_bits, type;
	bool has_gateway;
};

static int read_route(const struct nlmsghdr *message, void *context)
{
	struct part all = attributes_of(message, sizeof(struct rtmsg));
	const struct rtmsg *fixed = NLMSG_DATA(message);
	struct route *route = context;

	if (message->nlmsg_type != RTM_NEWROUTE || !all.at)
		return -EBADMSG;
	route->prefix_bits = fixed->rtm_dst_len;
	route->type = fixed->rtm_type;
	route->has_gateway = find_attribute(all, RTA_GATEWAY).at || find_attribute(all, RTA_VIA).at;
	read_part(find_attribute(all, RTA_OIF), &route->link, sizeof(route->link));
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
	struct part all = attributes_of(message, sizeof(struct ndmsg));
	struct part mac = find_attribute(all, NDA_LLADDR);
	const struct ndmsg *fixed = NLMSG_DATA(message);
	struct place *place = context;

	if (message->nlmsg_type != RTM_NEWNEIGH || !all.at)
		return -EBADMSG;
	if (!(fixed->ndm_state & (NUD_INCOMPLETE | NUD_FAILED | NUD_NOARP)))
		place->has_mac = size_of(mac) == MAC_BYTES && read_part(mac, place->mac, MAC_BYTES);
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
	if (find_route(&channel, ip, &route) || route.type != RTN_UNICAST)
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

/* The kernel ends the name with NUL. */
static bool is_named(struct part name, const char *wanted)
{
	return size_of(name) == strlen(wanted) + 1 && !memcmp(name.at, wanted, size_of(name));
}

static int read_kind(const struct nlmsghdr *message, void *context)
{
	struct part all = attributes_of(message, sizeof(struct ifinfomsg));
	struct part name = find_attribute(find_attribute(all, IFLA_LINKINFO), IFLA_INFO_KIND);
	struct kind *kind = context;

	if (message->nlmsg_type != RTM_NEWLINK || !all.at)
		return -EBADMSG;
	kind->has_master = find_attribute(all, IFLA_MASTER).at;
	kind->is_pair = is_named(name, "veth") || is_named(name, "netkit");
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
	if (find_route(&channel, ip, &route) || route.type != RTN_UNICAST || route.has_gateway ||
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

/* Also while the link of the address is down: connections arrive then, too. */
int is_local(__be32 ip, bool *local, struct fault *fault)
{
	struct route route = {};
	struct channel channel;

	if (open_channel(&channel, NETLINK_ROUTE, fault))
		return -1;
	*local = !find_route(&channel, ip, &route) && route.type == RTN_LOCAL;
	close_channel(&channel);
	return 0;
}
