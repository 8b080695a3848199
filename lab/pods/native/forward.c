/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy as a service mesh puts it into a pod: takes the connections that netfilter redirects to
 * its port, and connects to their original destinations.
 *
 *   forward PORT [NETNS MARK]
 *
 * With NETNS, a file, its sockets are of that network namespace while the process stays in its own,
 * as those of Istio's ztunnel; its connections carry MARK, by which netfilter lets them pass.
 * Prints "ready" when it listens.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter_ipv4.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int own_netns, other_netns = -1;
static int mark;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* A socket stays in the namespace that it was made in. */
static int make_socket(void)
{
	int made;

	if (other_netns >= 0 && setns(other_netns, CLONE_NEWNET))
		fail("forward: setns");
	made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (made < 0)
		fail("forward: socket");
	if (other_netns >= 0 && setns(own_netns, CLONE_NEWNET))
		fail("forward: setns back");
	return made;
}

/* False at the end of the stream. */
static bool copy(int from, int to)
{
	char bytes[16384];
	ssize_t left = read(from, bytes, sizeof(bytes));

	if (left <= 0)
		return false;
	for (ssize_t done = 0; left > 0;) {
		ssize_t sent = write(to, bytes + done, left);

		if (sent <= 0)
			return false;
		done += sent;
		left -= sent;
	}
	return true;
}

static void relay(int one, int other)
{
	struct pollfd ends[2] = {
		{ .fd = one, .events = POLLIN },
		{ .fd = other, .events = POLLIN },
	};
	int fds[2] = { one, other };

	while ((ends[0].fd >= 0 || ends[1].fd >= 0) && poll(ends, 2, -1) > 0) {
		for (int side = 0; side < 2; side++) {
			if (ends[side].fd < 0 || !ends[side].revents)
				continue;
			if (copy(fds[side], fds[!side]))
				continue;
			ends[side].fd = -1;
			shutdown(fds[!side], SHUT_WR);
		}
	}
}

static void serve(int client)
{
	struct sockaddr_in destination;
	socklen_t length = sizeof(destination);
	int onward;

	if (getsockopt(client, SOL_IP, SO_ORIGINAL_DST, &destination, &length))
		fail("forward: SO_ORIGINAL_DST");
	onward = make_socket();
	if (mark && setsockopt(onward, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		fail("forward: SO_MARK");
	if (connect(onward, (struct sockaddr *)&destination, sizeof(destination)))
		fail("forward: connect");
	relay(client, onward);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	int listener, yes = 1;

	if (argc != 2 && argc != 4) {
		fprintf(stderr, "forward: PORT [NETNS MARK]\n");
		return 2;
	}
	at.sin_port = htons(strtoul(argv[1], NULL, 10));
	own_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (argc == 4) {
		other_netns = open(argv[2], O_RDONLY | O_CLOEXEC);
		if (other_netns < 0)
			fail("forward: NETNS");
		mark = strtol(argv[3], NULL, 0);
	}
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	listener = make_socket();
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 1024))
		fail("forward: listen");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int client = accept(listener, NULL, NULL);

		if (client < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			fail("forward: accept");
		}
		if (fork() == 0) {
			close(listener);
			serve(client);
			exit(0);
		}
		close(client);
	}
}
