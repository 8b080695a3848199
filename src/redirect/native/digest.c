/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests of the kernel state that a check of the redirect reads: as long as they are the same, so is what
 * the check would find. digest_state takes some system calls instead of four tools: for nftables the
 * generation of the rule set, for legacy tables all entries without their counters; the agent's link with
 * its ports, addresses and policy routing rules by their messages. digest_programs is about the pins.
 *
 * A part that cannot be read is an error. Only a kernel that lacks a part has a digest without it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <bpf/bpf.h>
#include <linux/fib_rules.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/rtnetlink.h>
#include "netlink.h"

#define LINK_NAME "nmi0"
#define FNV_BASIS 0xcbf29ce484222325

struct digest {
	__u64 value;
	__be32 metadata_ip, listen_ip;
	int link; /* index of the agent's link; 0: none */
};

/* FNV-1a. Only root changes this state, and needs no collision to do so. */
static void mix(struct digest *digest, const void *bytes, size_t size)
{
	const __u8 *byte = bytes;

	while (size--)
		digest->value = (digest->value ^ *byte++) * 0x100000001b3;
}

static void mix_part(struct digest *digest, struct part part)
{
	size_t size = size_of(part);

	mix(digest, &size, sizeof(size));
	mix(digest, part.at, size);
}

static int mix_link(const struct nlmsghdr *message, void *context)
{
	struct part all = attributes_of(message, sizeof(struct ifinfomsg));
	const struct ifinfomsg *fixed = NLMSG_DATA(message);
	struct digest *digest = context;

	if (message->nlmsg_type != RTM_NEWLINK || !all.at)
		return -EBADMSG;
	if (!digest->link)
		digest->link = fixed->ifi_index;
	mix(digest, &fixed->ifi_index, sizeof(fixed->ifi_index));
	mix(digest, &fixed->ifi_flags, sizeof(fixed->ifi_flags));
	mix_part(digest, find_attribute(find_attribute(all, IFLA_LINKINFO), IFLA_INFO_KIND));
	return 0;
}

static int mix_address(const struct nlmsghdr *message, void *context)
{
	struct part all = attributes_of(message, sizeof(struct ifaddrmsg));
	const struct ifaddrmsg *fixed = NLMSG_DATA(message);
	struct digest *digest = context;
	__be32 ip = 0;

	if (message->nlmsg_type != RTM_NEWADDR || !all.at)
		return -EBADMSG;
	read_part(find_attribute(all, IFA_LOCAL), &ip, sizeof(ip));
	if (ip == digest->listen_ip || (int)fixed->ifa_index == digest->link) {
		mix(digest, &fixed->ifa_index, sizeof(fixed->ifa_index));
		mix(digest, &ip, sizeof(ip));
	}
	return 0;
}

static int mix_rule(const struct nlmsghdr *message, void *context)
{
	struct part all = attributes_of(message, sizeof(struct fib_rule_hdr));
	struct digest *digest = context;
	__be32 to = 0, from = 0;

	if (message->nlmsg_type != RTM_NEWRULE || !all.at)
		return -EBADMSG;
	read_part(find_attribute(all, FRA_DST), &to, sizeof(to));
	read_part(find_attribute(all, FRA_SRC), &from, sizeof(from));
	if (to == digest->metadata_ip || from == digest->metadata_ip)
		mix_part(digest, (struct part){ NLMSG_DATA(message), all.end });
	return 0;
}

static int mix_generation(const struct nlmsghdr *message, void *context)
{
	struct part generation;

	generation = find_attribute(attributes_of(message, sizeof(struct nfgenmsg)), NFTA_GEN_ID);
	if (size_of(generation) != sizeof(__u32))
		return -EBADMSG;
	mix_part(context, generation);
	return 0;
}

/* The agent's link, then those that are its ports. */
static int mix_links(struct channel *channel, struct digest *digest)
{
	const __u32 no_statistics = RTEXT_FILTER_SKIP_STATS;
	struct request request;
	int error;

	start_request(&request, RTM_GETLINK, NLM_F_ACK, sizeof(struct ifinfomsg));
	put(&request, IFLA_IFNAME, LINK_NAME, sizeof(LINK_NAME));
	put(&request, IFLA_EXT_MASK, &no_statistics, sizeof(no_statistics));
	error = ask(channel, &request, mix_link, digest);
	if (error)
		return error == -ENODEV ? 0 : error;
	start_request(&request, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
	put(&request, IFLA_MASTER, &digest->link, sizeof(digest->link));
	put(&request, IFLA_EXT_MASK, &no_statistics, sizeof(no_statistics));
	return ask(channel, &request, mix_link, digest);
}

static int mix_routing(struct digest *digest, struct fault *fault)
{
	struct channel channel;
	struct request request;
	int error;

	if (open_channel(&channel, NETLINK_ROUTE, fault))
		return -1;
	error = mix_links(&channel, digest);
	if (!error) {
		struct ifaddrmsg *wanted = start_request(&request, RTM_GETADDR, NLM_F_DUMP, sizeof(*wanted));

		wanted->ifa_family = AF_INET;
		error = ask(&channel, &request, mix_address, digest);
	}
	if (!error) {
		struct fib_rule_hdr *wanted = start_request(&request, RTM_GETRULE, NLM_F_DUMP, sizeof(*wanted));

		wanted->family = AF_INET;
		error = ask(&channel, &request, mix_rule, digest);
		/* Without policy routing. */
		if (error == -EOPNOTSUPP)
			error = 0;
	}
	close_channel(&channel);
	return error ? fail(fault, "read links and rules", error) : 0;
}

static int mix_nftables(struct digest *digest, struct fault *fault)
{
	struct channel channel;
	struct request request;
	int error;

	if (open_channel(&channel, NETLINK_NETFILTER, fault)) {
		/* Without nfnetlink. */
		if (fault->error != EPROTONOSUPPORT)
			return -1;
		*fault = (struct fault){};
		return 0;
	}
	start_request(&request, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_ACK,
		      sizeof(struct nfgenmsg));
	error = ask(&channel, &request, mix_generation, digest);
	close_channel(&channel);
	/* EINVAL: without nf_tables. */
	return error && error != -EINVAL ? fail(fault, "read generation", error) : 0;
}

/* An entry is its fixed part, its matches and its target; the next one follows. */
static int mix_entries(struct digest *digest, struct ipt_get_entries *entries)
{
	char *at = (char *)entries->entrytable, *end = at + entries->size;

	while (at < end) {
		struct ipt_entry *entry = (struct ipt_entry *)at;

		if (end - at < (ptrdiff_t)sizeof(*entry) || entry->next_offset < sizeof(*entry) ||
		    entry->next_offset > end - at)
			return -EBADMSG;
		entry->counters = (struct xt_counters){};
		mix(digest, entry, entry->next_offset);
		at += entry->next_offset;
	}
	return 0;
}

static int mix_table(struct digest *digest, int sock, const char *name)
{
	struct ipt_getinfo info = {};
	struct ipt_get_entries *entries;
	socklen_t size = sizeof(info);
	int error;

	strcpy(info.name, name);
	if (getsockopt(sock, IPPROTO_IP, IPT_SO_GET_INFO, &info, &size))
		return -errno;
	size = sizeof(*entries) + info.size;
	entries = calloc(1, size);
	if (!entries)
		return -ENOMEM;
	strcpy(entries->name, name);
	entries->size = info.size;
	error = getsockopt(sock, IPPROTO_IP, IPT_SO_GET_ENTRIES, entries, &size) ?
			-errno :
			mix_entries(digest, entries);
	free(entries);
	return error;
}

/* Only tables that exist: asking for another one makes the kernel create it. */
static int mix_legacy(struct digest *digest, struct fault *fault)
{
	FILE *names = fopen("/proc/self/net/ip_tables_names", "re");
	char name[XT_TABLE_MAXNAMELEN + 1];
	int sock, error = 0;

	if (!names)
		return errno == ENOENT ? 0 : fail(fault, "list tables", errno);
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0) {
		fail(fault, "open socket", errno);
		fclose(names);
		return -1;
	}
	while (!error && fgets(name, sizeof(name), names)) {
		name[strcspn(name, "\n")] = '\0';
		mix(digest, name, strlen(name) + 1);
		if (!strcmp(name, "nat") || !strcmp(name, "mangle"))
			error = mix_table(digest, sock, name);
	}
	close(sock);
	fclose(names);
	return error ? fail(fault, "read tables", error) : 0;
}

int digest_state(__be32 metadata_ip, __be32 listen_ip, __u64 *value, struct fault *fault)
{
	struct digest digest = { FNV_BASIS, metadata_ip, listen_ip, 0 };

	if (mix_routing(&digest, fault) || mix_nftables(&digest, fault) || mix_legacy(&digest, fault))
		return -1;
	*value = digest.value;
	return 0;
}

static int mix_keys(struct digest *digest, const char *pin, struct fault *fault)
{
	int error = 0, map = open_pin(pin, PIN_MAP, true, fault);
	struct bpf_map_info info = {};
	__u64 key;
	__u32 index;

	if (map < 0)
		return -1;
	if (!read_map(map, &info, fault) && info.key_size != sizeof(key))
		fail(fault, "read map", EMSGSIZE);
	for (index = 0; !fault->step && !error && index < info.max_entries; index++) {
		error = bpf_map_get_next_key(map, index ? &key : NULL, &key);
		if (!error)
			mix(digest, &key, sizeof(key));
	}
	if (error && error != -ENOENT)
		fail(fault, "read map", error);
	close(map);
	return fault->step ? -1 : 0;
}

/*
 * An inode of the BPF file system is one object for as long as it lives, and the settings of programs are
 * frozen. So besides names and inodes only a link's program and cgroup, and the sets of cgroups, can change.
 */
static int mix_pin(struct digest *digest, const char *folder, const struct dirent *pin,
		   struct fault *fault)
{
	struct bpf_link_info info = {};
	char path[PATH_MAX];

	mix(digest, pin->d_name, strlen(pin->d_name) + 1);
	mix(digest, &pin->d_ino, sizeof(pin->d_ino));
	if (snprintf(path, sizeof(path), "%s/%s", folder, pin->d_name) >= (int)sizeof(path))
		return fail(fault, "list pins", ENAMETOOLONG);
	if (!strcmp(pin->d_name, "exempt") || !strcmp(pin->d_name, "node_pods"))
		return mix_keys(digest, path, fault);
	if (strncmp(pin->d_name, "link_", strlen("link_")))
		return 0;
	if (read_link(path, &info, fault))
		return -1;
	mix(digest, &info, sizeof(info));
	return 0;
}

static void mix_place(struct digest *digest, int folder, const char *path)
{
	struct stat found = {};

	fstatat(folder, path, &found, 0);
	mix(digest, &found.st_dev, sizeof(found.st_dev));
	mix(digest, &found.st_ino, sizeof(found.st_ino));
}

int digest_programs(const char *folder, const char *const *cgroups, size_t count, __u64 *value,
		    struct fault *fault)
{
	struct digest digest = { .value = FNV_BASIS };
	DIR *pins = opendir(folder);
	const struct dirent *pin;

	if (!pins)
		return fail(fault, "list pins", errno);
	mix_place(&digest, dirfd(pins), ".");
	while (!fault->step && (pin = readdir(pins)))
		if (pin->d_name[0] != '.')
			mix_pin(&digest, folder, pin, fault);
	closedir(pins);
	while (count--)
		mix_place(&digest, AT_FDCWD, cgroups[count]);
	*value = digest.value;
	return fault->step ? -1 : 0;
}
