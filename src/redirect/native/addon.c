/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Node-API side: reads arguments by a function's signature, calls the function, and turns faults into
 * errors with `code`, `step` and `detail`. It has no state, and never ends the process.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 10
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <bpf/bpf.h>
#include <linux/netlink.h>
#include <node_api.h>
#include "nmi.h"
#include "system.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define MAX_ARGUMENTS 5
#define MAX_VALUE_BYTES 4096
#define NETLINK_WAIT_SEC 10

/* The signature determines the member. */
union argument {
	const char *text;
	bool flag;
	struct bytes bytes;
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
	struct block *blocks;
	napi_value result; /* NULL: undefined */
	struct fault fault; /* with a step: the call failed */
};

struct function {
	const char *name;
	const char *signature; /* a letter for each argument, see read_value() */
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

static bool read_bytes(struct call *call, napi_value value, void *place)
{
	struct bytes *bytes = place;
	napi_typedarray_type type;

	return napi_get_typedarray_info(call->env, value, &type, &bytes->length, &bytes->data, NULL,
					NULL) == napi_ok &&
	       type == napi_uint8_array;
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
		    !read_text(call, name, &pins->all[index].name) ||
		    !read_text(call, path, &pins->all[index].path))
			return false;
	}
	return true;
}

static bool read_number(struct call *call, napi_value value, int *place)
{
	double number = 0;

	if (napi_get_value_double(call->env, value, &number) || !(number >= 0 && number <= INT_MAX))
		return false;
	*place = number;
	return *place == number;
}

static bool read_value(struct call *call, char kind, napi_value value, union argument *place)
{
	switch (kind) {
	case 's':
		return read_text(call, value, place);
	case 'f':
		return napi_get_value_bool(call->env, value, &place->flag) == napi_ok;
	case 'b':
		return read_bytes(call, value, place);
	case 'n':
		return read_number(call, value, &place->number);
	default:
		return read_pins(call, value, place);
	}
}

/* A missing argument is undefined. */
static bool read_arguments(struct call *call, const struct function *function,
			   const napi_value *values, size_t count)
{
	size_t index = 0, wanted = strlen(function->signature);
	char text[64];

	while (index < wanted &&
	       read_value(call, function->signature[index], values[index], &call->in[index]))
		index++;
	if (index == wanted && count <= wanted)
		return true;
	snprintf(text, sizeof(text), "%s: argument %zu is wrong", function->name, index + 1);
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

static int open_tcp(struct call *call)
{
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return sock < 0 ? fail(&call->fault, "open socket", errno) : sock;
}

/* A socket that is not connected has no caller, and is answered like others. */
static void is_answered(struct call *call)
{
	struct nmi_answer answer;
	int sock = open_tcp(call);

	if (sock < 0)
		return;
	call->result = boolean(call, ask_socket(sock, &answer, &call->fault) == 1);
	close(sock);
}

/* A socket for netlink.ts that only the kernel can send to: any process with CAP_NET_ADMIN could otherwise. */
static void open_netlink(struct call *call)
{
	struct timeval patience = { .tv_sec = NETLINK_WAIT_SEC };
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, call->in[0].number);

	if (sock >= 0 && !setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) &&
	    !connect(sock, (struct sockaddr *)&kernel, sizeof(kernel))) {
		put_descriptor(call, sock);
		return;
	}
	fail(&call->fault, "open netlink", errno);
	if (sock >= 0)
		close(sock);
}

/* 0 before Linux 5.14, which does not report it. */
static void netns_cookie(struct call *call)
{
	socklen_t length = sizeof(__u64);
	int sock = open_tcp(call);
	__u64 cookie = 0;

	if (sock < 0)
		return;
	if (getsockopt(sock, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length))
		cookie = 0;
	close(sock);
	call->result = big(call, cookie);
}

/*
 * A lock of the open file and not of the process: closing another descriptor of the file does not release it, and
 * it can be read without taking it. The kernel releases it when its holder ends, however that is.
 */
static int open_lock(struct call *call)
{
	int file = open(call->in[0].text, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return file < 0 ? fail(&call->fault, "open lock", errno) : file;
}

static void lock_file(struct call *call)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int file = open_lock(call);

	if (file < 0)
		return;
	if (!fcntl(file, F_OFD_SETLK, &whole)) {
		put_descriptor(call, file);
		return;
	}
	if (errno != EAGAIN && errno != EACCES)
		fail(&call->fault, "lock", errno);
	close(file);
}

static void is_locked(struct call *call)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int file = open_lock(call);

	if (file < 0)
		return;
	if (fcntl(file, F_OFD_GETLK, &whole))
		fail(&call->fault, "read lock", errno);
	else
		call->result = boolean(call, whole.l_type != F_UNLCK);
	close(file);
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
	{ "load", "bbmm", load },
	{ "attach", "snss", attach },
	{ "replace", "ss", replace },
	{ "openPin", "sf", open_object },
	{ "mapGet", "nb", map_get },
	{ "mapSet", "nbb", map_set },
	{ "mapDelete", "nb", map_delete },
	{ "mapKeys", "n", map_keys },
	{ "callerOf", "n", caller_of },
	{ "isAnswered", "", is_answered },
	{ "openNetlink", "n", open_netlink },
	{ "netnsCookie", "", netns_cookie },
	{ "lockFile", "s", lock_file },
	{ "isLocked", "s", is_locked },
	{ "acceptEagerly", "nn", accept_in_thread },
	{ "externalText", "b", external_text },
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
	if (read_arguments(&call, function, values, count))
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
