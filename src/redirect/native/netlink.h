/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink by hand: requests, answers, attributes. */
#ifndef NMI_NETLINK_H
#define NMI_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/netlink.h>
#include "fault.h"

struct channel {
	int descriptor;
	char *buffer;
};

/* What a message starts with, in room for the longest of ours. */
struct request {
	struct nlmsghdr header;
	char body[4096];
};

/* Items that a dump told of; `all` is for the owner to free. Beyond MAX_KEPT no more are kept. */
struct kept {
	size_t size, count, room;
	void *all;
};

#define MAX_KEPT 65536

/* Copies one item: 0, or -ENOMEM. */
int keep(struct kept *kept, const void *item);

/* Nonzero, a negative errno, ends the reading. */
typedef int message_reader(const struct nlmsghdr *message, void *context);

int open_channel(struct channel *channel, int protocol, struct fault *fault);
void close_channel(struct channel *channel);

/* The fixed part after the header is zeroed, and returned for the caller to fill. */
void *start_request(struct request *request, int type, int flags, size_t fixed_size);
struct nlattr *put(struct request *request, int type, const void *value, size_t size);
void end_nest(struct request *request, struct nlattr *nest);

/* Sends, and reads the whole answer: 0, or the negative errno of the kernel or of the reader. */
int ask(struct channel *channel, const struct request *request, message_reader *reader,
	void *context);

/* The part of a message after its fixed part; NULL when it is too short for that. */
const void *attributes_of(const struct nlmsghdr *message, size_t fixed_size, const void **end);
const struct nlattr *next_attribute(const void **at, const void *end);
int type_of(const struct nlattr *attribute);
const void *payload_of(const struct nlattr *attribute, const void **end);
bool read_attribute(const struct nlattr *attribute, void *value, size_t size);

#endif
