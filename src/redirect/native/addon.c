/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Node-API side: reads arguments by a function's signature, calls the function, and turns faults into
 * errors with `code`, `step` and `detail`. It has no state and no thread, and never ends the
 * process.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 10
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <bpf/bpf.h>
#include <node_api.h>
#include "nmi.h"
#include "system.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define MAX_ARGUMENTS 5
#define MAX_VALUE_BYTES 4096

/* The signature determines the member. */
union argument {
	const char *text;
	bool flag;
	struct bytes bytes;
	__be32 ip;
	int number;
	struct pins pins;
};

/* Memory that is freed when the call ends. */
struct block {
	struct block *next;
	max_align_t bytes[];
};

struct call {
	napi_env env;
	union argument in[MAX_ARGUMENTS];
	const char *wanted; /* required type of the current argument */
	struct block *blocks;
	napi_value result; /* NULL: undefined */
	struct fault fault; /* with a step: the call failed */
};

struct function {
	const char *name;
	const char *signature;
	void (*run)(struct call *call);
};

static void *take(struct call *call, size_t size)
{
	struct block *block = calloc(1, sizeof(*block) + size);

	if (!block) {
		fail(&call->fault, "allocate", ENOMEM);
		return NULL;
	}
	block->next = call->blocks;
	call->blocks = block;
	return block->bytes;
}

/* Argument readers. A reader returns whether the value has its type, and stores it. */

static bool read_value(struct call *call, const char *kind, napi_value value, void *place);

static bool read_text(struct call *call, napi_value value, void *place)
{
	size_t length = 0;
	char *text;

	if (napi_get_value_string_utf8(call->env, value, NULL, 0, &length) || length == 0 ||
	    length >= PATH_MAX)
		return false;
	text = take(call, length + 1);
	if (!text || napi_get_value_string_utf8(call->env, value, text, length + 1, &length) ||
	    strlen(text) != length)
		return false;
	*(const char **)place = text;
	return true;
}

static bool read_flag(struct call *call, napi_value value, void *place)
{
	return napi_get_value_bool(call->env, value, place) == napi_ok;
}

static bool read_bytes(struct call *call, napi_value value, void *place)
{
	struct bytes *bytes = place;
	napi_typedarray_type type;

	return napi_get_typedarray_info(call->env, value, &type, &bytes->length, &bytes->data, NULL,
					NULL) == napi_ok &&
	       type == napi_uint8_array;
}

static bool read_ip(struct call *call, napi_value value, void *place)
{
	/* One more than the longest address, so that a longer text is not accepted by its beginning. */
	char text[INET_ADDRSTRLEN + 1];
	size_t length = 0;

	return napi_get_value_string_latin1(call->env, value, text, sizeof(text), &length) == napi_ok &&
	       strlen(text) == length && inet_pton(AF_INET, text, place) == 1;
}

static bool read_pins(struct call *call, napi_value value, void *place)
{
	napi_value names, name, path;
	struct pins *pins = place;
	uint32_t count = 0, index;

	if (napi_get_property_names(call->env, value, &names) ||
	    napi_get_array_length(call->env, names, &count) || count > MAX_PINS)
		return false;
	*pins = (struct pins){ take(call, count * sizeof(struct pin)), count };
	if (!pins->all)
		return false;
	for (index = 0; index < count; index++) {
		if (napi_get_element(call->env, names, index, &name) ||
		    napi_get_property(call->env, value, name, &path) ||
		    !read_value(call, "s", name, &pins->all[index].name) ||
		    !read_value(call, "s", path, &pins->all[index].path))
			return false;
	}
	return true;
}

/* Types by the letters of a signature. */
static const struct kind {
	const char *wanted;
	bool (*read)(struct call *call, napi_value value, void *place); /* NULL: a whole number */
	int least, most;
} kinds[] = {
	['s'] = { "a text of 1 to 4095 bytes, without NUL,", .read = read_text },
	['f'] = { "a boolean", .read = read_flag },
	['b'] = { "a Uint8Array", .read = read_bytes },
	['i'] = { "an IPv4 address", .read = read_ip },
	['p'] = { "a port", .least = 1, .most = UINT16_MAX },
	['d'] = { "a descriptor", .most = INT_MAX },
	['m'] = { "an object of few pins", .read = read_pins },
};

static bool read_number(struct call *call, napi_value value, const struct kind *kind, int *place)
{
	double number = 0;

	if (napi_get_value_double(call->env, value, &number) ||
	    !(number >= kind->least && number <= kind->most) || number != (int)number)
		return false;
	*place = number;
	return true;
}

static bool read_value(struct call *call, const char *kind, napi_value value, void *place)
{
	const struct kind *known = &kinds[(__u8)*kind];

	call->wanted = known->wanted;
	return known->read ? known->read(call, value, place) : read_number(call, value, known, place);
}

/* By a signature such as `map:d key:b`: names for messages, and types. A missing argument is undefined. */
static bool read_arguments(struct call *call, const char *signature, const napi_value *values,
			   size_t count)
{
	size_t index = 0;
	char text[128];

	for (; *signature; index++) {
		int length = strcspn(signature, ":");

		if (!read_value(call, signature + length + 1, values[index], &call->in[index])) {
			snprintf(text, sizeof(text), "%.*s: %s is wanted", length, signature, call->wanted);
			goto refused;
		}
		signature += strcspn(signature, " ");
		signature += strspn(signature, " ");
	}
	if (count <= index)
		return true;
	snprintf(text, sizeof(text), "at most %zu arguments are wanted", index);
refused:
	if (!call->fault.step)
		napi_throw_type_error(call->env, "ERR_INVALID_ARG_TYPE", text);
	return false;
}

/* Value constructors. NULL if Node cannot make the value, which `put` and Node take for no value. */

#define MAKER(name, type, create, ...)                             \
	static napi_value name(struct call *call, type from)       \
	{                                                          \
		napi_value value = NULL;                           \
                                                                   \
		create(call->env, from, ##__VA_ARGS__, &value);    \
		return value;                                      \
	}
MAKER(number, double, napi_create_double)
MAKER(big, __u64, napi_create_bigint_uint64)
MAKER(boolean, bool, napi_get_boolean)
MAKER(text, const char *, napi_create_string_utf8, NAPI_AUTO_LENGTH)
#undef MAKER

static napi_value bytes(struct call *call, const void *from, size_t length)
{
	napi_value buffer, value = NULL;
	void *copy;

	if (napi_create_arraybuffer(call->env, length, &copy, &buffer))
		return NULL;
	memcpy(copy, from, length);
	napi_create_typedarray(call->env, napi_uint8_array, length, buffer, 0, &value);
	return value;
}

static void put(struct call *call, const char *name, napi_value value)
{
	if (!call->result)
		napi_create_object(call->env, &call->result);
	napi_set_named_property(call->env, call->result, name, value);
}

/* Functions */

static void put_descriptor(struct call *call, int descriptor)
{
	if (descriptor >= 0)
		call->result = number(call, descriptor);
}

static void load(struct call *call)
{
	load_object(call->in[0].bytes, call->in[1].bytes, call->in[2].pins, call->in[3].pins,
		    &call->fault);
}

static void attach(struct call *call)
{
	attach_program(call->in[0].text, call->in[1].number, call->in[2].text, call->in[3].text,
		       &call->fault);
}

/* Atomic: every connect runs the old or the new program. */
static void replace(struct call *call)
{
	replace_program(call->in[0].text, call->in[1].text, &call->fault);
}

/* Detaches the program at once; the pin stays. */
static void detach(struct call *call)
{
	detach_link(call->in[0].text, &call->fault);
}

static bool is_per_cpu(__u32 type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

/*
 * The map that is the first argument, if the key and the value have its sizes: the kernel reads
 * and writes as many bytes. From a per-CPU map it reads one value per CPU, whose number is unknown here.
 */
static bool find_map(struct call *call, const struct bytes *key, const struct bytes *value,
		     struct bpf_map_info *info)
{
	if (read_map(call->in[0].number, info, &call->fault))
		return false;
	if (info->key_size > MAX_VALUE_BYTES || info->value_size > MAX_VALUE_BYTES ||
	    is_per_cpu(info->type))
		fail(&call->fault, "read map", EMEDIUMTYPE);
	else if ((key && key->length != info->key_size) ||
		 (value && value->length != info->value_size))
		fail(&call->fault, "map entry", EMSGSIZE);
	return !call->fault.step;
}

static void open_object(struct call *call)
{
	put_descriptor(call, open_pin(call->in[0].text, call->in[1].flag, &call->fault));
}

static void map_get(struct call *call)
{
	const struct bytes *key = &call->in[1].bytes;
	__u8 value[MAX_VALUE_BYTES];
	struct bpf_map_info info = {};
	int error;

	if (!find_map(call, key, NULL, &info))
		return;
	error = bpf_map_lookup_elem(call->in[0].number, key->data, value);
	if (!error)
		call->result = bytes(call, value, info.value_size);
	else if (error != -ENOENT)
		fail(&call->fault, "read map", error);
}

static void map_set(struct call *call)
{
	const struct bytes *key = &call->in[1].bytes, *value = &call->in[2].bytes;
	struct bpf_map_info info = {};
	int error;

	if (!find_map(call, key, value, &info))
		return;
	error = bpf_map_update_elem(call->in[0].number, key->data, value->data, BPF_ANY);
	if (error)
		fail(&call->fault, "write map", error);
}

static void map_delete(struct call *call)
{
	const struct bytes *key = &call->in[1].bytes;
	struct bpf_map_info info = {};
	int error;

	if (!find_map(call, key, NULL, &info))
		return;
	error = bpf_map_delete_elem(call->in[0].number, key->data);
	if (error && error != -ENOENT)
		fail(&call->fault, "write map", error);
	else
		call->result = boolean(call, error == 0);
}

/* Bounded by the map's size even during concurrent writes. */
static void map_keys(struct call *call)
{
	__u8 key[MAX_VALUE_BYTES], next[MAX_VALUE_BYTES];
	struct bpf_map_info info = {};
	__u32 index;

	if (!find_map(call, NULL, NULL, &info) || napi_create_array(call->env, &call->result))
		return;
	for (index = 0; index < info.max_entries; index++) {
		int error = bpf_map_get_next_key(call->in[0].number, index == 0 ? NULL : key, next);

		if (error) {
			if (error != -ENOENT)
				fail(&call->fault, "read map", error);
			return;
		}
		memcpy(key, next, info.key_size);
		napi_set_element(call->env, call->result, index, bytes(call, key, info.key_size));
	}
}

/* 1, or 0 without a program that answers for this socket; -1 with a fault. */
static int ask_socket(int sock, struct nmi_answer *answer, struct fault *fault)
{
	socklen_t length = sizeof(*answer);

	if (!getsockopt(sock, NMI_LEVEL, NMI_CALLER, answer, &length))
		return 1;
	return errno == EOPNOTSUPP || errno == ENOPROTOOPT ? 0 : fail(fault, "ask socket", errno);
}

static void caller_of(struct call *call)
{
	struct nmi_answer answer;

	if (ask_socket(call->in[0].number, &answer, &call->fault) != 1)
		return;
	put(call, "cgroupId", big(call, answer.pod_id));
	put(call, "kind", number(call, answer.kind));
}

/* A socket that is not connected has no caller, and is answered like others. */
static void is_answered(struct call *call)
{
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct nmi_answer answer;

	if (sock < 0) {
		fail(&call->fault, "open socket", errno);
		return;
	}
	call->result = boolean(call, ask_socket(sock, &answer, &call->fault) == 1);
	close(sock);
}

static void open_netlink_socket(struct call *call)
{
	put_descriptor(call, open_netlink(call->in[0].number, &call->fault));
}

/* 0 before Linux 5.14, which does not report it. */
static void netns_cookie(struct call *call)
{
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t length = sizeof(__u64);
	__u64 cookie = 0;

	if (sock < 0) {
		fail(&call->fault, "open socket", errno);
		return;
	}
	if (getsockopt(sock, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length))
		cookie = 0;
	close(sock);
	call->result = big(call, cookie);
}

static void lock_file(struct call *call)
{
	int descriptor;

	if (!take_lock(call->in[0].text, &descriptor, &call->fault) && descriptor >= 0)
		put_descriptor(call, descriptor);
}

static void is_file_locked(struct call *call)
{
	bool locked;

	if (!is_locked(call->in[0].text, &locked, &call->fault))
		call->result = boolean(call, locked);
}

static void is_port_listened_on(struct call *call)
{
	bool listened;

	if (!is_listened_on(call->in[0].ip, htons(call->in[1].number), &listened, &call->fault))
		call->result = boolean(call, listened);
}

static void accept_in_thread(struct call *call)
{
	put_descriptor(call, accept_eagerly(call->in[0].number, call->in[1].number, &call->fault));
}

/* A string of Latin-1 that is not copied: its bytes must stay as they are until the process ends. */
static void external_text(struct call *call)
{
	const struct bytes *from = &call->in[0].bytes;
	bool is_copied = false;

	if (node_api_create_external_string_latin1(call->env, from->data, from->length, NULL, NULL,
						   &call->result, &is_copied))
		fail(&call->fault, "make text", EINVAL);
}

/*
 * Unmaps the pages of the program's file; those in use are mapped again when they are touched. The first
 * object is the program. Only its writable segments differ from the file.
 */
static int unmap_program(struct dl_phdr_info *program, size_t size, void *context)
{
	const long page = sysconf(_SC_PAGESIZE);
	size_t index;

	(void)size, (void)context;
	for (index = 0; index < program->dlpi_phnum; index++) {
		const ElfW(Phdr) *segment = &program->dlpi_phdr[index];
		uintptr_t start = program->dlpi_addr + segment->p_vaddr, skipped = start % page;

		if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_W))
			madvise((void *)(start - skipped), skipped + segment->p_filesz, MADV_DONTNEED);
	}
	return 1;
}

/* Returns whether the allocator returned any page to the kernel. */
static void trim_memory(struct call *call)
{
	dl_iterate_phdr(unmap_program, NULL);
	call->result = boolean(call, malloc_trim(0) == 1);
}

/* Documented on the TypeScript side (addon.ts). */
static const struct function functions[] = {
	{ "load", "object:b settings:b maps:m programs:m", load },
	{ "attach", "program:s type:d cgroup:s pin:s", attach },
	{ "replace", "program:s pin:s", replace },
	{ "detach", "pin:s", detach },
	{ "openPin", "pin:s readOnly:f", open_object },
	{ "mapGet", "map:d key:b", map_get },
	{ "mapSet", "map:d key:b value:b", map_set },
	{ "mapDelete", "map:d key:b", map_delete },
	{ "mapKeys", "map:d", map_keys },
	{ "callerOf", "socket:d", caller_of },
	{ "isAnswered", "", is_answered },
	{ "openNetlink", "protocol:d", open_netlink_socket },
	{ "netnsCookie", "", netns_cookie },
	{ "lockFile", "path:s", lock_file },
	{ "isLocked", "path:s", is_file_locked },
	{ "isListening", "ip:i port:p", is_port_listened_on },
	{ "acceptEagerly", "descriptor:d patienceMs:p", accept_in_thread },
	{ "externalText", "latin1:b", external_text },
	{ "trimMemory", "", trim_memory },
};

static void throw_fault(struct call *call)
{
	const struct fault *fault = &call->fault;
	const char *name = strerrorname_np(fault->error);
	napi_value code = text(call, name ? name : "EUNKNOWN");

	call->result = NULL;
	napi_create_error(call->env, code, text(call, strerror(fault->error)), &call->result);
	put(call, "step", text(call, fault->step));
	if (fault->detail)
		put(call, "detail", text(call, fault->detail));
	napi_throw(call->env, call->result);
	free(fault->detail);
}

/* Every function of the addon; `data` is its entry in the table. */
static napi_value run(napi_env env, napi_callback_info info)
{
	struct call call = { .env = env };
	const struct function *function;
	napi_value values[MAX_ARGUMENTS];
	size_t count = MAX_ARGUMENTS;
	void *data = NULL;

	if (napi_get_cb_info(env, info, &count, values, NULL, &data))
		return NULL;
	function = data;
	if (read_arguments(&call, function->signature, values, count))
		function->run(&call);
	while (call.blocks) {
		struct block *block = call.blocks;

		call.blocks = block->next;
		free(block);
	}
	if (!call.fault.step)
		return call.result;
	throw_fault(&call);
	return NULL;
}

NAPI_MODULE_INIT()
{
	size_t index;

	keep_library_quiet();
	for (index = 0; index < sizeof(functions) / sizeof(functions[0]); index++) {
		const struct function *function = &functions[index];
		napi_value value;

		if (napi_create_function(env, function->name, NAPI_AUTO_LENGTH, run, (void *)function,
					 &value) ||
		    napi_set_named_property(env, exports, function->name, value))
			return NULL;
	}
	return exports;
}
