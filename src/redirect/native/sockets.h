/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_SOCKETS_H
#define NMI_SOCKETS_H

#include <stddef.h>
#include <linux/types.h>
#include "fault.h"
#include "flows.h"

/*
 * Closes the TCP sockets of this network namespace that are connected to an address and port, or to its
 * IPv4-mapped form, and that belong to one of these cgroups. Returns their number; -1 with a fault.
 */
int cut_sockets(const struct flow_end *dialled, const __u64 *ids, size_t count,
		struct fault *fault);

#endif
