/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_PLACE_H
#define NMI_PLACE_H

#include <stdbool.h>
#include <linux/types.h>
#include "fault.h"

#define MAC_BYTES 6

/* Where the kernel sends what is for an address. */
struct place {
	__u32 link; /* of the route; 0: no link can be named */
	__u32 port; /* of the bridge that the link is; 0: it is none, or does not know the station */
	__u8 mac[MAC_BYTES];
	bool has_mac; /* only where several addresses share the link */
};

/* Both are of this network namespace. 0, or -1 with a fault. */
int find_place(__be32 ip, struct place *place, struct fault *fault);
bool has_link(__u32 link);

#endif
