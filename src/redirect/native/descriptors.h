/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_DESCRIPTORS_H
#define NMI_DESCRIPTORS_H

#include <stdbool.h>
#include <linux/types.h>
#include "fault.h"
#include "flows.h"

/*
 * A listening socket, and its way from one process to another. No descriptor of these is blocking or is
 * inherited by a program that this one starts.
 */

/* Listens at an address and port of TCP. Returns the descriptor; -1 with a fault. */
int open_listener(__be32 ip, __be16 port, struct fault *fault);

/* Where a descriptor listens. -1 with a fault if it is no listening TCP socket over IPv4. */
int listener_address(int descriptor, struct flow_end *end, struct fault *fault);

/* A further descriptor of the same socket. Returns it; -1 with a fault. */
int duplicate_descriptor(int descriptor, struct fault *fault);

/* A connection to a Unix socket. Returns the descriptor; -1 with a fault. */
int connect_local(const char *path, struct fault *fault);

/*
 * Sends one byte over a Unix socket, with a descriptor or, if that is -1, alone. Nothing else may be
 * waiting there to be written. -1 with a fault.
 */
int send_note(int socket, __u8 note, int descriptor, struct fault *fault);

/*
 * What `send_note` sent from the other end; the descriptor is -1 if there was none. Returns 1, or 0
 * if nothing has come; -1 with a fault, ECONNRESET when the other end has closed.
 */
int receive_note(int socket, __u8 *note, int *descriptor, struct fault *fault);

#endif
