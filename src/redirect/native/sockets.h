/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_SOCKETS_H
#define NMI_SOCKETS_H

#include <stddef.h>
#include <linux/types.h>
#include "fault.h"
#include "flows.h"

/*
 * Both mean the TCP sockets of this network namespace that are connected to an address and port,
 * those of IPv6 to its mapped form.
 */

/*
 * The cgroups that such sockets belong to, each once, as an allocated array in `ids`.
 * Returns how many; -1 with a fault.
 */
int socket_cgroups(const struct flow_end *dialled, __u64 **ids, struct fault *fault);

/* Closes those that belong to one of these cgroups. Returns how many; -1 with a fault. */
int cut_sockets(const struct flow_end *dialled, const __u64 *ids, size_t count,
		struct fault *fault);

#endif
