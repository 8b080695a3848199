/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw frames: attacks that a process with NET_RAW can make, for the lab's tests of the agent. It is a
 * separate addon, so that the product has no raw socket.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 9
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <node_api.h>

/* Timeout of a read without frames. */
#define FRAME_PATIENCE_S 3

/* A descriptor, or -1 with errno. */
static int open_frames(const char *interface)
{
	struct timeval patience = { .tv_sec = FRAME_PATIENCE_S };
	struct sockaddr_ll end = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) };
	int sock, error;

	end.sll_ifindex = if_nametoindex(interface);
	if (!end.sll_ifindex)
		return -1;
	/* Without a protocol it receives nothing until bound, so no frame of another interface. */
	sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -1;
	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    bind(sock, (struct sockaddr *)&end, sizeof(end))) {
		error = errno;
		close(sock);
		errno = error;
		return -1;
	}
	return sock;
}

static bool interface_argument(napi_env env, napi_callback_info info, char *text, size_t size)
{
	size_t count = 1, length = 0;
	napi_value value;

	if (napi_get_cb_info(env, info, &count, &value, NULL, NULL) == napi_ok && count == 1 &&
	    napi_get_value_string_utf8(env, value, NULL, 0, &length) == napi_ok && length > 0 &&
	    length < size && napi_get_value_string_utf8(env, value, text, size, &length) == napi_ok &&
	    strlen(text) == length)
		return true;
	napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "the name of an interface is wanted");
	return false;
}

/* openFrames(interface): a descriptor; the caller closes it */
static napi_value open_frames_call(napi_env env, napi_callback_info info)
{
	char interface[IF_NAMESIZE];
	napi_value result;
	int frames;

	if (!interface_argument(env, info, interface, sizeof(interface)))
		return NULL;
	frames = open_frames(interface);
	if (frames < 0) {
		napi_throw_error(env, strerrorname_np(errno), strerror(errno));
		return NULL;
	}
	if (napi_create_int32(env, frames, &result) != napi_ok) {
		close(frames);
		return NULL;
	}
	return result;
}

NAPI_MODULE_INIT()
{
	napi_value call;

	if (napi_create_function(env, "openFrames", NAPI_AUTO_LENGTH, open_frames_call, NULL, &call) ||
	    napi_set_named_property(env, exports, "openFrames", call))
		return NULL;
	return exports;
}
