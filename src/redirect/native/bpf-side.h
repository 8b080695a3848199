/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_BPF_SIDE_H
#define NMI_BPF_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include "fault.h"

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

#define MAX_PROGRAM_MAPS 16

enum pin_kind { PIN_LINK, PIN_PROGRAM, PIN_MAP };

void keep_library_quiet(void);

/* Maps are shared through their pins; programs are pinned, and those without a pin are unloaded. */
int load_object(struct bytes bytes, struct bytes settings, struct pins maps, struct pins programs,
		struct fault *fault);

int attach_program(const char *pin, int attach_type, const char *cgroup, const char *link_pin,
		   struct fault *fault);
int replace_program(const char *pin, const char *link_pin, struct fault *fault);
int detach_link(const char *pin, struct fault *fault);

int open_pin(const char *path, enum pin_kind kind, bool read_only, struct fault *fault);
/* These fill the kernel's structure, which is zero before. */
int read_link(const char *pin, struct bpf_link_info *info, struct fault *fault);
/* Also the ids of the first MAX_PROGRAM_MAPS maps. */
int read_program(const char *pin, struct bpf_prog_info *info, __u32 *map_ids, struct fault *fault);
int read_map(int map, struct bpf_map_info *info, struct fault *fault);

#endif
