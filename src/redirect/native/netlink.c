/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "netlink.h"

#define WAIT_SEC 10

int keep(struct kept *kept, const void *item)
{
	if (kept->count == kept->room) {
		size_t room = kept->room ? 2 * kept->room : 64;
		void *all;

		if (room > MAX_KEPT)
			return 0;
		all = realloc(kept->all, room * kept->size);
		if (!all)
			return -ENOMEM;
		kept->all = all;
		kept->room = room;
	}
	memcpy((char *)kept->all + kept->count++ * kept->size, item, kept->size);
	return 0;
}

int open_channel(struct channel *channel, int protocol, struct fault *fault)
{
	struct timeval patience = { .tv_sec = WAIT_SEC };
	int error;

	channel->descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (channel->descriptor < 0)
		return fail(fault, "open netlink", errno);
	if (setsockopt(channel->descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience))) {
		error = errno;
		close_channel(channel);
		return fail(fault, "open netlink", error);
	}
	return 0;
}

void close_channel(const struct channel *channel)
{
	close(channel->descriptor);
}

void *start_request(struct request *request, int type, int flags, size_t fixed_size)
{
	memset(request, 0, sizeof(*request));
	request->header.nlmsg_len = NLMSG_LENGTH(fixed_size);
	request->header.nlmsg_type = type;
	request->header.nlmsg_flags = NLM_F_REQUEST | flags;
	return NLMSG_DATA(&request->header);
}

void put(struct request *request, int type, const void *value, size_t size)
{
	size_t at = NLMSG_ALIGN(request->header.nlmsg_len);
	struct nlattr *attribute = (struct nlattr *)((char *)request + at);

	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + size;
	memcpy((char *)attribute + NLA_HDRLEN, value, size);
	request->header.nlmsg_len = at + NLA_ALIGN(attribute->nla_len);
}

static int send_request(const struct channel *channel, const struct request *request)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t sent;

	sent = sendto(channel->descriptor, request, request->header.nlmsg_len, 0,
		      (struct sockaddr *)&kernel, sizeof(kernel));
	return sent < 0 ? -errno : 0;
}

/* Both kinds of a last message begin with an error; that of a dump may be absent. */
static int last_error(const struct nlmsghdr *message)
{
	int error = message->nlmsg_type == NLMSG_DONE ? 0 : -EBADMSG;

	if (message->nlmsg_len >= NLMSG_LENGTH(sizeof(error)))
		memcpy(&error, NLMSG_DATA(message), sizeof(error));
	return error < 0 ? error : 0;
}

/* NLMSG_OK without its comparison of a signed and an unsigned number, which clang warns about. */
static bool holds_message(const struct nlmsghdr *message, int left)
{
	return left >= (int)sizeof(*message) && message->nlmsg_len >= sizeof(*message) &&
	       message->nlmsg_len <= (unsigned int)left;
}

int ask(struct channel *channel, const struct request *request, message_reader *reader,
	void *context)
{
	int error = send_request(channel, request);

	if (error)
		return error;
	for (;;) {
		struct sockaddr_nl from = {};
		socklen_t from_size = sizeof(from);
		ssize_t received = recvfrom(channel->descriptor, channel->buffer, RECEIVE_BYTES, 0,
					    (struct sockaddr *)&from, &from_size);
		const struct nlmsghdr *message = (const struct nlmsghdr *)channel->buffer;
		/* Signed: the aligned length of an unaligned last message may exceed the remaining bytes. */
		int left = (int)received;

		if (received < 0) {
			if (errno == EINTR)
				continue;
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		}
		/* Only the kernel's answers count; any process with CAP_NET_ADMIN can send a message. */
		if (from.nl_pid != 0)
			continue;
		for (; holds_message(message, left); message = NLMSG_NEXT(message, left)) {
			int result;

			if (message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR)
				return last_error(message);
			result = reader ? reader(message, context) : 0;
			if (result)
				return result;
		}
	}
}

struct part attributes_of(const struct nlmsghdr *message, size_t fixed_size)
{
	if (message->nlmsg_len < NLMSG_LENGTH(fixed_size))
		return (struct part){};
	return (struct part){ (const char *)NLMSG_DATA(message) + NLMSG_ALIGN(fixed_size),
			      (const char *)message + message->nlmsg_len };
}

size_t size_of(struct part part)
{
	return (const char *)part.end - (const char *)part.at;
}

/* An attribute is its length (header included), its type and its payload, aligned. */
struct part find_attribute(struct part attributes, int type)
{
	/* Signed: the aligned end of the last attribute may be behind the end of all. */
	ptrdiff_t left = size_of(attributes);
	const struct nlattr *attribute = attributes.at;

	while (left >= (ptrdiff_t)sizeof(*attribute) && attribute->nla_len >= sizeof(*attribute) &&
	       attribute->nla_len <= left) {
		const char *start = (const char *)attribute;

		if ((attribute->nla_type & NLA_TYPE_MASK) == type)
			return (struct part){ start + NLA_HDRLEN, start + attribute->nla_len };
		left -= NLA_ALIGN(attribute->nla_len);
		attribute = (const void *)(start + NLA_ALIGN(attribute->nla_len));
	}
	return (struct part){};
}

bool read_part(struct part payload, void *value, size_t size)
{
	if (size_of(payload) < size)
		return false;
	memcpy(value, payload.at, size);
	return true;
}
