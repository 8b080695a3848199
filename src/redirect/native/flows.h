/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_FLOWS_H
#define NMI_FLOWS_H

#include <stddef.h>
#include <linux/types.h>
#include "fault.h"

/* Both in network order. */
struct flow_end {
	__be32 ip;
	__be16 port;
};

/*
 * TCP connections to `dialled`, except those answered by `answered_by` (if not zero) or from these
 * sources.
 */
struct flow_filter {
	struct flow_end dialled;
	struct flow_end answered_by;
	const __be32 *spared;
	size_t spared_count;
};

/* Deletes such entries of this network namespace. Returns their number; -1 with a fault. */
int cut_flows(const struct flow_filter *filter, struct fault *fault);

#endif
