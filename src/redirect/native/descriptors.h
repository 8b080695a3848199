/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_DESCRIPTORS_H
#define NMI_DESCRIPTORS_H

#include <stdbool.h>
#include <linux/types.h>
#include "fault.h"
#include "flows.h"

/*
 * Opens a listening socket and passes it between processes. Descriptors do not block, and are not
 * inherited by programs that this one starts.
 */

/* Listens at a TCP address and port. Returns the descriptor; -1 with a fault. */
int open_listener(__be32 ip, __be16 port, struct fault *fault);

/* Where a descriptor listens. -1 with a fault unless it is a listening IPv4 TCP socket. */
int listener_address(int descriptor, struct flow_end *end, struct fault *fault);

/* Returns another descriptor of the same socket; -1 with a fault. */
int duplicate_descriptor(int descriptor, struct fault *fault);

/* Connects to a Unix socket. Returns the descriptor; -1 with a fault. */
int connect_local(const char *path, struct fault *fault);

/*
 * Sends one byte over a Unix socket, with a descriptor or, if that is -1, alone. The socket must
 * have no other unsent data. -1 with a fault.
 */
int send_note(int socket, __u8 note, int descriptor, struct fault *fault);

/*
 * Receives a note that `send_note` sent from the other end; the descriptor is -1 if it had none.
 * Returns 1, or 0 if no note has arrived; -1 with a fault, ECONNRESET if the other end has closed.
 */
int receive_note(int socket, __u8 *note, int *descriptor, struct fault *fault);

#endif
