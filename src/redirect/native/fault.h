/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_FAULT_H
#define NMI_FAULT_H

#include <stddef.h>

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

#endif
