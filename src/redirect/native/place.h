/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_PLACE_H
#define NMI_PLACE_H

#include <stdbool.h>
#include <linux/types.h>
#include "fault.h"

#define MAC_BYTES 6

/* Where the kernel sends packets for an address. */
struct place {
	__u32 link; /* of the route; 0: unknown */
	__u32 port; /* if that is a bridge: its port for the station; 0: none or unknown */
	__u8 mac[MAC_BYTES];
	bool has_mac; /* only if several addresses share the link */
};

/* In this network namespace. Returns 0, or -1 with a fault. */
int find_place(__be32 ip, struct place *place, struct fault *fault);
/*
 * Whether the address has a link to itself: a route for it alone, without a gateway, over a veth or netkit
 * that is no port of a bridge or bond. Sets `owns`. Returns 0, or -1 with a fault.
 */
int owns_link(__be32 ip, bool *owns, struct fault *fault);

#endif
