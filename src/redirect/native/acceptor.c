/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepts connections in a thread of its own, and passes on those that have sent something. A process that
 * connects endlessly fills the queue of a socket that listens as soon as they are accepted more slowly than
 * they come, and then every other client's SYN is dropped. This thread takes some microseconds for each.
 *
 * Silent connections wait here, so many of the node itself and so many of others. A new one always has room:
 * it takes the place of the oldest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "system.h"

#define MAX_SILENT 2048
/* All silent connections take an eighth of the descriptors at most. */
#define FILES_PER_SILENT 16
#define STACK_BYTES (256 * 1024)
#define MAX_EVENTS 128
/* Accepted before those are looked at that have sent something meanwhile. */
#define MAX_ACCEPTS 256
#define CHECK_MS 500
/*
 * The kernel receives so much before Node reads (it doubles the number); most probes and scrapes are smaller. Node
 * reads at once what is there: with 64 KiB of each connection, one pod's connections took 40 MB.
 */
#define RECEIVE_BYTES 4096
/* Without a free descriptor or memory, the connections of the queue wait so long. */
#define PAUSE_NS (10 * 1000 * 1000)

enum origin { OF_NODE, OF_OTHERS, ORIGINS };

/* What an event is about; a silent connection by its place. */
#define OF_LISTENER UINT64_MAX
#define OF_READER (UINT64_MAX - 1)

struct silent {
	int descriptor; /* 0: none */
	long since_ms;
};

struct acceptor {
	int listener, writer, poll;
	/* In bytes of the queue to the reader, as the kernel counts them. */
	int room_of_others;
	long patience_ms;
	size_t room, next[ORIGINS], held;
	struct silent silent[ORIGINS][MAX_SILENT];
};

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int watch(struct acceptor *acceptor, int descriptor, __u32 events, __u64 about)
{
	struct epoll_event event = { .events = events, .data.u64 = about };

	return epoll_ctl(acceptor->poll, EPOLL_CTL_ADD, descriptor, &event);
}

static void release(struct acceptor *acceptor, struct silent *silent)
{
	epoll_ctl(acceptor->poll, EPOLL_CTL_DEL, silent->descriptor, NULL);
	silent->descriptor = 0;
	acceptor->held--;
}

static void drop(struct acceptor *acceptor, struct silent *silent)
{
	int descriptor = silent->descriptor;

	if (!descriptor)
		return;
	release(acceptor, silent);
	close(descriptor);
}

/*
 * Closes it if the reader is far behind. Half of the queue, some 140 connections, is for those of the node: the
 * requests of one pod filled all of it while the reader was busy, and a probe of the kubelet was closed.
 */
static void pass(const struct acceptor *acceptor, int descriptor, enum origin origin)
{
	int queued = 0;

	if (origin == OF_OTHERS && (ioctl(acceptor->writer, SIOCOUTQ, &queued) ||
				    queued >= acceptor->room_of_others))
		close(descriptor);
	else if (send(acceptor->writer, &descriptor, sizeof(descriptor),
		      MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(descriptor))
		close(descriptor);
}

/* Both ends have one address: the client is a process on the node's own network. */
static enum origin origin_of(int descriptor, const struct sockaddr_in6 *from)
{
	struct sockaddr_in6 to = {};
	socklen_t length = sizeof(to);

	if (getsockname(descriptor, (struct sockaddr *)&to, &length) ||
	    to.sin6_family != from->sin6_family)
		return OF_OTHERS;
	if (to.sin6_family == AF_INET)
		return ((struct sockaddr_in *)&to)->sin_addr.s_addr ==
				       ((const struct sockaddr_in *)from)->sin_addr.s_addr ?
			       OF_NODE :
			       OF_OTHERS;
	return memcmp(&to.sin6_addr, &from->sin6_addr, sizeof(to.sin6_addr)) ? OF_OTHERS : OF_NODE;
}

static void hold(struct acceptor *acceptor, int descriptor, enum origin origin)
{
	size_t place = acceptor->next[origin]++ % acceptor->room;
	struct silent *silent = &acceptor->silent[origin][place];

	drop(acceptor, silent);
	if (watch(acceptor, descriptor, EPOLLIN | EPOLLRDHUP, (__u64)origin << 32 | place)) {
		close(descriptor);
		return;
	}
	*silent = (struct silent){ descriptor, now_ms() };
	acceptor->held++;
}

static void accept_some(struct acceptor *acceptor)
{
	for (int count = 0; count < MAX_ACCEPTS; count++) {
		struct sockaddr_in6 from = {};
		socklen_t length = sizeof(from);
		int descriptor = accept4(acceptor->listener, (struct sockaddr *)&from, &length,
					 SOCK_NONBLOCK | SOCK_CLOEXEC);
		ssize_t received;
		char byte;

		if (descriptor < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
			return;
		}
		received = recv(descriptor, &byte, sizeof(byte), MSG_PEEK);
		if (received > 0)
			pass(acceptor, descriptor, origin_of(descriptor, &from));
		else if (received < 0 && errno == EAGAIN)
			hold(acceptor, descriptor, origin_of(descriptor, &from));
		else
			close(descriptor);
	}
}

static void take(struct acceptor *acceptor, __u64 about)
{
	struct silent *silent = &acceptor->silent[about >> 32][(__u32)about];
	int descriptor = silent->descriptor;
	char byte;

	if (recv(descriptor, &byte, sizeof(byte), MSG_PEEK) <= 0) {
		drop(acceptor, silent);
		return;
	}
	release(acceptor, silent);
	pass(acceptor, descriptor, about >> 32);
}

static void drop_older(struct acceptor *acceptor, long limit_ms)
{
	for (int origin = 0; origin < ORIGINS; origin++) {
		for (size_t place = 0; place < acceptor->room; place++) {
			struct silent *silent = &acceptor->silent[origin][place];

			if (silent->since_ms <= limit_ms)
				drop(acceptor, silent);
		}
	}
}

static void *run(void *context)
{
	struct acceptor *acceptor = context;
	struct epoll_event events[MAX_EVENTS];
	long checked_ms = now_ms();
	bool runs = true;

	while (runs) {
		int count = epoll_wait(acceptor->poll, events, MAX_EVENTS,
				       acceptor->held ? CHECK_MS : -1);
		bool has_new = false;

		/* New ones last: they may take the place of one that has sent something. */
		for (int index = 0; index < count; index++) {
			__u64 about = events[index].data.u64;

			if (about == OF_LISTENER)
				has_new = true;
			else if (about == OF_READER)
				runs = false;
			else
				take(acceptor, about);
		}
		if (has_new && runs)
			accept_some(acceptor);
		if (acceptor->held && now_ms() - checked_ms >= CHECK_MS) {
			checked_ms = now_ms();
			drop_older(acceptor, checked_ms - acceptor->patience_ms);
		}
	}
	drop_older(acceptor, now_ms());
	close(acceptor->listener);
	close(acceptor->poll);
	close(acceptor->writer);
	free(acceptor);
	return NULL;
}

static size_t room_of(const struct rlimit *files)
{
	rlim_t room = files->rlim_cur / FILES_PER_SILENT;

	if (room < 1)
		return 1;
	return room < MAX_SILENT ? room : MAX_SILENT;
}

/* Signals are for the threads of Node. */
static int start(struct acceptor *acceptor)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, &attributes, run, acceptor);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return error;
}

int accept_eagerly(int listener, int patience_ms, struct fault *fault)
{
	struct acceptor *acceptor = calloc(1, sizeof(*acceptor));
	struct rlimit files = { .rlim_cur = MAX_SILENT * FILES_PER_SILENT };
	int ends[2] = { -1, -1 }, receive_bytes = RECEIVE_BYTES, queue_bytes, error;
	socklen_t length = sizeof(queue_bytes);

	if (!acceptor)
		return fail(fault, "accept", ENOMEM);
	getrlimit(RLIMIT_NOFILE, &files);
	acceptor->room = room_of(&files);
	acceptor->patience_ms = patience_ms;
	acceptor->poll = epoll_create1(EPOLL_CLOEXEC);
	acceptor->listener = fcntl(listener, F_DUPFD_CLOEXEC, 0);
	/* Connections inherit the size. */
	if (acceptor->poll < 0 || acceptor->listener < 0 ||
	    setsockopt(acceptor->listener, SOL_SOCKET, SO_RCVBUF, &receive_bytes,
		       sizeof(receive_bytes)) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) ||
	    getsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &queue_bytes, &length)) {
		error = errno;
		goto failed;
	}
	acceptor->writer = ends[1];
	acceptor->room_of_others = queue_bytes / 2;
	error = watch(acceptor, acceptor->listener, EPOLLIN, OF_LISTENER) ||
				watch(acceptor, acceptor->writer, EPOLLRDHUP, OF_READER) ?
			errno :
			start(acceptor);
	if (!error)
		return ends[0];
failed:
	for (int end = 0; end < 2; end++)
		if (ends[end] >= 0)
			close(ends[end]);
	if (acceptor->listener >= 0)
		close(acceptor->listener);
	if (acceptor->poll >= 0)
		close(acceptor->poll);
	free(acceptor);
	return fail(fault, "accept", error);
}
