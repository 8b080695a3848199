/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Definitions shared by the BPF programs and the agent: keys and values of maps, and the settings that are
 * set when the programs are loaded. A change of any structure here needs a new NMI_LAYOUT, so that two
 * versions never share a map that they read differently.
 */
#ifndef NMI_H
#define NMI_H

#include <linux/types.h>

#define NMI_LAYOUT 8

/*
 * Most open redirected sockets of a node. Once half of them are open, only a pod with fewer than
 * max_callers_when_short gets another one, so that 256 pods cannot fill the map.
 */
#define NMI_MAX_CALLERS 65536
/* More than the pods of a node. */
#define NMI_MAX_CGROUPS 1024
#define NMI_MAX_LOADS 8192
/* More than the connections that are established and not accepted. */
#define NMI_MAX_SEQUENCES 4096

/* Read-only for the programs: the verifier treats them as constants. */
struct nmi_settings {
	__u32 layout;
	__be32 metadata_ip;
	__be32 listen_ip;
	__be16 metadata_port;
	__be16 listen_port;
	/* Most records of one pod, and if the map is half full. */
	__u32 max_callers_per_pod;
	__u32 max_callers_when_short;
	/* Connects of one pod: so many at once, then one in each interval. */
	__u32 connect_burst;
	__u32 connect_interval_ns;
	/* The cgroup of all pods, and the QoS class cgroups below it; or 0. */
	__u64 pods_root;
	__u64 qos_classes[2];
	/* Cookie of the node's network namespace; 0: the initial one. */
	__u64 netns_cookie;
	/* Identifies the programs: CRC-32 of the object file in four bytes, its size in four, and zeros. */
	__u8 digest[28];
	/* Of both agents of a node: listen_port is one of them. */
	__be16 ports[2];
};

/* The client's address and port of a redirected connection. */
struct nmi_client {
	__be32 ip;
	__u16 port; /* host order, as provided by the kernel */
	/*
	 * Connected in the node's own network namespace. A process can use any address in a namespace that it
	 * creates; such a record must not replace a record of the node's namespace.
	 */
	__u16 is_of_node;
};

struct nmi_caller {
	__u64 pod_id; /* cgroup of the pod, which the record is charged to */
	/* The socket of the record: the close of another socket does not delete it. */
	__u64 cookie;
	__u64 kind; /* enum nmi_kind: attested, direct or shared */
	__u64 port; /* of the agent, host order */
};

/*
 * The agent asks its own sockets by getsockopt(2). Its level contains the layout: an agent and programs that
 * do not fit are like an agent without programs.
 */
#define NMI_LEVEL (0x6e6d6900 | NMI_LAYOUT)
/* Who opened this accepted socket: struct nmi_answer. */
#define NMI_CALLER 1

struct nmi_answer {
	__u64 pod_id; /* of an attested caller */
	__u64 kind; /* enum nmi_kind */
};

enum nmi_kind {
	NMI_NO_RECORD,
	NMI_NO_ROOM, /* likewise, and one was not written or was replaced within the last seconds */
	NMI_SHARED, /* two sockets of the node's namespace share address and port; not attested */
	NMI_ATTESTED,
	NMI_DIRECT, /* attested, and connected to the agent's own address: the destination was not rewritten */
};

/* What one pod takes of the limits. */
struct nmi_load {
	__s64 records;
	/* When its connects so far are paid for, one interval each. CLOCK_MONOTONIC. */
	__u64 paid_at_ns;
};

/* Stored with a socket from its connect on: the caller, and the key of its record. */
struct nmi_dial {
	__u64 pod_id;
	__u64 client; /* struct nmi_client */
	__u32 is_recorded;
	__u32 is_of_node;
	__u32 is_direct;
	__u32 zero;
};

/* The first eight are the same in every layout: an agent writes into the maps that another one of its node reads. */
struct nmi_counters {
	__u64 redirected;
	__u64 redirected_mapped; /* of these, IPv4-mapped IPv6 sockets */
	__u64 exempt;
	__u64 recorded;
	__u64 deleted;
	__u64 refused; /* connect refused: the pod has too many records, or memory was short */
	__u64 unrecorded; /* redirected without a record, or another pod replaced it */
	__u64 unrecorded_at_ns; /* CLOCK_MONOTONIC */
	__u64 direct; /* connects to the agent's own address */
	__u64 too_fast; /* connect refused: the pod connects too fast */
};

#endif
