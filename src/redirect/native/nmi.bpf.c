/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings TCP connects to the metadata address to the agent and writes down who made them.
 *
 *   connect4, connect6          rewrite the destination, note the caller's cgroup with the socket
 *   sockops, before the SYN     file client address and port -> cgroup, for the agent to look up
 *   sockops, on either close    take the record away
 *   getpeername4, getpeername6  show the client the address that it dialled
 *
 * With `lets_straight`, connects of excepted pods are not rewritten, and their sockets on record:
 *
 *   sockops                     file client address and port, before the SYN
 *   socket, asked by iptables   whether a packet belongs to such a socket
 *
 * connect6 sees IPv4-mapped sockets only (every JVM has them); no native IPv6 address is redirected.
 * MPTCP comes through connect4 and connect6 by its first subflow, fast open by the connect inside
 * of sendmsg(). Nothing but a connect to the metadata address and port is touched or written down,
 * so the rest of the node's traffic can neither fill a map nor push anything out of one.
 *
 * Whatever cannot be written down is redirected all the same: the agent refuses a peer without a
 * record, the real endpoint would not.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "nmi.h"

#define SOCK_STREAM 1
#define IPPROTO_OF_MPTCP 262
#define MAX_DEPTH 24
#define TCP_SYN 0x02
#define IP_FRAGMENT 0x3fff

/* A section of its own, so that no constant of the compiler ends up in the same map. */
const volatile struct nmi_settings settings SEC(".rodata.nmi") = {};

/*
 * A hash and not an LRU hash: an LRU hash of 65,536 loses the record of a living connection after
 * as many later ones. Records leave with their sockets, so what is full is full of living sockets.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NMI_MAX_CALLERS);
	__type(key, struct nmi_client);
	__type(value, struct nmi_caller);
} callers SEC(".maps");

/* Lives and dies with the socket: nothing to bound, nothing that a flood could evict. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct nmi_dial);
} dials SEC(".maps");

/* Cgroups that reach the real endpoint, each with everything below it, and why they do. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NMI_MAX_EXEMPT);
	__type(key, __u64);
	__type(value, __u8);
} exempt SEC(".maps");

/* As `callers`, of sockets that go straight. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NMI_MAX_CALLERS);
	__type(key, struct nmi_client);
	__type(value, struct nmi_straight);
} straight SEC(".maps");

/* What straight sockets that have closed still send: the last acknowledgement, or a reset. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NMI_MAX_PARTING);
	__type(key, struct nmi_client);
	__type(value, __u8);
} parting SEC(".maps");

/* Records per cgroup. What the LRU forgets makes a limit laxer, never a record wrong. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NMI_MAX_LOADS);
	__type(key, __u64);
	__type(value, __s64);
} loads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nmi_counters);
} counters SEC(".maps");

#define COUNT(field)                                                        \
	do {                                                                \
		__u32 first = 0;                                            \
		struct nmi_counters *all;                                   \
		all = bpf_map_lookup_elem(&counters, &first);               \
		if (all)                                                    \
			__sync_fetch_and_add(&all->field, 1);               \
	} while (0)

/*
 * Why this process is not redirected, and for the sake of which cgroup; 0 when it is.
 *
 * The root cgroup, level 0, is never asked for: exempting it would open the node. Level by level
 * because an exempt cgroup is known, but not how deep below it a process lives.
 */
static __always_inline int exemption(__u64 *exempt_id)
{
	for (int level = 1; level <= MAX_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);
		__u8 *reason;

		if (!id)
			return 0;
		reason = bpf_map_lookup_elem(&exempt, &id);
		if (reason && (*reason == NMI_EXEMPT || settings.lets_straight)) {
			*exempt_id = id;
			return *reason;
		}
	}
	return 0;
}

static __always_inline int is_tcp(struct bpf_sock_addr *ctx)
{
	if (ctx->type != SOCK_STREAM)
		return 0;
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_OF_MPTCP;
}

/* True when the destination is to be rewritten. */
static __always_inline int judge(struct bpf_sock_addr *ctx, __be32 ip)
{
	__be16 port = (__be16)ctx->user_port;
	struct nmi_dial *dial;
	__u64 excepted_id = 0;
	int reason;

	if (ip == settings.listen_ip && port == settings.listen_port) {
		/* Dialled directly: an earlier dial of the same socket says nothing about it. */
		if (ctx->sk)
			bpf_sk_storage_delete(&dials, ctx->sk);
		return 0;
	}
	if (ip != settings.metadata_ip || port != settings.metadata_port || !is_tcp(ctx))
		return 0;
	reason = exemption(&excepted_id);
	if (reason == NMI_EXEMPT) {
		COUNT(exempt);
		return 0;
	}
	if (!ctx->sk)
		return 1;
	dial = bpf_sk_storage_get(&dials, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	/* Whoever cannot be noted would get no further than the node. */
	if (reason == NMI_EXCEPTED && dial) {
		dial->cgroup_id = excepted_id;
		dial->is_straight = 1;
		COUNT(straight);
		return 0;
	}
	if (dial) {
		dial->cgroup_id = bpf_get_current_cgroup_id();
		dial->is_straight = 0;
	}
	COUNT(redirected);
	return 1;
}

SEC("cgroup/connect4")
int nmi_connect4(struct bpf_sock_addr *ctx)
{
	if (judge(ctx, ctx->user_ip4)) {
		ctx->user_ip4 = settings.listen_ip;
		ctx->user_port = settings.listen_port;
	}
	return 1;
}

static __always_inline int is_mapped(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 &&
	       ctx->user_ip6[2] == bpf_htonl(0xffff);
}

SEC("cgroup/connect6")
int nmi_connect6(struct bpf_sock_addr *ctx)
{
	if (is_mapped(ctx) && judge(ctx, ctx->user_ip6[3])) {
		ctx->user_ip6[3] = settings.listen_ip;
		ctx->user_port = settings.listen_port;
		COUNT(redirected_mapped);
	}
	return 1;
}

/*
 * MPTCP asks with another socket than the one that dialled, so the record is found by address; when
 * the agent has closed, only the socket itself still knows.
 */
static __always_inline int is_redirected_peer(struct bpf_sock_addr *ctx, __be32 ip)
{
	struct nmi_client client = {};

	if (ip != settings.listen_ip || (__be16)ctx->user_port != settings.listen_port || !ctx->sk)
		return 0;
	if (bpf_sk_storage_get(&dials, ctx->sk, 0, 0))
		return 1;
	client.ip = ctx->sk->src_ip4;
	client.port = (__u16)ctx->sk->src_port;
	return bpf_map_lookup_elem(&callers, &client) != 0;
}

SEC("cgroup/getpeername4")
int nmi_peername4(struct bpf_sock_addr *ctx)
{
	if (is_redirected_peer(ctx, ctx->user_ip4)) {
		ctx->user_ip4 = settings.metadata_ip;
		ctx->user_port = settings.metadata_port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int nmi_peername6(struct bpf_sock_addr *ctx)
{
	if (is_mapped(ctx) && is_redirected_peer(ctx, ctx->user_ip6[3])) {
		ctx->user_ip6[3] = settings.metadata_ip;
		ctx->user_port = settings.metadata_port;
	}
	return 1;
}

/* Counted as signed: two closes at once may go below zero, which makes the limit laxer by one. */
static __always_inline void release_load(__u64 cgroup_id)
{
	__s64 *load = bpf_map_lookup_elem(&loads, &cgroup_id);

	if (load && *load > 0)
		__sync_fetch_and_add(load, -1);
}

/*
 * Takes away what stands under an address and port, whoever's it is, and releases what it was charged to:
 * only where this call took it, so that nothing is released twice.
 */
static __always_inline void drop_record(void *records, const struct nmi_client *client)
{
	__u64 *charged = bpf_map_lookup_elem(records, client);
	__u64 cgroup_id;

	if (!charged)
		return;
	cgroup_id = *charged;
	if (!bpf_map_delete_elem(records, client))
		release_load(cgroup_id);
}

static __always_inline __s64 *load_of(__u64 cgroup_id)
{
	__s64 *load = bpf_map_lookup_elem(&loads, &cgroup_id);
	__s64 none = 0;

	if (load)
		return load;
	bpf_map_update_elem(&loads, &cgroup_id, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&loads, &cgroup_id);
}

/*
 * Puts a record into `callers` or `straight`, under the address that the socket dials from, and charges
 * its cgroup, which stands first in a record of either kind. Where that has its fill, or the map is
 * full, nothing is filed, and what was is gone: a record of somebody else's former socket must not
 * speak for this one. Returns whether it is filed.
 */
static __always_inline int file_record(struct bpf_sock_ops *ops, struct nmi_dial *dial,
				       void *records, const void *record)
{
	struct nmi_client client = {};
	__s64 *load;

	/* Mapped sockets have family AF_INET6 and both of these fields filled all the same. */
	client.ip = ops->local_ip4;
	client.port = (__u16)ops->local_port;

	drop_record(records, &client);
	load = load_of(dial->cgroup_id);
	if (load && *load >= (__s64)settings.max_callers_per_cgroup) {
		COUNT(refused_limit);
		return 0;
	}
	if (bpf_map_update_elem(records, &client, record, BPF_ANY)) {
		drop_record(records, &client);
		COUNT(refused_full);
		return 0;
	}
	if (load)
		__sync_fetch_and_add(load, 1);
	dial->client = client;
	dial->is_filed = 1;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	return 1;
}

static __always_inline void file_caller(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	struct nmi_caller caller = {};

	caller.cgroup_id = dial->cgroup_id;
	caller.cookie = bpf_get_socket_cookie(ops);
	if (file_record(ops, dial, &callers, &caller))
		COUNT(filed);
}

/* Where it is not filed, iptables brings the connection to the agent, which refuses it. */
static __always_inline void file_straight(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	struct nmi_straight record = { .is_opening = 1 };

	record.excepted_id = dial->cgroup_id;
	record.cookie = bpf_get_socket_cookie(ops);
	file_record(ops, dial, &straight, &record);
}

/*
 * Filed under its address and port, a record speaks for packets, whoever sends them. So it lets pass
 * a SYN only while its own socket sends one, and after the socket nothing that could carry a request:
 * a forger of the address has no moment in which to open a connection or to say anything on one.
 */
static __always_inline void follow_straight(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	struct nmi_client client = dial->client;
	struct nmi_straight *record;
	__u8 yes = 1;

	if (!dial->is_filed)
		return;
	record = bpf_map_lookup_elem(&straight, &client);
	if (!record || record->cookie != bpf_get_socket_cookie(ops))
		return;
	record->is_opening = 0;
	if (ops->args[1] != BPF_TCP_CLOSE)
		return;
	dial->is_filed = 0;
	bpf_map_update_elem(&parting, &client, &yes, BPF_ANY);
	drop_record(&straight, &client);
}

static __always_inline void forget_caller(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	struct nmi_client client = dial->client;
	struct nmi_caller *caller;

	/*
	 * When the agent has closed (CLOSE_WAIT), it asks for the record no more; kept until the client
	 * closes too, it would speak for whoever dials by hand from the same address and port.
	 */
	if (!dial->is_filed ||
	    (ops->args[1] != BPF_TCP_CLOSE && ops->args[1] != BPF_TCP_CLOSE_WAIT))
		return;
	dial->is_filed = 0;
	caller = bpf_map_lookup_elem(&callers, &client);
	if (!caller || caller->cookie != bpf_get_socket_cookie(ops))
		return;
	drop_record(&callers, &client);
	COUNT(forgotten);
}

/*
 * `reply` is left alone: with several programs attached the last one's counts, and most operations
 * here are questions that somebody else may want to answer.
 */
SEC("sockops")
int nmi_sockops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk;
	struct nmi_dial *dial;
	__u32 op = ops->op;
	__be16 port;

	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	sk = ops->sk;
	if (!sk)
		return 1;
	dial = bpf_sk_storage_get(&dials, sk, 0, 0);
	if (!dial)
		return 1;
	if (op == BPF_SOCK_OPS_STATE_CB) {
		if (dial->is_straight)
			follow_straight(ops, dial);
		else
			forget_caller(ops, dial);
		return 1;
	}
	/* A socket dials anew after a refusal, and then perhaps somewhere else. */
	port = (__be16)(ops->remote_port >> 16);
	if (dial->is_straight) {
		if (ops->remote_ip4 == settings.metadata_ip && port == settings.metadata_port)
			file_straight(ops, dial);
	} else if (ops->remote_ip4 == settings.listen_ip && port == settings.listen_port) {
		file_caller(ops, dial);
	}
	return 1;
}

/*
 * Asked by a rule of iptables, with the packet from its IP header on: whether it is of a socket that
 * was let go straight, of a pod that still is excepted.
 */
SEC("socket")
int nmi_straight(struct __sk_buff *packet)
{
	struct nmi_client client = {};
	struct nmi_straight *record;
	struct iphdr ip;
	struct {
		__be16 source, dest;
		__be32 seq, ack_seq;
		__u8 offset, flags;
		__be16 window;
	} tcp;
	__u32 header_bytes;
	__u8 *reason;

	if (bpf_skb_load_bytes(packet, 0, &ip, sizeof(ip)) || ip.version != 4 ||
	    ip.protocol != IPPROTO_TCP || (ip.frag_off & bpf_htons(IP_FRAGMENT)))
		return 0;
	if (ip.daddr != settings.metadata_ip ||
	    bpf_skb_load_bytes(packet, ip.ihl * 4, &tcp, sizeof(tcp)) ||
	    tcp.dest != settings.metadata_port)
		return 0;
	client.ip = ip.saddr;
	client.port = bpf_ntohs(tcp.source);
	record = bpf_map_lookup_elem(&straight, &client);
	if (record) {
		reason = bpf_map_lookup_elem(&exempt, &record->excepted_id);
		if (!reason || *reason != NMI_EXCEPTED)
			return 0;
		return record->is_opening || !(tcp.flags & TCP_SYN);
	}
	header_bytes = ip.ihl * 4 + (tcp.offset >> 4) * 4;
	return !(tcp.flags & TCP_SYN) && packet->len <= header_bytes &&
	       bpf_map_lookup_elem(&parting, &client);
}

char LICENSE[] SEC("license") = "Apache-2.0";
