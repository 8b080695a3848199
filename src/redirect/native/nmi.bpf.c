/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redirects TCP connects to the metadata address to the agent and records their callers.
 *
 *   connect4, connect6          rewrite the destination, store the caller's pod with the socket; a
 *                               connect to the agent's own address is recorded and not rewritten
 *   sockops, before the SYN     record client address and port -> cgroup of the pod
 *   sockops, on either close    delete the record
 *   bind4, bind6                keep the agent's address and ports for the agent
 *   getsockopt                  answers the agent who opened a connection that it has accepted
 *
 * connect6 handles IPv4-mapped sockets only (every JVM uses them); no native IPv6 address is redirected.
 * The first subflow of MPTCP passes connect4 or connect6, TCP fast open by the connect inside sendmsg().
 * Only connects to the metadata address or the agent's, with their ports, are rewritten or recorded, so
 * other traffic of the node can neither fill a map nor evict a record.
 *
 * A pod with too many records, or that connects too fast, is refused in connect (EPERM). A connection that cannot be recorded later
 * is redirected all the same: the agent refuses a peer without a record, the real endpoint would not.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "nmi.h"

#define SOCK_STREAM 1
#define IPPROTO_OF_MPTCP 262
#define MAX_DEPTH 24
#define MAX_POD_DEPTH 12
/* Longest time between a connect and the agent's question for its record. */
#define RECENT_NS 10000000000ULL

enum verdict { PASS, REDIRECT, REFUSE };

/* A separate section, so that no constant of the compiler is in the same map. */
const volatile struct nmi_settings settings SEC(".rodata.nmi") = {};

/*
 * A hash and not an LRU hash: an LRU hash of 65,536 entries evicts the record of an open connection after
 * as many later ones. Records are deleted with their sockets, so a full map contains open sockets only.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NMI_MAX_CALLERS);
	__type(key, __u64); /* struct nmi_client */
	__type(value, struct nmi_caller);
} callers SEC(".maps");

/* Storage of the socket itself: needs no limit, and a flood cannot evict it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct nmi_dial);
} dials SEC(".maps");

struct cgroup_set {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NMI_MAX_CGROUPS);
	__type(key, __u64);
	__type(value, __u8); /* unused */
};

/* Cgroups that reach the real endpoint, descendants included. */
struct cgroup_set exempt SEC(".maps");
/*
 * Pods on the host network that have no binding: they reach the real endpoint, so that the node's own pods do
 * not depend on the agent. The kernel does not reuse the id of a cgroup before a reboot.
 */
struct cgroup_set node_pods SEC(".maps");

/* By pod. An LRU eviction makes a limit laxer, but no record wrong. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NMI_MAX_LOADS);
	__type(key, __u64);
	__type(value, struct nmi_load);
} loads SEC(".maps");

/*
 * Records by the client's address and first sequence number, for a connection that netfilter gave another port.
 * An eviction only costs such a connection its record.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NMI_MAX_SEQUENCES);
	__type(key, __u64);
	__type(value, __u64); /* struct nmi_client */
} sequences SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nmi_counters);
} counters SEC(".maps");

/* The key of the only element, as wide as a stack slot: see client_of(). */
#define COUNT(field)                                                        \
	do {                                                                \
		__u64 first = 0;                                            \
		struct nmi_counters *all;                                   \
		all = bpf_map_lookup_elem(&counters, &first);               \
		if (all)                                                    \
			__sync_fetch_and_add(&all->field, 1);               \
	} while (0)

/*
 * Whether this process is exempt from the redirect.
 *
 * The root cgroup, level 0, is not checked: exempting it would open the node. Every other level is, since
 * a process may be at any depth below an exempt cgroup.
 *
 * Unrolled: for an agent without CAP_PERFMON the verifier also follows speculative execution, in which a
 * loop never ends. Linux 5.10 to 6.12 refuse it ("The sequence of 8193 jumps is too complex").
 */
static __always_inline int is_exempt(void)
{
#pragma unroll
	for (int level = 1; level <= MAX_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			return 0;
		if (bpf_map_lookup_elem(&exempt, &id))
			return 1;
	}
	return 0;
}

/*
 * The cgroup of this process's pod, which its records name and are charged to. It is the deepest one whose
 * parent contains pods. Containers, and cgroups created by a pod, have other parents. The parents
 * are given by id and not by level: an agent that has only a part of the tree mounted, as on a node
 * that is a container, cannot determine the levels.
 */
static __always_inline __u64 pod_of_current(void)
{
	__u64 pod = bpf_get_current_cgroup_id(), above = 0;

#pragma unroll
	for (int level = 1; level <= MAX_POD_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			return pod;
		if (above && (above == settings.pods_root || above == settings.qos_classes[0] ||
			      above == settings.qos_classes[1]))
			pod = id;
		above = id;
	}
	return pod;
}

static __always_inline struct nmi_load *load_of(__u64 pod_id)
{
	struct nmi_load *load = bpf_map_lookup_elem(&loads, &pod_id);
	struct nmi_load none = {};

	if (load)
		return load;
	bpf_map_update_elem(&loads, &pod_id, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&loads, &pod_id);
}

static __always_inline __s64 max_records(void)
{
	__u64 first = 0;
	struct nmi_counters *all = bpf_map_lookup_elem(&counters, &first);

	if (all && (__s64)(all->recorded - all->deleted) < NMI_MAX_CALLERS / 2)
		return settings.max_callers_per_pod;
	return settings.max_callers_when_short;
}

/* Lower than the limit by the connections that can be between connect and record at the same time. */
static __always_inline int is_over_limit(struct nmi_load *load)
{
	__s64 max = max_records();

	return load->records >= max - max / 4;
}

/*
 * The agent accepts connections one by one, so those of a pod that connects without pause would delay
 * all others. Two connects on two processors at the same time may pay once: the limit is laxer then.
 */
static __always_inline int is_too_fast(struct nmi_load *load)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 interval = settings.connect_interval_ns;

	if (load->paid_at_ns >= now + settings.connect_burst * interval)
		return 1;
	if (load->paid_at_ns < now)
		load->paid_at_ns = now;
	__sync_fetch_and_add(&load->paid_at_ns, interval);
	return 0;
}

static __always_inline int is_of_node(struct bpf_sock_addr *ctx)
{
	__u64 node = settings.netns_cookie ? settings.netns_cookie : bpf_get_netns_cookie(NULL);

	return bpf_get_netns_cookie(ctx) == node;
}

/* A pod with a network of its own is redirected whatever the map contains. */
static __always_inline int is_node_pod(struct bpf_sock_addr *ctx, __u64 pod_id)
{
	return bpf_map_lookup_elem(&node_pods, &pod_id) && is_of_node(ctx);
}

static __always_inline int is_tcp(struct bpf_sock_addr *ctx)
{
	if (ctx->type != SOCK_STREAM)
		return 0;
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_OF_MPTCP;
}

/*
 * The socket's storage for this connect. A direct one comes from a proxy inside the pod that relays a
 * connect which was redirected before: the agent's address is nowhere else. Storage that is not recorded may
 * be that of another program on the same connect, which has already rewritten the destination: then the
 * connect stays a redirected one.
 */
static __always_inline struct nmi_dial *dial_of(struct bpf_sock_addr *ctx, __u32 is_direct)
{
	struct nmi_dial *dial = bpf_sk_storage_get(&dials, ctx->sk, 0, 0);

	if (dial) {
		if (!is_direct || dial->is_recorded)
			dial->is_direct = is_direct;
		return dial;
	}
	dial = bpf_sk_storage_get(&dials, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (dial)
		dial->is_direct = is_direct;
	return dial;
}

/* Of the agent that gets the redirected connections, or of the other one, which an update starts or ends. */
static __always_inline int is_agents_port(__be16 port)
{
	return port == settings.ports[0] || port == settings.ports[1];
}

static __always_inline enum verdict decide(struct bpf_sock_addr *ctx, __be32 ip)
{
	__be16 port = (__be16)ctx->user_port;
	struct nmi_dial *dial;
	struct nmi_load *load;
	__u32 is_direct;
	__u64 pod_id;

	is_direct = ip == settings.listen_ip && is_agents_port(port);
	if (!is_direct && (ip != settings.metadata_ip || port != settings.metadata_port))
		return PASS;
	if (!is_tcp(ctx))
		return PASS;
	if (is_exempt()) {
		if (!is_direct)
			COUNT(exempt);
		return PASS;
	}
	pod_id = pod_of_current();
	if (!is_direct && is_node_pod(ctx, pod_id)) {
		COUNT(exempt);
		return PASS;
	}
	load = load_of(pod_id);
	if (!ctx->sk || !load || is_over_limit(load)) {
		COUNT(refused);
		return REFUSE;
	}
	if (is_too_fast(load)) {
		COUNT(too_fast);
		return REFUSE;
	}
	dial = dial_of(ctx, is_direct);
	if (!dial) {
		COUNT(refused);
		return REFUSE;
	}
	dial->pod_id = pod_id;
	dial->is_of_node = is_of_node(ctx);
	if (is_direct) {
		COUNT(direct);
		return PASS;
	}
	COUNT(redirected);
	return REDIRECT;
}

SEC("cgroup/connect4")
int nmi_connect4(struct bpf_sock_addr *ctx)
{
	enum verdict verdict = decide(ctx, ctx->user_ip4);

	if (verdict == REDIRECT) {
		ctx->user_ip4 = settings.listen_ip;
		ctx->user_port = settings.listen_port;
	}
	return verdict != REFUSE;
}

static __always_inline int is_mapped(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 &&
	       ctx->user_ip6[2] == bpf_htonl(0xffff);
}

SEC("cgroup/connect6")
int nmi_connect6(struct bpf_sock_addr *ctx)
{
	enum verdict verdict = is_mapped(ctx) ? decide(ctx, ctx->user_ip6[3]) : PASS;

	if (verdict == REDIRECT) {
		ctx->user_ip6[3] = settings.listen_ip;
		ctx->user_port = settings.listen_port;
		COUNT(redirected_mapped);
	}
	return verdict != REFUSE;
}

/*
 * While the agent is stopped, another process that listened at its address and port would get the pods'
 * connections, and could answer with its own tokens. Applies only in the node's network namespace, since
 * no other has the address, and only to redirected processes, since others do not belong to a pod.
 */
static __always_inline int may_bind(struct bpf_sock_addr *ctx, __be32 ip)
{
	if ((ip != settings.listen_ip && ip != 0) || !is_agents_port((__be16)ctx->user_port) ||
	    !is_tcp(ctx) || !is_of_node(ctx))
		return 1;
	return is_exempt();
}

SEC("cgroup/bind4")
int nmi_bind4(struct bpf_sock_addr *ctx)
{
	return may_bind(ctx, ctx->user_ip4);
}

SEC("cgroup/bind6")
int nmi_bind6(struct bpf_sock_addr *ctx)
{
	if (is_mapped(ctx))
		return may_bind(ctx, ctx->user_ip6[3]);
	/* The unspecified address includes all IPv4 addresses. */
	if (!ctx->user_ip6[0] && !ctx->user_ip6[1] && !ctx->user_ip6[2] && !ctx->user_ip6[3])
		return may_bind(ctx, 0);
	return 1;
}

/*
 * A struct nmi_client as one number. No stack slot is written in parts: the compiler may have spilled a
 * pointer there, and Linux before 6.8 refuses partial writes to such a slot without CAP_PERFMON ("attempt
 * to corrupt spilled pointer on stack").
 */
static __always_inline __u64 client_of(__be32 ip, __u16 port, __u16 is_of_node)
{
	return ip | (__u64)port << 32 | (__u64)is_of_node << 48;
}

/* Signed: two concurrent closes may make it negative, which makes the limit laxer by one. */
static __always_inline void release_load(__u64 pod_id)
{
	struct nmi_load *load = bpf_map_lookup_elem(&loads, &pod_id);

	if (load && load->records > 0)
		__sync_fetch_and_add(&load->records, -1);
}

/*
 * Deletes the record of an address and port, of any socket, and releases its charge. Only the call that
 * deletes the record releases the charge, so that nothing is released twice.
 */
static __always_inline void delete_by_client(__u64 client)
{
	struct nmi_caller *caller = bpf_map_lookup_elem(&callers, &client);
	__u64 pod_id;

	if (!caller)
		return;
	pod_id = caller->pod_id;
	if (bpf_map_delete_elem(&callers, &client))
		return;
	release_load(pod_id);
	COUNT(deleted);
}

/* The agent answers such a caller with 503, for a short time after this. */
static __always_inline void note_unrecorded(void)
{
	__u64 first = 0;
	struct nmi_counters *all = bpf_map_lookup_elem(&counters, &first);
	__u64 now = bpf_ktime_get_ns();

	if (!all)
		return;
	__sync_fetch_and_add(&all->unrecorded, 1);
	/* Maps that an update leaves behind have a time that does not come. */
	if (all->unrecorded_at_ns < now)
		all->unrecorded_at_ns = now;
}

/*
 * Adds a record to `callers`, under the source address of the socket, and charges its pod. The limit is
 * checked here again: with TCP_FASTOPEN_CONNECT any number of sockets can pass connect before the first
 * one is recorded.
 *
 * An existing record belongs to another socket. In the node's network namespace both may be open,
 * since sockets bound to different links may have the same addresses and ports, and there only the
 * cgroup identifies the pod: then neither is attested, even if this one cannot be recorded. In a
 * pod's network namespace the later record counts: there the source address must be the pod's too,
 * so the worst result is a 503. Of two pods, the earlier one then has no record once the later one closes.
 */
static __always_inline void record_caller(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	struct nmi_caller caller = {}, *existing;
	struct nmi_load *load;
	__u64 client;

	caller.pod_id = dial->pod_id;
	caller.kind = dial->is_direct ? NMI_DIRECT : NMI_ATTESTED;
	caller.port = bpf_ntohs((__be16)(ops->remote_port >> 16));
	caller.cookie = bpf_get_socket_cookie(ops);
	/* IPv4-mapped sockets have family AF_INET6, but both of these fields are set. */
	client = client_of(ops->local_ip4, (__u16)ops->local_port, dial->is_of_node);

	load = load_of(dial->pod_id);
	existing = bpf_map_lookup_elem(&callers, &client);
	if (!load || load->records >= max_records()) {
		if (existing)
			existing->kind = NMI_SHARED;
		note_unrecorded();
		return;
	}
	/* One test of the pointer on each path: for an agent without CAP_PERFMON, Linux 5.10 refuses a second. */
	if (existing) {
		if (existing->pod_id != dial->pod_id)
			note_unrecorded();
		if (dial->is_of_node) {
			existing->kind = NMI_SHARED;
			caller.kind = NMI_SHARED;
		}
	}
	delete_by_client(client);
	if (bpf_map_update_elem(&callers, &client, &caller, BPF_NOEXIST)) {
		note_unrecorded();
		return;
	}
	__sync_fetch_and_add(&load->records, 1);
	dial->client = client;
	dial->is_recorded = 1;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	COUNT(recorded);
}

/* An address and the sequence number of the first byte. */
static __always_inline __u64 sequence_of(__be32 ip, __u32 first)
{
	return ip | (__u64)first << 32;
}

/* The server accepts the connection later: it waits for the client's answer to its SYN. */
static __always_inline void note_sequence(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	__u64 sequence = sequence_of(ops->local_ip4, ops->snd_nxt);
	__u64 client = dial->client;

	if (dial->is_recorded)
		bpf_map_update_elem(&sequences, &sequence, &client, BPF_ANY);
}

static __always_inline void delete_on_close(struct bpf_sock_ops *ops, struct nmi_dial *dial)
{
	__u64 client = dial->client;
	struct nmi_caller *caller;

	/*
	 * After the agent has closed (CLOSE_WAIT), it does not look up the record any more. A record that
	 * stayed until the client's close would attest forged packets with the same address and port.
	 */
	if (!dial->is_recorded ||
	    (ops->args[1] != BPF_TCP_CLOSE && ops->args[1] != BPF_TCP_CLOSE_WAIT))
		return;
	dial->is_recorded = 0;
	caller = bpf_map_lookup_elem(&callers, &client);
	if (!caller || caller->cookie != bpf_get_socket_cookie(ops))
		return;
	delete_by_client(client);
}

/*
 * Does not write `reply`: with several programs attached the last value counts, and other programs may
 * answer most of these operations.
 */
SEC("sockops")
int nmi_sockops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk;
	struct nmi_dial *dial;
	__u32 op = ops->op;
	__be16 port;

	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	sk = ops->sk;
	if (!sk)
		return 1;
	dial = bpf_sk_storage_get(&dials, sk, 0, 0);
	if (!dial)
		return 1;
	if (op == BPF_SOCK_OPS_STATE_CB) {
		delete_on_close(ops, dial);
		return 1;
	}
	if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		note_sequence(ops, dial);
		return 1;
	}
	/* After a refusal a socket may connect again, to another destination. */
	port = (__be16)(ops->remote_port >> 16);
	if (ops->remote_ip4 == settings.listen_ip && is_agents_port(port))
		record_caller(ops, dial);
	return 1;
}

/*
 * The record of an accepted socket's peer, first by its first sequence number: netfilter may have given the connection
 * another port, because one that it redirected has its address and port (raw packets can make such connections for any
 * address), and that other port may be the one of a record that was left behind.
 *
 * Without one, by its address and port. Records of the node's own network namespace take precedence: only
 * processes of the node create them. Between two addresses of the node, only these records count, unless the
 * kernel does not report which namespace is the node's.
 */
static __always_inline struct nmi_caller *caller_of(struct bpf_sock *sk)
{
	__u16 port = bpf_ntohs(sk->dst_port);
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	__u64 client, sequence, *known;
	struct nmi_caller *caller;

	if (!tcp)
		return NULL;
	sequence = sequence_of(sk->dst_ip4, tcp->rcv_nxt - (__u32)tcp->bytes_received);
	known = bpf_map_lookup_elem(&sequences, &sequence);
	if (known) {
		client = *known;
		caller = bpf_map_lookup_elem(&callers, &client);
		if (caller)
			return caller;
	}
	client = client_of(sk->dst_ip4, port, 1);
	caller = bpf_map_lookup_elem(&callers, &client);
	if (caller)
		return caller;
	if (settings.netns_cookie && sk->dst_ip4 == sk->src_ip4)
		return NULL;
	client = client_of(sk->dst_ip4, port, 0);
	return bpf_map_lookup_elem(&callers, &client);
}

static __always_inline int was_room_short(void)
{
	__u64 first = 0;
	struct nmi_counters *all = bpf_map_lookup_elem(&counters, &first);

	return all && all->unrecorded && bpf_ktime_get_ns() < all->unrecorded_at_ns + RECENT_NS;
}

/*
 * Attached to the cgroup of the agent's pod, in which the agent made its listening socket: an accepted socket
 * has the cgroup of that one. So the agent needs no capability, and no other pod can ask.
 */
SEC("cgroup/getsockopt")
int nmi_getsockopt(struct bpf_sockopt *ctx)
{
	struct nmi_answer *answer = ctx->optval;
	struct nmi_caller *caller;

	if (ctx->level != NMI_LEVEL)
		return 1;
	if (ctx->optname != NMI_CALLER || (void *)(answer + 1) > ctx->optval_end)
		return 1;
	caller = ctx->sk->src_ip4 == settings.listen_ip ? caller_of(ctx->sk) : NULL;
	answer->pod_id = 0;
	/* A record of the same client may be that of its connection to another port of the agent's address. */
	if (!caller || caller->port != ctx->sk->src_port) {
		answer->kind = was_room_short() ? NMI_NO_ROOM : NMI_NO_RECORD;
	} else {
		answer->pod_id = caller->pod_id;
		answer->kind = caller->kind;
	}
	/* The compiler would join both into one store of 64 bits, which the verifier refuses. */
	*(volatile __s32 *)&ctx->optlen = sizeof(*answer);
	*(volatile __s32 *)&ctx->retval = 0;
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
