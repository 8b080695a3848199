/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_BPF_SIDE_H
#define NMI_BPF_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>
#include "fault.h"

struct bpf_object;

#define MAX_PINS 16

/* A map of the object file and the pin through which it is shared. */
struct map_pin {
	const char *name;
	const char *path;
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

int load_object(const void *bytes, size_t length, const void *settings, size_t settings_length,
		const struct map_pin *pins, size_t pin_count, struct bpf_object **object,
		struct fault *fault);
void close_object(struct bpf_object *object);

int pin_program(struct bpf_object *object, const char *name, const char *path, struct fault *fault);
int attach_program(struct bpf_object *object, const char *name, const char *cgroup,
		   const char *pin, struct fault *fault);
int replace_program(struct bpf_object *object, const char *name, const char *pin,
		    struct fault *fault);
int detach_link(const char *pin, struct fault *fault);

int open_pin(const char *path, enum pin_kind kind, bool read_only, struct fault *fault);
int link_facts(const char *pin, struct link_facts *facts, struct fault *fault);
int program_facts(const char *pin, struct program_facts *facts, struct fault *fault);
int map_facts(int map, struct map_facts *facts, struct fault *fault);

#endif
