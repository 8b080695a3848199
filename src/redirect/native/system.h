/* SPDX-License-Identifier: Apache-2.0 */
/* What the addon asks of the kernel in other files. */
#ifndef NMI_SYSTEM_H
#define NMI_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>

/* A failure: the step, the errno, and the kernel's log. */
struct fault {
	const char *step; /* a constant */
	int error; /* positive errno */
	char *detail; /* NULL, or allocated; the reader frees it */
};

/* For `return fail(...)`: sets the fault and returns -1. */
static inline int fail(struct fault *fault, const char *step, int error)
{
	fault->step = step;
	fault->error = error < 0 ? -error : error;
	return -1;
}

/* bpf-side.c */

#define MAX_PINS 16

/* Maps or programs of the object file, and their pins. */
struct pins {
	struct pin {
		const char *name;
		const char *path;
	} *all;
	size_t count;
};

struct bytes {
	void *data;
	size_t length;
};

void keep_library_quiet(void);

/* Maps are shared through their pins; programs are pinned, and those without a pin are unloaded. */
int load_object(struct bytes bytes, struct bytes settings, struct pins maps, struct pins programs,
		struct fault *fault);

int attach_program(const char *pin, int attach_type, const char *cgroup, const char *link_pin,
		   struct fault *fault);
int replace_program(const char *pin, const char *link_pin, struct fault *fault);

int open_pin(const char *path, bool read_only, struct fault *fault);
/* Fills the kernel's structure, which is zero before. */
int read_map(int map, struct bpf_map_info *info, struct fault *fault);

/* acceptor.c */

/*
 * Accepts the connections of another descriptor of the same listening socket in a thread. Returns a socket
 * from which the descriptor of each connection that has sent something is read, in the form of an int; -1 with
 * a fault. Silent ones are closed after `patience_ms`. The thread closes all it has when the reader shuts
 * down or closes its end, and then the other end.
 */
int accept_eagerly(int listener, int patience_ms, struct fault *fault);

#endif
