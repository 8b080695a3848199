/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Node-API side: checks arguments, calls, turns faults into errors with `code`, `errno`, `step`
 * and `detail`. No state but what its handles hold, no thread of its own, no callback from anywhere
 * but the call itself; nothing here ends the process.
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
#include <bpf/bpf.h>
#include <node_api.h>
#include "bpf-side.h"
#include "flows.h"
#include "nmi.h"
#include "sockets.h"

#define MAX_ARGUMENTS 4
#define MAX_VALUE_BYTES 4096
/* With IPVS a node holds the address of every service of the cluster. */
#define MAX_SPARED 65536
#define MAX_CGROUPS 65536

enum handle_kind { HANDLE_PROGRAMS, HANDLE_MAP };

struct handle {
	enum handle_kind kind;
	struct bpf_object *object; /* HANDLE_PROGRAMS; NULL once closed */
	int map; /* HANDLE_MAP; -1 once closed */
	struct map_facts facts;
};

/* What tells our handles from anybody else's externals. */
static const napi_type_tag handle_tag = { 0x6e6d692d68616e64, 0x6c652d3230323531 };

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

/* Throwing */

static napi_value throw_fault(napi_env env, const struct fault *fault)
{
	const char *name = strerrorname_np(fault->error);
	napi_value code, message, error, value;
	char text[256];

	snprintf(text, sizeof(text), "%s: %s", fault->step, strerror(fault->error));
	if (napi_create_string_utf8(env, name ? name : "EUNKNOWN", NAPI_AUTO_LENGTH, &code) ||
	    napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) ||
	    napi_create_error(env, code, message, &error))
		goto cleanup;
	if (napi_create_int32(env, fault->error, &value) ||
	    napi_set_named_property(env, error, "errno", value) ||
	    napi_create_string_utf8(env, fault->step, NAPI_AUTO_LENGTH, &value) ||
	    napi_set_named_property(env, error, "step", value))
		goto cleanup;
	if (fault->detail &&
	    (napi_create_string_utf8(env, fault->detail, NAPI_AUTO_LENGTH, &value) ||
	     napi_set_named_property(env, error, "detail", value)))
		goto cleanup;
	napi_throw(env, error);
cleanup:
	free(fault->detail);
	return NULL;
}

static napi_value throw_errno(napi_env env, const char *step, int error)
{
	struct fault fault = {};

	fail(&fault, step, error);
	return throw_fault(env, &fault);
}

static napi_value throw_argument(napi_env env, const char *what)
{
	napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", what);
	return NULL;
}

/* Reading arguments: each says false after having thrown. */

static bool arguments(napi_env env, napi_callback_info info, size_t wanted, napi_value *values)
{
	size_t count = MAX_ARGUMENTS;

	if (napi_get_cb_info(env, info, &count, values, NULL, NULL) == napi_ok && count == wanted)
		return true;
	throw_argument(env, "wrong number of arguments");
	return false;
}

static bool text_argument(napi_env env, napi_value value, char *text, size_t size)
{
	size_t length = 0;

	if (napi_get_value_string_utf8(env, value, NULL, 0, &length) == napi_ok && length > 0 &&
	    length < size && napi_get_value_string_utf8(env, value, text, size, &length) == napi_ok &&
	    strlen(text) == length)
		return true;
	throw_argument(env, "a text of bounded length, without NUL, is wanted");
	return false;
}

static bool flag_argument(napi_env env, napi_value value, bool *flag)
{
	if (napi_get_value_bool(env, value, flag) == napi_ok)
		return true;
	throw_argument(env, "a boolean is wanted");
	return false;
}

static bool bytes_argument(napi_env env, napi_value value, void **bytes, size_t *length)
{
	napi_typedarray_type type;
	bool is_typed = false;

	if (napi_is_typedarray(env, value, &is_typed) == napi_ok && is_typed &&
	    napi_get_typedarray_info(env, value, &type, length, bytes, NULL, NULL) == napi_ok &&
	    type == napi_uint8_array)
		return true;
	throw_argument(env, "a Uint8Array is wanted");
	return false;
}

static bool ip_argument(napi_env env, napi_value value, __be32 *ip)
{
	/* One more than the longest address, whose beginning a longer text must not pass for. */
	char text[INET_ADDRSTRLEN + 1];
	size_t length = 0;

	if (napi_get_value_string_latin1(env, value, text, sizeof(text), &length) == napi_ok &&
	    strlen(text) == length && inet_pton(AF_INET, text, ip) == 1)
		return true;
	throw_argument(env, "an IPv4 address is wanted");
	return false;
}

static bool port_argument(napi_env env, napi_value value, __u16 *port)
{
	double number = 0;

	if (napi_get_value_double(env, value, &number) == napi_ok && number >= 1 &&
	    number <= 65535 && number == (double)(__u16)number) {
		*port = (__u16)number;
		return true;
	}
	throw_argument(env, "a port is wanted");
	return false;
}

static struct handle *handle_argument(napi_env env, napi_value value, enum handle_kind kind)
{
	struct handle *handle = NULL;
	napi_valuetype type;
	bool is_ours = false;
	void *data = NULL;

	if (napi_typeof(env, value, &type) == napi_ok && type == napi_external &&
	    napi_check_object_type_tag(env, value, &handle_tag, &is_ours) == napi_ok && is_ours &&
	    napi_get_value_external(env, value, &data) == napi_ok)
		handle = data;
	if (handle && handle->kind == kind &&
	    (kind == HANDLE_PROGRAMS ? handle->object != NULL : handle->map >= 0))
		return handle;
	throw_argument(env, "an open handle is wanted");
	return NULL;
}

/* Making values: each says NULL after having thrown. */

static napi_value broken(napi_env env)
{
	bool is_pending = false;

	napi_is_exception_pending(env, &is_pending);
	if (!is_pending)
		napi_throw_error(env, "ERR_NATIVE", "the result could not be made");
	return NULL;
}

static napi_value make_handle(napi_env env, const struct handle *from)
{
	struct handle *handle = malloc(sizeof(*handle));
	napi_value value;

	if (!handle) {
		struct handle lost = *from;

		release_handle(&lost);
		return throw_errno(env, "handle", ENOMEM);
	}
	*handle = *from;
	if (napi_create_external(env, handle, finalize_handle, NULL, &value)) {
		finalize_handle(env, handle, NULL);
		return broken(env);
	}
	return napi_type_tag_object(env, value, &handle_tag) ? broken(env) : value;
}

static napi_value make_bytes(napi_env env, const void *bytes, size_t length)
{
	napi_value buffer, array;
	void *copy;

	if (napi_create_arraybuffer(env, length, &copy, &buffer))
		return broken(env);
	memcpy(copy, bytes, length);
	if (napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array))
		return broken(env);
	return array;
}

static bool put_number(napi_env env, napi_value object, const char *name, double number)
{
	napi_value value;

	return napi_create_double(env, number, &value) == napi_ok &&
	       napi_set_named_property(env, object, name, value) == napi_ok;
}

static bool put_id(napi_env env, napi_value object, const char *name, __u64 id)
{
	napi_value value;

	return napi_create_bigint_uint64(env, id, &value) == napi_ok &&
	       napi_set_named_property(env, object, name, value) == napi_ok;
}

static bool put_text(napi_env env, napi_value object, const char *name, const char *text,
		     size_t length)
{
	napi_value value;

	return napi_create_string_latin1(env, text, length, &value) == napi_ok &&
	       napi_set_named_property(env, object, name, value) == napi_ok;
}

/* Functions */

/* probe(): { connect, peername, sockOps, socketStorage, cgroupId, cgroupLink } */
static napi_value probe(napi_env env, napi_callback_info info)
{
	struct kernel_support support = {};
	napi_value values[MAX_ARGUMENTS], result;

	if (!arguments(env, info, 0, values))
		return NULL;
	probe_kernel(&support);
	if (napi_create_object(env, &result) || !put_number(env, result, "connect", support.connect) ||
	    !put_number(env, result, "peername", support.peername) ||
	    !put_number(env, result, "sockOps", support.sock_ops) ||
	    !put_number(env, result, "socketStorage", support.socket_storage) ||
	    !put_number(env, result, "cgroupId", support.cgroup_id) ||
	    !put_number(env, result, "cgroupLink", support.cgroup_link))
		return broken(env);
	return result;
}

struct pin_texts {
	char names[MAX_PINS][64];
	char paths[MAX_PINS][PATH_MAX];
	struct map_pin pins[MAX_PINS];
	size_t count;
};

static bool pins_argument(napi_env env, napi_value value, struct pin_texts *texts)
{
	napi_value names, name, path;
	uint32_t count = 0, index;

	if (napi_get_property_names(env, value, &names) || napi_get_array_length(env, names, &count) ||
	    count > MAX_PINS) {
		throw_argument(env, "an object of few pins is wanted");
		return false;
	}
	for (index = 0; index < count; index++) {
		if (napi_get_element(env, names, index, &name) ||
		    napi_get_property(env, value, name, &path)) {
			broken(env);
			return false;
		}
		if (!text_argument(env, name, texts->names[index], sizeof(texts->names[0])) ||
		    !text_argument(env, path, texts->paths[index], sizeof(texts->paths[0])))
			return false;
		texts->pins[index].name = texts->names[index];
		texts->pins[index].path = texts->paths[index];
	}
	texts->count = count;
	return true;
}

/* load(objectBytes, settingsBytes, { mapName: pinPath }): programs */
static napi_value load(napi_env env, napi_callback_info info)
{
	struct handle handle = { .kind = HANDLE_PROGRAMS, .object = NULL, .map = -1 };
	struct fault fault = {};
	struct pin_texts *texts;
	napi_value values[MAX_ARGUMENTS], result = NULL;
	void *object, *settings;
	size_t object_length, settings_length;

	if (!arguments(env, info, 3, values) ||
	    !bytes_argument(env, values[0], &object, &object_length) ||
	    !bytes_argument(env, values[1], &settings, &settings_length))
		return NULL;
	texts = calloc(1, sizeof(*texts));
	if (!texts)
		return throw_errno(env, "load", ENOMEM);
	if (!pins_argument(env, values[2], texts))
		goto cleanup;
	if (load_object(object, object_length, settings, settings_length, texts->pins, texts->count,
			&handle.object, &fault)) {
		throw_fault(env, &fault);
		goto cleanup;
	}
	result = make_handle(env, &handle);
cleanup:
	free(texts);
	return result;
}

/* close(programs or map): lets go of it now and not when it is collected. */
static napi_value close_handle(napi_env env, napi_callback_info info)
{
	napi_value values[MAX_ARGUMENTS];
	bool is_ours = false;
	void *data = NULL;

	if (!arguments(env, info, 1, values))
		return NULL;
	if (napi_check_object_type_tag(env, values[0], &handle_tag, &is_ours) || !is_ours ||
	    napi_get_value_external(env, values[0], &data))
		return throw_argument(env, "a handle is wanted");
	release_handle(data);
	return NULL;
}

/* pinProgram(programs, programName, path) */
static napi_value pin_program_call(napi_env env, napi_callback_info info)
{
	struct fault fault = {};
	struct handle *programs;
	napi_value values[MAX_ARGUMENTS];
	char name[64], path[PATH_MAX];

	if (!arguments(env, info, 3, values))
		return NULL;
	programs = handle_argument(env, values[0], HANDLE_PROGRAMS);
	if (!programs || !text_argument(env, values[1], name, sizeof(name)) ||
	    !text_argument(env, values[2], path, sizeof(path)))
		return NULL;
	if (pin_program(programs->object, name, path, &fault))
		return throw_fault(env, &fault);
	return NULL;
}

/* attach(programs, programName, cgroupPath, linkPin) */
static napi_value attach(napi_env env, napi_callback_info info)
{
	struct fault fault = {};
	struct handle *programs;
	napi_value values[MAX_ARGUMENTS];
	char name[64], cgroup[PATH_MAX], pin[PATH_MAX];

	if (!arguments(env, info, 4, values))
		return NULL;
	programs = handle_argument(env, values[0], HANDLE_PROGRAMS);
	if (!programs || !text_argument(env, values[1], name, sizeof(name)) ||
	    !text_argument(env, values[2], cgroup, sizeof(cgroup)) ||
	    !text_argument(env, values[3], pin, sizeof(pin)))
		return NULL;
	if (attach_program(programs->object, name, cgroup, pin, &fault))
		return throw_fault(env, &fault);
	return NULL;
}

/* replace(programs, programName, linkPin): no connect falls between the old and the new. */
static napi_value replace(napi_env env, napi_callback_info info)
{
	struct fault fault = {};
	struct handle *programs;
	napi_value values[MAX_ARGUMENTS];
	char name[64], pin[PATH_MAX];

	if (!arguments(env, info, 3, values))
		return NULL;
	programs = handle_argument(env, values[0], HANDLE_PROGRAMS);
	if (!programs || !text_argument(env, values[1], name, sizeof(name)) ||
	    !text_argument(env, values[2], pin, sizeof(pin)))
		return NULL;
	if (replace_program(programs->object, name, pin, &fault))
		return throw_fault(env, &fault);
	return NULL;
}

/* detach(linkPin): takes the program off at once; the pin itself stays. */
static napi_value detach(napi_env env, napi_callback_info info)
{
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS];
	char pin[PATH_MAX];

	if (!arguments(env, info, 1, values) || !text_argument(env, values[0], pin, sizeof(pin)))
		return NULL;
	if (detach_link(pin, &fault))
		return throw_fault(env, &fault);
	return NULL;
}

/* linkInfo(pin): { id, programId, type, attachType, cgroupId } */
static napi_value link_info(napi_env env, napi_callback_info info)
{
	struct link_facts facts = {};
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS], result;
	char pin[PATH_MAX];

	if (!arguments(env, info, 1, values) || !text_argument(env, values[0], pin, sizeof(pin)))
		return NULL;
	if (link_facts(pin, &facts, &fault))
		return throw_fault(env, &fault);
	if (napi_create_object(env, &result) || !put_number(env, result, "id", facts.id) ||
	    !put_number(env, result, "programId", facts.program_id) ||
	    !put_number(env, result, "type", facts.type) ||
	    !put_number(env, result, "attachType", facts.attach_type) ||
	    !put_id(env, result, "cgroupId", facts.cgroup_id))
		return broken(env);
	return result;
}

static bool put_map_ids(napi_env env, napi_value result, const struct program_facts *facts)
{
	napi_value ids, id;
	__u32 index;

	if (napi_create_array_with_length(env, facts->map_count, &ids))
		return false;
	for (index = 0; index < facts->map_count; index++) {
		if (napi_create_uint32(env, facts->map_ids[index], &id) ||
		    napi_set_element(env, ids, index, id))
			return false;
	}
	return napi_set_named_property(env, result, "mapIds", ids) == napi_ok;
}

/* programInfo(pin): { id, type, name, tag, mapIds } */
static napi_value program_info(napi_env env, napi_callback_info info)
{
	struct program_facts facts = {};
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS], result;
	char pin[PATH_MAX], tag[2 * sizeof(facts.tag) + 1];
	size_t index;

	if (!arguments(env, info, 1, values) || !text_argument(env, values[0], pin, sizeof(pin)))
		return NULL;
	if (program_facts(pin, &facts, &fault))
		return throw_fault(env, &fault);
	for (index = 0; index < sizeof(facts.tag); index++)
		snprintf(tag + 2 * index, 3, "%02x", facts.tag[index]);
	if (napi_create_object(env, &result) || !put_number(env, result, "id", facts.id) ||
	    !put_number(env, result, "type", facts.type) ||
	    !put_text(env, result, "name", facts.name, strnlen(facts.name, sizeof(facts.name))) ||
	    !put_text(env, result, "tag", tag, sizeof(tag) - 1) || !put_map_ids(env, result, &facts))
		return broken(env);
	return result;
}

static bool is_per_cpu(__u32 type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

/* openMap(pin, readOnly): map */
static napi_value open_map(napi_env env, napi_callback_info info)
{
	struct handle handle = { .kind = HANDLE_MAP, .object = NULL, .map = -1 };
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS];
	char pin[PATH_MAX];
	bool read_only;

	if (!arguments(env, info, 2, values) || !text_argument(env, values[0], pin, sizeof(pin)) ||
	    !flag_argument(env, values[1], &read_only))
		return NULL;
	handle.map = open_pin(pin, PIN_MAP, read_only, &fault);
	if (handle.map < 0)
		return throw_fault(env, &fault);
	if (map_facts(handle.map, &handle.facts, &fault)) {
		close(handle.map);
		return throw_fault(env, &fault);
	}
	if (handle.facts.key_size > MAX_VALUE_BYTES || handle.facts.value_size > MAX_VALUE_BYTES) {
		close(handle.map);
		return throw_errno(env, "open pin", EMSGSIZE);
	}
	/* A look-up there gives a value of each processor, of which there is no telling how many. */
	if (is_per_cpu(handle.facts.type)) {
		close(handle.map);
		return throw_errno(env, "open pin", EMEDIUMTYPE);
	}
	return make_handle(env, &handle);
}

/* mapInfo(map): { id, type, keySize, valueSize, maxEntries, name } */
static napi_value map_info(napi_env env, napi_callback_info info)
{
	napi_value values[MAX_ARGUMENTS], result;
	const struct map_facts *facts;
	struct handle *map;

	if (!arguments(env, info, 1, values))
		return NULL;
	map = handle_argument(env, values[0], HANDLE_MAP);
	if (!map)
		return NULL;
	facts = &map->facts;
	if (napi_create_object(env, &result) || !put_number(env, result, "id", facts->id) ||
	    !put_number(env, result, "type", facts->type) ||
	    !put_number(env, result, "keySize", facts->key_size) ||
	    !put_number(env, result, "valueSize", facts->value_size) ||
	    !put_number(env, result, "maxEntries", facts->max_entries) ||
	    !put_text(env, result, "name", facts->name, strnlen(facts->name, sizeof(facts->name))))
		return broken(env);
	return result;
}

/* A map and, of exactly its sizes, a key and perhaps a value. */
static struct handle *map_arguments(napi_env env, napi_value *values, void **key, void **value)
{
	struct handle *map = handle_argument(env, values[0], HANDLE_MAP);
	size_t length;

	if (!map || !bytes_argument(env, values[1], key, &length))
		return NULL;
	if (length != map->facts.key_size) {
		throw_argument(env, "a key of the map's size is wanted");
		return NULL;
	}
	if (!value)
		return map;
	if (!bytes_argument(env, values[2], value, &length))
		return NULL;
	if (length != map->facts.value_size) {
		throw_argument(env, "a value of the map's size is wanted");
		return NULL;
	}
	return map;
}

/* mapGet(map, key): value, or undefined */
static napi_value map_get(napi_env env, napi_callback_info info)
{
	napi_value values[MAX_ARGUMENTS];
	__u8 value[MAX_VALUE_BYTES];
	struct handle *map;
	void *key;
	int error;

	if (!arguments(env, info, 2, values))
		return NULL;
	map = map_arguments(env, values, &key, NULL);
	if (!map)
		return NULL;
	error = bpf_map_lookup_elem(map->map, key, value);
	if (error == -ENOENT)
		return NULL;
	if (error)
		return throw_errno(env, "read map", error);
	return make_bytes(env, value, map->facts.value_size);
}

/* mapSet(map, key, value) */
static napi_value map_set(napi_env env, napi_callback_info info)
{
	napi_value values[MAX_ARGUMENTS];
	struct handle *map;
	void *key, *value;
	int error;

	if (!arguments(env, info, 3, values))
		return NULL;
	map = map_arguments(env, values, &key, &value);
	if (!map)
		return NULL;
	error = bpf_map_update_elem(map->map, key, value, BPF_ANY);
	return error ? throw_errno(env, "write map", error) : NULL;
}

/* mapDelete(map, key): whether it was there */
static napi_value map_delete(napi_env env, napi_callback_info info)
{
	napi_value values[MAX_ARGUMENTS], result;
	struct handle *map;
	void *key;
	int error;

	if (!arguments(env, info, 2, values))
		return NULL;
	map = map_arguments(env, values, &key, NULL);
	if (!map)
		return NULL;
	error = bpf_map_delete_elem(map->map, key);
	if (error && error != -ENOENT)
		return throw_errno(env, "write map", error);
	return napi_get_boolean(env, error == 0, &result) ? broken(env) : result;
}

/* mapKeys(map): all keys; bounded by the map's size even while others write to it */
static napi_value map_keys(napi_env env, napi_callback_info info)
{
	__u8 key[MAX_VALUE_BYTES], next[MAX_VALUE_BYTES];
	napi_value values[MAX_ARGUMENTS], result, bytes;
	struct handle *map;
	__u32 index;
	int error;

	if (!arguments(env, info, 1, values))
		return NULL;
	map = handle_argument(env, values[0], HANDLE_MAP);
	if (!map || napi_create_array(env, &result))
		return map ? broken(env) : NULL;
	for (index = 0; index < map->facts.max_entries; index++) {
		error = bpf_map_get_next_key(map->map, index == 0 ? NULL : key, next);
		if (error == -ENOENT)
			break;
		if (error)
			return throw_errno(env, "read map", error);
		memcpy(key, next, map->facts.key_size);
		bytes = make_bytes(env, key, map->facts.key_size);
		if (!bytes || napi_set_element(env, result, index, bytes))
			return broken(env);
	}
	return result;
}

/* lookupCaller(map, clientIp, clientPort): cgroup id, or undefined. Called for each connection. */
static napi_value lookup_caller(napi_env env, napi_callback_info info)
{
	struct nmi_client client = {};
	struct nmi_caller caller;
	napi_value values[MAX_ARGUMENTS], result;
	struct handle *map;
	int error;

	if (!arguments(env, info, 3, values))
		return NULL;
	map = handle_argument(env, values[0], HANDLE_MAP);
	if (!map || !ip_argument(env, values[1], &client.ip) ||
	    !port_argument(env, values[2], &client.port))
		return NULL;
	if (map->facts.key_size != sizeof(client) || map->facts.value_size != sizeof(caller))
		return throw_argument(env, "the map of callers is wanted");
	error = bpf_map_lookup_elem(map->map, &client, &caller);
	if (error == -ENOENT)
		return NULL;
	if (error)
		return throw_errno(env, "look up caller", error);
	return napi_create_bigint_uint64(env, caller.cgroup_id, &result) ? broken(env) : result;
}

static bool spared_argument(napi_env env, napi_value value, __be32 *spared, size_t *count)
{
	uint32_t length = 0, index;
	napi_value item;

	if (napi_get_array_length(env, value, &length) || length > MAX_SPARED) {
		throw_argument(env, "an array of few addresses is wanted");
		return false;
	}
	for (index = 0; index < length; index++) {
		if (napi_get_element(env, value, index, &item)) {
			broken(env);
			return false;
		}
		if (!ip_argument(env, item, &spared[index]))
			return false;
	}
	*count = length;
	return true;
}

static bool is_undefined(napi_env env, napi_value value)
{
	napi_valuetype type;

	return !napi_typeof(env, value, &type) && type == napi_undefined;
}

static bool end_argument(napi_env env, napi_value value, struct flow_end *end)
{
	napi_value ip, port;
	__u16 number;

	if (napi_get_named_property(env, value, "ip", &ip) ||
	    napi_get_named_property(env, value, "port", &port)) {
		throw_argument(env, "an address and port are wanted");
		return false;
	}
	if (!ip_argument(env, ip, &end->ip) || !port_argument(env, port, &number))
		return false;
	end->port = htons(number);
	return true;
}

/* cutFlows(dialled, answeredBy or undefined, sparedSources): how many were forgotten */
static napi_value cut_flows_call(napi_env env, napi_callback_info info)
{
	struct flow_filter filter = {};
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS], result = NULL;
	__be32 *spared = calloc(MAX_SPARED, sizeof(*spared));
	int cut;

	if (!spared)
		return throw_errno(env, "cut flows", ENOMEM);
	if (!arguments(env, info, 3, values) || !end_argument(env, values[0], &filter.dialled) ||
	    (!is_undefined(env, values[1]) &&
	     !end_argument(env, values[1], &filter.answered_by)) ||
	    !spared_argument(env, values[2], spared, &filter.spared_count))
		goto cleanup;
	filter.spared = spared;
	cut = cut_flows(&filter, &fault);
	if (cut < 0)
		throw_fault(env, &fault);
	else if (napi_create_int32(env, cut, &result))
		result = broken(env);
cleanup:
	free(spared);
	return result;
}

static bool id_argument(napi_env env, napi_value value, __u64 *id)
{
	bool is_lossless = false;

	if (napi_get_value_bigint_uint64(env, value, (uint64_t *)id, &is_lossless) == napi_ok &&
	    is_lossless)
		return true;
	throw_argument(env, "an id is wanted");
	return false;
}

/* socketCgroups(dialled): the cgroups of sockets that are connected there */
static napi_value socket_cgroups_call(napi_env env, napi_callback_info info)
{
	struct flow_end dialled = {};
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS], result = NULL, id;
	__u64 *ids = NULL;
	int count, index;

	if (!arguments(env, info, 1, values) || !end_argument(env, values[0], &dialled))
		return NULL;
	count = socket_cgroups(&dialled, &ids, &fault);
	if (count < 0) {
		throw_fault(env, &fault);
		goto cleanup;
	}
	if (napi_create_array_with_length(env, count, &result)) {
		result = broken(env);
		goto cleanup;
	}
	for (index = 0; index < count; index++) {
		if (napi_create_bigint_uint64(env, ids[index], &id) ||
		    napi_set_element(env, result, index, id)) {
			result = broken(env);
			goto cleanup;
		}
	}
cleanup:
	free(ids);
	return result;
}

/* cutSockets(dialled, cgroupIds): how many sockets of these cgroups were closed */
static napi_value cut_sockets_call(napi_env env, napi_callback_info info)
{
	struct flow_end dialled = {};
	struct fault fault = {};
	napi_value values[MAX_ARGUMENTS], item, result = NULL;
	uint32_t count = 0, index;
	__u64 *ids = NULL;
	int cut;

	if (!arguments(env, info, 2, values) || !end_argument(env, values[0], &dialled))
		return NULL;
	if (napi_get_array_length(env, values[1], &count) || count > MAX_CGROUPS)
		return throw_argument(env, "an array of few ids is wanted");
	ids = calloc(count + 1, sizeof(*ids));
	if (!ids)
		return throw_errno(env, "close socket", ENOMEM);
	for (index = 0; index < count; index++) {
		if (napi_get_element(env, values[1], index, &item)) {
			broken(env);
			goto cleanup;
		}
		if (!id_argument(env, item, &ids[index]))
			goto cleanup;
	}
	cut = cut_sockets(&dialled, ids, count, &fault);
	if (cut < 0)
		throw_fault(env, &fault);
	else if (napi_create_int32(env, cut, &result))
		result = broken(env);
cleanup:
	free(ids);
	return result;
}

/* trimMemory(): whether any page of the allocator went back to the kernel */
static napi_value trim_memory(napi_env env, napi_callback_info info)
{
	napi_value values[MAX_ARGUMENTS], result;

	if (!arguments(env, info, 0, values))
		return NULL;
	if (napi_get_boolean(env, malloc_trim(0) == 1, &result))
		return broken(env);
	return result;
}

NAPI_MODULE_INIT()
{
	const napi_property_descriptor functions[] = {
#define FUNCTION(name, call) { name, NULL, call, NULL, NULL, NULL, napi_enumerable, NULL }
		FUNCTION("probe", probe),
		FUNCTION("load", load),
		FUNCTION("close", close_handle),
		FUNCTION("pinProgram", pin_program_call),
		FUNCTION("attach", attach),
		FUNCTION("replace", replace),
		FUNCTION("detach", detach),
		FUNCTION("linkInfo", link_info),
		FUNCTION("programInfo", program_info),
		FUNCTION("openMap", open_map),
		FUNCTION("mapInfo", map_info),
		FUNCTION("mapGet", map_get),
		FUNCTION("mapSet", map_set),
		FUNCTION("mapDelete", map_delete),
		FUNCTION("mapKeys", map_keys),
		FUNCTION("lookupCaller", lookup_caller),
		FUNCTION("cutFlows", cut_flows_call),
		FUNCTION("socketCgroups", socket_cgroups_call),
		FUNCTION("cutSockets", cut_sockets_call),
		FUNCTION("trimMemory", trim_memory),
#undef FUNCTION
	};

	keep_library_quiet();
	if (napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions))
		return broken(env);
	return exports;
}
