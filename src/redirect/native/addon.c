/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Node-API side: reads arguments by a function's signature, calls the function, and turns faults into
 * errors with `code`, `errno`, `step` and `detail`. Its only state is in its handles; it has no thread and
 * no callback outside of a call, and never ends the process.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 9
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <bpf/bpf.h>
#include <node_api.h>
#include "bpf-side.h"
#include "descriptors.h"
#include "flows.h"
#include "nmi.h"
#include "place.h"
#include "sockets.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define MAX_ARGUMENTS 4
#define MAX_NAME_BYTES 64
#define MAX_VALUE_BYTES 4096
/* With IPVS a node has the address of every Service of the cluster. */
#define MAX_ITEMS 65536

/* Programs or a map; neither after it was closed. */
struct handle {
	struct bpf_object *object; /* or NULL */
	int map; /* or -1 */
	struct map_facts facts;
};

/* Distinguishes our handles from externals of other addons. */
static const napi_type_tag handle_tag = { 0x6e6d692d68616e64, 0x6c652d3230323531 };

struct bytes {
	void *data;
	size_t length;
};

struct list {
	void *items;
	size_t count;
};

/* The signature determines the member. */
union argument {
	struct handle *handle;
	const char *text;
	bool flag;
	struct bytes bytes;
	__be32 ip;
	__u16 port;
	int descriptor;
	__u8 note;
	__u64 id;
	struct flow_end end;
	struct list list;
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
	struct handle *made; /* the handle that is the result */
	napi_value result; /* NULL: undefined */
	struct fault fault; /* with a step: the call failed */
	bool is_broken; /* Node could not make a value */
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

static bool read_text(struct call *call, napi_value value, const char **place, size_t size)
{
	size_t length = 0;
	char *text;

	if (napi_get_value_string_utf8(call->env, value, NULL, 0, &length) || length == 0 ||
	    length >= size)
		return false;
	text = take(call, length + 1);
	if (!text || napi_get_value_string_utf8(call->env, value, text, length + 1, &length) ||
	    strlen(text) != length)
		return false;
	*place = text;
	return true;
}

static bool read_name(struct call *call, napi_value value, void *place)
{
	return read_text(call, value, place, MAX_NAME_BYTES);
}

static bool read_path(struct call *call, napi_value value, void *place)
{
	return read_text(call, value, place, PATH_MAX);
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

static bool read_port(struct call *call, napi_value value, void *place)
{
	double number = 0;

	if (napi_get_value_double(call->env, value, &number) || !(number >= 1 && number <= 65535) ||
	    number != (__u16)number)
		return false;
	*(__u16 *)place = number;
	return true;
}

static bool read_whole(struct call *call, napi_value value, double limit, double *number)
{
	return napi_get_value_double(call->env, value, number) == napi_ok && *number >= 0 &&
	       *number <= limit && *number == (int)*number;
}

static bool read_descriptor(struct call *call, napi_value value, void *place)
{
	double number = 0;

	if (!read_whole(call, value, INT_MAX, &number))
		return false;
	*(int *)place = number;
	return true;
}

static bool read_note(struct call *call, napi_value value, void *place)
{
	double number = 0;

	if (!read_whole(call, value, UINT8_MAX, &number))
		return false;
	*(__u8 *)place = number;
	return true;
}

static bool read_id(struct call *call, napi_value value, void *place)
{
	bool is_lossless = false;

	return napi_get_value_bigint_uint64(call->env, value, place, &is_lossless) == napi_ok &&
	       is_lossless;
}

static bool read_handle(struct call *call, napi_value value, void *place)
{
	napi_valuetype type;
	bool is_ours = false;

	return napi_typeof(call->env, value, &type) == napi_ok && type == napi_external &&
	       napi_check_object_type_tag(call->env, value, &handle_tag, &is_ours) == napi_ok &&
	       is_ours && napi_get_value_external(call->env, value, place) == napi_ok;
}

static bool read_programs(struct call *call, napi_value value, void *place)
{
	return read_handle(call, value, place) && (*(struct handle **)place)->object;
}

static bool read_map(struct call *call, napi_value value, void *place)
{
	return read_handle(call, value, place) && (*(struct handle **)place)->map >= 0;
}

static bool read_key(struct call *call, napi_value value, void *place)
{
	return read_bytes(call, value, place) &&
	       ((struct bytes *)place)->length == call->in[0].handle->facts.key_size;
}

static bool read_map_value(struct call *call, napi_value value, void *place)
{
	return read_bytes(call, value, place) &&
	       ((struct bytes *)place)->length == call->in[0].handle->facts.value_size;
}

static bool read_end(struct call *call, napi_value value, void *place)
{
	struct flow_end *end = place;
	napi_value ip, port;
	__u16 number;

	if (napi_get_named_property(call->env, value, "ip", &ip) ||
	    napi_get_named_property(call->env, value, "port", &port) ||
	    !read_value(call, "i", ip, &end->ip) || !read_value(call, "p", port, &number))
		return false;
	end->port = htons(number);
	return true;
}

static bool read_pins(struct call *call, napi_value value, void *place)
{
	napi_value names, name, path;
	struct list *list = place;
	struct map_pin *pins;
	uint32_t count = 0, index;

	if (napi_get_property_names(call->env, value, &names) ||
	    napi_get_array_length(call->env, names, &count) || count > MAX_PINS)
		return false;
	pins = take(call, count * sizeof(*pins));
	if (!pins)
		return false;
	for (index = 0; index < count; index++) {
		if (napi_get_element(call->env, names, index, &name) ||
		    napi_get_property(call->env, value, name, &path) ||
		    !read_value(call, "n", name, &pins[index].name) ||
		    !read_value(call, "s", path, &pins[index].path))
			return false;
	}
	*list = (struct list){ pins, count };
	return true;
}

/*
 * Types by the letters of a signature. [i] and [u] are arrays; a ? after a letter also accepts
 * undefined, which leaves zeroes.
 */
static const struct kind {
	bool (*read)(struct call *call, napi_value value, void *place);
	const char *wanted;
} kinds[] = {
	['P'] = { read_programs, "a handle of open programs" },
	['M'] = { read_map, "a handle of an open map" },
	['h'] = { read_handle, "a handle" },
	['n'] = { read_name, "a text of 1 to 63 bytes, without NUL," },
	['s'] = { read_path, "a text of 1 to 4095 bytes, without NUL," },
	['f'] = { read_flag, "a boolean" },
	['b'] = { read_bytes, "a Uint8Array" },
	/* A key of the map that is the first argument. */
	['k'] = { read_key, "a Uint8Array of the size of the map's keys" },
	['v'] = { read_map_value, "a Uint8Array of the size of the map's values" },
	['i'] = { read_ip, "an IPv4 address" },
	['p'] = { read_port, "a port" },
	['d'] = { read_descriptor, "a descriptor" },
	['y'] = { read_note, "a number of 0 to 255" },
	['u'] = { read_id, "an id" },
	['e'] = { read_end, "an address and port" },
	['m'] = { read_pins, "an object of few pins" },
};

static bool read_list(struct call *call, const char *kind, napi_value value, struct list *list)
{
	const size_t size = *kind == 'i' ? sizeof(__be32) : sizeof(__u64);
	uint32_t count = 0, index;
	napi_value item;
	char *items;

	call->wanted = "an array of at most 65536";
	if (napi_get_array_length(call->env, value, &count) || count > MAX_ITEMS)
		return false;
	items = take(call, count * size);
	if (!items)
		return false;
	for (index = 0; index < count; index++) {
		if (napi_get_element(call->env, value, index, &item) ||
		    !read_value(call, kind, item, items + index * size))
			return false;
	}
	*list = (struct list){ items, count };
	return true;
}

static bool read_value(struct call *call, const char *kind, napi_value value, void *place)
{
	napi_valuetype type;

	if (*kind == '[')
		return read_list(call, kind + 1, value, place);
	if (kind[1] == '?' && napi_typeof(call->env, value, &type) == napi_ok && type == napi_undefined)
		return true;
	call->wanted = kinds[(__u8)*kind].wanted;
	return kinds[(__u8)*kind].read(call, value, place);
}

/* By a signature such as `map:M key:k`: names for messages, and types. A missing argument is undefined. */
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

/* Value constructors. After a failure, which the call records, they return NULL and do nothing. */

static void note(struct call *call, napi_status status)
{
	if (status)
		call->is_broken = true;
}

#define MAKER(name, type, create, ...)                                      \
	static napi_value name(struct call *call, type from)                \
	{                                                                   \
		napi_value value = NULL;                                    \
                                                                            \
		note(call, create(call->env, from, ##__VA_ARGS__, &value)); \
		return value;                                               \
	}
MAKER(number, double, napi_create_double)
MAKER(big, __u64, napi_create_bigint_uint64)
MAKER(boolean, bool, napi_get_boolean)
MAKER(text, const char *, napi_create_string_utf8, NAPI_AUTO_LENGTH)
#undef MAKER

static napi_value bytes(struct call *call, const void *from, size_t length)
{
	napi_value buffer, value = NULL;
	napi_status status;
	void *copy;

	status = napi_create_arraybuffer(call->env, length, &copy, &buffer);
	if (!status) {
		memcpy(copy, from, length);
		status = napi_create_typedarray(call->env, napi_uint8_array, length, buffer, 0, &value);
	}
	note(call, status);
	return value;
}

static napi_value object(struct call *call)
{
	napi_value value = NULL;

	note(call, napi_create_object(call->env, &value));
	return value;
}

static napi_value array(struct call *call)
{
	napi_value value = NULL;

	note(call, napi_create_array(call->env, &value));
	return value;
}

static void put(struct call *call, napi_value to, const char *name, napi_value value)
{
	if (!call->is_broken)
		note(call, napi_set_named_property(call->env, to, name, value));
}

static void put_at(struct call *call, napi_value to, __u32 index, napi_value value)
{
	if (!call->is_broken)
		note(call, napi_set_element(call->env, to, index, value));
}

static void release_handle(struct handle *handle)
{
	if (handle->object)
		close_object(handle->object);
	if (handle->map >= 0)
		close(handle->map);
	handle->object = NULL;
	handle->map = -1;
}

static void finalize_handle(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	release_handle(data);
	free(data);
}

/* Creates an empty handle as the result; its contents are released if the call fails. */
static struct handle *make_handle(struct call *call)
{
	struct handle *handle = calloc(1, sizeof(*handle));

	if (!handle) {
		fail(&call->fault, "allocate", ENOMEM);
		return NULL;
	}
	handle->map = -1;
	if (napi_create_external(call->env, handle, finalize_handle, NULL, &call->result)) {
		free(handle);
		call->is_broken = true;
		return NULL;
	}
	note(call, napi_type_tag_object(call->env, call->result, &handle_tag));
	call->made = handle;
	return handle;
}

/* Functions */

static void load(struct call *call)
{
	const struct bytes *programs = &call->in[0].bytes, *settings = &call->in[1].bytes;
	const struct list *pins = &call->in[2].list;
	struct handle *handle = make_handle(call);

	if (handle)
		load_object(programs->data, programs->length, settings->data, settings->length,
			    pins->items, pins->count, &handle->object, &call->fault);
}

/* Releases the handle now and not at its garbage collection. */
static void close_handle(struct call *call)
{
	release_handle(call->in[0].handle);
}

static void pin(struct call *call)
{
	pin_program(call->in[0].handle->object, call->in[1].text, call->in[2].text, &call->fault);
}

static void attach(struct call *call)
{
	attach_program(call->in[0].handle->object, call->in[1].text, call->in[2].text,
		       call->in[3].text, &call->fault);
}

/* Atomic: every connect runs the old or the new program. */
static void replace(struct call *call)
{
	replace_program(call->in[0].handle->object, call->in[1].text, call->in[2].text, &call->fault);
}

/* Detaches the program at once; the pin stays. */
static void detach(struct call *call)
{
	detach_link(call->in[0].text, &call->fault);
}

static void link_info(struct call *call)
{
	struct link_facts facts = {};

	if (link_facts(call->in[0].text, &facts, &call->fault))
		return;
	call->result = object(call);
	put(call, call->result, "programId", number(call, facts.program_id));
	put(call, call->result, "type", number(call, facts.type));
	put(call, call->result, "attachType", number(call, facts.attach_type));
	put(call, call->result, "cgroupId", big(call, facts.cgroup_id));
}

static void program_info(struct call *call)
{
	struct program_facts facts = {};
	napi_value ids;
	__u32 index;

	if (program_facts(call->in[0].text, &facts, &call->fault))
		return;
	ids = array(call);
	for (index = 0; index < facts.map_count; index++)
		put_at(call, ids, index, number(call, facts.map_ids[index]));
	call->result = object(call);
	put(call, call->result, "id", number(call, facts.id));
	put(call, call->result, "mapIds", ids);
}

static bool is_per_cpu(__u32 type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

static void open_map(struct call *call)
{
	struct handle *handle = make_handle(call);
	struct fault *fault = &call->fault;

	if (!handle)
		return;
	handle->map = open_pin(call->in[0].text, PIN_MAP, call->in[1].flag, fault);
	if (handle->map < 0 || map_facts(handle->map, &handle->facts, fault))
		return;
	if (handle->facts.key_size > MAX_VALUE_BYTES || handle->facts.value_size > MAX_VALUE_BYTES)
		fail(fault, "open pin", EMSGSIZE);
	/* A look-up in a per-CPU map returns one value per CPU, whose number is unknown here. */
	if (is_per_cpu(handle->facts.type))
		fail(fault, "open pin", EMEDIUMTYPE);
}

static void map_id(struct call *call)
{
	call->result = number(call, call->in[0].handle->facts.id);
}

static void map_get(struct call *call)
{
	const struct handle *map = call->in[0].handle;
	__u8 value[MAX_VALUE_BYTES];
	int error = bpf_map_lookup_elem(map->map, call->in[1].bytes.data, value);

	if (!error)
		call->result = bytes(call, value, map->facts.value_size);
	else if (error != -ENOENT)
		fail(&call->fault, "read map", error);
}

static void map_set(struct call *call)
{
	int error = bpf_map_update_elem(call->in[0].handle->map, call->in[1].bytes.data,
					call->in[2].bytes.data, BPF_ANY);

	if (error)
		fail(&call->fault, "write map", error);
}

static void map_delete(struct call *call)
{
	int error = bpf_map_delete_elem(call->in[0].handle->map, call->in[1].bytes.data);

	if (error && error != -ENOENT)
		fail(&call->fault, "write map", error);
	else
		call->result = boolean(call, error == 0);
}

/* Bounded by the map's size even during concurrent writes. */
static void map_keys(struct call *call)
{
	const struct handle *map = call->in[0].handle;
	__u8 key[MAX_VALUE_BYTES], next[MAX_VALUE_BYTES];
	__u32 index;

	call->result = array(call);
	for (index = 0; index < map->facts.max_entries && !call->is_broken; index++) {
		int error = bpf_map_get_next_key(map->map, index == 0 ? NULL : key, next);

		if (error == -ENOENT)
			return;
		if (error) {
			fail(&call->fault, "read map", error);
			return;
		}
		memcpy(key, next, map->facts.key_size);
		put_at(call, call->result, index, bytes(call, key, map->facts.key_size));
	}
}

/*
 * Called for each connection. Records of the node's own network namespace take precedence: only processes
 * of the node create them. Between two addresses of the node, only these records count.
 */
static void lookup_caller(struct call *call)
{
	const struct handle *map = call->in[0].handle;
	struct nmi_client client = {
		.ip = call->in[1].ip,
		.port = call->in[2].port,
		.is_of_node = 1,
	};
	bool is_within_node = call->in[3].flag;
	struct nmi_caller caller;
	int error;

	if (map->facts.key_size != sizeof(client) || map->facts.value_size != sizeof(caller)) {
		napi_throw_type_error(call->env, "ERR_INVALID_ARG_TYPE",
				      "map: the map of callers is wanted");
		return;
	}
	error = bpf_map_lookup_elem(map->map, &client, &caller);
	if (error == -ENOENT && !is_within_node) {
		client.is_of_node = 0;
		error = bpf_map_lookup_elem(map->map, &client, &caller);
	}
	if (!error) {
		call->result = object(call);
		put(call, call->result, "cgroupId", big(call, caller.cgroup_id));
		put(call, call->result, "isDirect", boolean(call, caller.is_direct));
	} else if (error != -ENOENT) {
		fail(&call->fault, "look up caller", error);
	}
}

static void forget_flows(struct call *call)
{
	struct flow_filter filter = {
		.dialled = call->in[0].end,
		.answered_by = call->in[1].end,
		.spared = call->in[2].list.items,
		.spared_count = call->in[2].list.count,
	};

	call->result = number(call, cut_flows(&filter, &call->fault));
}

static void close_sockets(struct call *call)
{
	const struct list *ids = &call->in[1].list;

	call->result =
		number(call, cut_sockets(&call->in[0].end, ids->items, ids->count, &call->fault));
}

static void place_of(struct call *call)
{
	char mac[3 * MAC_BYTES];
	struct place place;

	if (find_place(call->in[0].ip, &place, &call->fault) || !place.link)
		return;
	call->result = object(call);
	put(call, call->result, "link", number(call, place.link));
	if (place.port)
		put(call, call->result, "port", number(call, place.port));
	if (!place.has_mac)
		return;
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", place.mac[0], place.mac[1],
		 place.mac[2], place.mac[3], place.mac[4], place.mac[5]);
	put(call, call->result, "mac", text(call, mac));
}

static void is_own_link(struct call *call)
{
	bool owns;

	if (!owns_link(call->in[0].ip, &owns, &call->fault))
		call->result = boolean(call, owns);
}

static void is_link(struct call *call)
{
	__u64 link = call->in[0].id;

	call->result = boolean(call, link <= INT_MAX && has_link(link));
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

static void put_descriptor(struct call *call, int descriptor)
{
	if (descriptor >= 0)
		call->result = number(call, descriptor);
}

static void open_listening(struct call *call)
{
	put_descriptor(call, open_listener(call->in[0].ip, htons(call->in[1].port), &call->fault));
}

static void read_listener(struct call *call)
{
	struct flow_end end = {};
	char ip[INET_ADDRSTRLEN] = "";

	if (listener_address(call->in[0].descriptor, &end, &call->fault))
		return;
	inet_ntop(AF_INET, &end.ip, ip, sizeof(ip));
	call->result = object(call);
	put(call, call->result, "ip", text(call, ip));
	put(call, call->result, "port", number(call, ntohs(end.port)));
}

static void duplicate(struct call *call)
{
	put_descriptor(call, duplicate_descriptor(call->in[0].descriptor, &call->fault));
}

static void connect_to(struct call *call)
{
	put_descriptor(call, connect_local(call->in[0].text, &call->fault));
}

/* An omitted descriptor is read as 0, which is never one of our sockets. */
static void send_to(struct call *call)
{
	int descriptor = call->in[2].descriptor;

	send_note(call->in[0].descriptor, call->in[1].note, descriptor > 0 ? descriptor : -1,
		  &call->fault);
}

static void receive_from(struct call *call)
{
	int descriptor = -1;
	__u8 note = 0;

	if (receive_note(call->in[0].descriptor, &note, &descriptor, &call->fault) != 1)
		return;
	call->result = object(call);
	put(call, call->result, "note", number(call, note));
	if (descriptor >= 0)
		put(call, call->result, "descriptor", number(call, descriptor));
}

/* Returns whether the allocator returned any page to the kernel. */
static void trim_memory(struct call *call)
{
	call->result = boolean(call, malloc_trim(0) == 1);
}

/* Documented on the TypeScript side (addon.ts). */
static const struct function functions[] = {
	{ "load", "object:b settings:b pins:m", load },
	{ "close", "handle:h", close_handle },
	{ "pinProgram", "programs:P name:n pin:s", pin },
	{ "attach", "programs:P name:n cgroup:s pin:s", attach },
	{ "replace", "programs:P name:n pin:s", replace },
	{ "detach", "pin:s", detach },
	{ "linkInfo", "pin:s", link_info },
	{ "programInfo", "pin:s", program_info },
	{ "openMap", "pin:s readOnly:f", open_map },
	{ "mapId", "map:M", map_id },
	{ "mapGet", "map:M key:k", map_get },
	{ "mapSet", "map:M key:k value:v", map_set },
	{ "mapDelete", "map:M key:k", map_delete },
	{ "mapKeys", "map:M", map_keys },
	{ "lookupCaller", "map:M clientIp:i clientPort:p withinNode:f", lookup_caller },
	{ "cutFlows", "dialled:e answeredBy:e? sparedSources:[i]", forget_flows },
	{ "cutSockets", "dialled:e cgroupIds:[u]", close_sockets },
	{ "placeOf", "ip:i", place_of },
	{ "ownsLink", "ip:i", is_own_link },
	{ "hasLink", "link:u", is_link },
	{ "netnsCookie", "", netns_cookie },
	{ "openListener", "ip:i port:p", open_listening },
	{ "listenerAddress", "descriptor:d", read_listener },
	{ "duplicate", "descriptor:d", duplicate },
	{ "connectLocal", "path:s", connect_to },
	{ "sendNote", "socket:d note:y descriptor:d?", send_to },
	{ "receiveNote", "socket:d", receive_from },
	{ "trimMemory", "", trim_memory },
};

static void throw_fault(struct call *call)
{
	const struct fault *fault = &call->fault;
	const char *name = strerrorname_np(fault->error);
	napi_value code = text(call, name ? name : "EUNKNOWN");
	napi_value message = text(call, strerror(fault->error));
	napi_value error = NULL;

	note(call, napi_create_error(call->env, code, message, &error));
	put(call, error, "errno", number(call, fault->error));
	put(call, error, "step", text(call, fault->step));
	if (fault->detail)
		put(call, error, "detail", text(call, fault->detail));
	if (!call->is_broken)
		napi_throw(call->env, error);
	free(fault->detail);
}

static napi_value throw_broken(napi_env env)
{
	bool is_pending = false;

	napi_is_exception_pending(env, &is_pending);
	if (!is_pending)
		napi_throw_error(env, "ERR_NATIVE", "the result could not be made");
	return NULL;
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
		return throw_broken(env);
	function = data;
	if (read_arguments(&call, function->signature, values, count))
		function->run(&call);
	while (call.blocks) {
		struct block *block = call.blocks;

		call.blocks = block->next;
		free(block);
	}
	if (!call.fault.step && !call.is_broken)
		return call.result;
	if (call.made)
		release_handle(call.made);
	if (call.fault.step)
		throw_fault(&call);
	return call.is_broken ? throw_broken(env) : NULL;
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
			return throw_broken(env);
	}
	return exports;
}
