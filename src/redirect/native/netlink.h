/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink without a library: requests, answers, attributes. */
#ifndef NMI_NETLINK_H
#define NMI_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/netlink.h>
#include "system.h"

#define RECEIVE_BYTES (64 * 1024)

struct channel {
	int descriptor;
	_Alignas(struct nlmsghdr) char buffer[RECEIVE_BYTES];
};

/* A request with space for the longest one in use. */
struct request {
	struct nlmsghdr header;
	char body[4096];
};

/* Items of a dump, at most MAX_KEPT; the owner frees `all`. */
struct kept {
	size_t size, count, room;
	void *all;
};

#define MAX_KEPT 65536

/* Copies one item. Returns 0 or -ENOMEM. */
int keep(struct kept *kept, const void *item);

/* A negative errno ends the reading. */
typedef int message_reader(const struct nlmsghdr *message, void *context);

int open_channel(struct channel *channel, int protocol, struct fault *fault);
void close_channel(const struct channel *channel);

/* Zeroes the fixed part after the header, and returns it for the caller to fill. */
void *start_request(struct request *request, int type, int flags, size_t fixed_size);
void put(struct request *request, int type, const void *value, size_t size);

/* Sends a request and reads the whole answer. Returns 0, or a negative errno of kernel or reader. */
int ask(struct channel *channel, const struct request *request, message_reader *reader,
	void *context);

/* A part of a message; `at` is NULL for none. */
struct part {
	const void *at, *end;
};

/* The attributes of a message, after its fixed part; none if the message is too short. */
struct part attributes_of(const struct nlmsghdr *message, size_t fixed_size);
/* The payload of the first attribute of that type, which may be attributes again. */
struct part find_attribute(struct part attributes, int type);
size_t size_of(struct part part);
/* Copies the beginning of a payload; false if it is shorter. */
bool read_part(struct part payload, void *value, size_t size);

#endif
