/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_BPF_SIDE_H
#define NMI_BPF_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>
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

struct link_facts {
	__u32 program_id;
	__u32 type;
	__u32 attach_type;
	__u64 cgroup_id; /* 0 if the cgroup was deleted */
};

#define MAX_PROGRAM_MAPS 16

struct program_facts {
	__u32 id;
	__u32 map_ids[MAX_PROGRAM_MAPS];
	__u32 map_count;
};

struct map_facts {
	__u32 id;
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
};

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
int link_facts(const char *pin, struct link_facts *facts, struct fault *fault);
int program_facts(const char *pin, struct program_facts *facts, struct fault *fault);
int map_facts(int map, struct map_facts *facts, struct fault *fault);

#endif
