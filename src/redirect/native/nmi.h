/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the BPF programs and the agent share: maps, their keys and values, and the settings that are
 * fixed when the programs are loaded. A change of any structure here needs a new NMI_LAYOUT, so
 * that programs of two versions never share a map that they read differently.
 */
#ifndef NMI_H
#define NMI_H

#include <linux/types.h>

#define NMI_LAYOUT 4

/* Live redirected sockets of a node: as many as 256 pods may have (max_callers_per_pod). */
#define NMI_MAX_CALLERS 65536
#define NMI_MAX_EXEMPT 1024
#define NMI_MAX_LOADS 8192

/* Read-only to the programs: the verifier folds them in as constants. */
struct nmi_settings {
	__u32 layout;
	__be32 metadata_ip;
	__be32 listen_ip;
	__be16 metadata_port;
	__be16 listen_port;
	/* One pod may hold this many records, so that it cannot fill the map for others. */
	__u32 max_callers_per_pod;
	__u32 zero;
	/* The cgroup right above the pods, and those below it that hold the pods of a QoS class; or 0. */
	__u64 pods_root;
	__u64 qos_classes[2];
	/* Of the node's own network namespace; 0: the initial one. */
	__u64 netns_cookie;
	/* SHA-256 of the object file: which programs these are. */
	__u8 digest[32];
};

/* The client's end of a redirected connection. */
struct nmi_client {
	__be32 ip;
	__u16 port; /* host order, as the kernel gives it */
	/*
	 * Dialled in the node's own network namespace. A process may give itself any address in a namespace
	 * that it makes: there it must not get in the way of those who have the node's address.
	 */
	__u16 is_of_node;
};

struct nmi_caller {
	__u64 cgroup_id; /* 0: two sockets of the node's namespace share address and port, nobody is attested */
	__u64 pod_id; /* cgroup that the record is charged to */
	/* The socket that the record belongs to: nobody else's close takes it away. */
	__u64 cookie;
};

/* Kept with a socket from its dialling on: who dialled, and where its record stands. */
struct nmi_dial {
	__u64 cgroup_id;
	__u64 pod_id;
	__u64 client; /* struct nmi_client */
	__u32 is_filed;
	__u32 is_of_node;
};

struct nmi_counters {
	__u64 redirected;
	__u64 redirected_mapped; /* of these, IPv4-mapped IPv6 sockets */
	__u64 exempt;
	__u64 filed;
	__u64 forgotten;
	__u64 refused; /* connect refused: the pod holds too many records, or there was no memory */
	__u64 unfiled; /* redirected and not filed */
	__u64 unfiled_at_ns; /* CLOCK_MONOTONIC */
};

#endif
