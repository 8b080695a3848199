/* SPDX-License-Identifier: Apache-2.0 */
/* All calls of libbpf. A function that fails reports the step. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "system.h"

/* The verifier's log of five small programs has a few kilobytes. */
#define LOG_BYTES (256 * 1024)

/* The library's last warning: the only place that names the map or program concerned. */
static _Thread_local char last_warning[512];

static int keep_warning(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[sizeof(last_warning)];

	if (level != LIBBPF_WARN)
		return 0;
	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	/* The first warning is the cause; later ones repeat it for each caller. */
	if (last_warning[0] == '\0' && line[0] != '\0')
		memcpy(last_warning, line, sizeof(line));
	return 0;
}

void keep_library_quiet(void)
{
	libbpf_set_print(keep_warning);
}

static void add_detail(struct fault *fault, const char *log)
{
	if (log && log[0] != '\0')
		fault->detail = strdup(log);
	else if (last_warning[0] != '\0')
		fault->detail = strdup(last_warning);
}

static int configure(struct bpf_object *object, struct bytes settings, struct pins maps,
		     struct fault *fault)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, ".rodata.nmi");
	size_t index;
	int error;

	if (!map || bpf_map__value_size(map) != settings.length)
		return fail(fault, "settings", EINVAL);
	error = bpf_map__set_initial_value(map, settings.data, settings.length);
	if (error)
		return fail(fault, "settings", error);
	for (index = 0; index < maps.count; index++) {
		map = bpf_object__find_map_by_name(object, maps.all[index].name);
		if (!map)
			return fail(fault, "map pin", ENOENT);
		error = bpf_map__set_pin_path(map, maps.all[index].path);
		if (error)
			return fail(fault, "map pin", error);
	}
	return 0;
}

static int pin_programs(struct bpf_object *object, struct pins programs, struct fault *fault)
{
	size_t index;

	for (index = 0; index < programs.count; index++) {
		const struct pin *pin = &programs.all[index];
		struct bpf_program *program = bpf_object__find_program_by_name(object, pin->name);

		if (!program)
			return fail(fault, "find program", ENOENT);
		if (bpf_obj_pin(bpf_program__fd(program), pin->path))
			return fail(fault, "pin program", errno);
	}
	return 0;
}

int load_object(struct bytes bytes, struct bytes settings, struct pins maps, struct pins programs,
		struct fault *fault)
{
	struct bpf_object *object = NULL;
	char *log = calloc(1, LOG_BYTES);
	int result = -1, error;

	if (!log)
		return fail(fault, "load", ENOMEM);
	last_warning[0] = '\0';
	LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "nmi", .kernel_log_buf = log,
		    .kernel_log_size = LOG_BYTES);
	object = bpf_object__open_mem(bytes.data, bytes.length, &options);
	if (!object) {
		/* Errors from 4000 on are the library's own; its warning has the text. */
		fail(fault, "read object", errno < 4000 ? errno : EINVAL);
		add_detail(fault, NULL);
		goto cleanup;
	}
	if (configure(object, settings, maps, fault))
		goto cleanup;
	error = bpf_object__load(object);
	if (error) {
		fail(fault, "load", error);
		add_detail(fault, log);
		goto cleanup;
	}
	result = pin_programs(object, programs, fault);
cleanup:
	bpf_object__close(object);
	free(log);
	return result;
}

int attach_program(const char *pin, int attach_type, const char *cgroup, const char *link_pin,
		   struct fault *fault)
{
	int program = open_pin(pin, false, fault);
	int folder = -1, link = -1, result = -1;

	if (program < 0)
		return -1;
	folder = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		fail(fault, "open cgroup", errno);
	else if ((link = bpf_link_create(program, folder, attach_type, NULL)) < 0)
		fail(fault, "attach", link);
	else
		result = bpf_obj_pin(link, link_pin) ? fail(fault, "pin link", errno) : 0;
	/* The pin keeps the link; without a pin, closing the descriptor detaches the program. */
	if (link >= 0)
		close(link);
	if (folder >= 0)
		close(folder);
	close(program);
	return result;
}

int replace_program(const char *pin, const char *link_pin, struct fault *fault)
{
	int program = open_pin(pin, false, fault);
	int link = program < 0 ? -1 : open_pin(link_pin, false, fault);
	int error = link < 0 ? 0 : bpf_link_update(link, program, NULL);

	if (program >= 0)
		close(program);
	if (link < 0)
		return -1;
	close(link);
	return error ? fail(fault, "replace program", error) : 0;
}

int open_pin(const char *path, bool read_only, struct fault *fault)
{
	LIBBPF_OPTS(bpf_obj_get_opts, options, .file_flags = read_only ? BPF_F_RDONLY : 0);
	int descriptor = bpf_obj_get_opts(path, &options);

	return descriptor < 0 ? fail(fault, "open pin", descriptor) : descriptor;
}

/* A pin does not report its type, and the kernel fills the structure for any. */
static bool is_map(int descriptor)
{
	static const char wanted[] = "anon_inode:bpf-map";
	char path[64], target[sizeof(wanted)];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", descriptor);
	length = readlink(path, target, sizeof(target));
	return length == sizeof(wanted) - 1 && memcmp(target, wanted, length) == 0;
}

int read_map(int map, struct bpf_map_info *info, struct fault *fault)
{
	__u32 length = sizeof(*info);
	int error = is_map(map) ? bpf_obj_get_info_by_fd(map, info, &length) : -EBADF;

	return error ? fail(fault, "read map", error) : 0;
}
