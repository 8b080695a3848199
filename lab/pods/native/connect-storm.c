/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile process in a pod: connects as fast as it can, sends nothing, resets each connection, at once or
 * after HOLD milliseconds, and gives up one that takes longer than PATIENCE_MS.
 *
 *   connect-storm ADDRESS PORT OPEN MILLISECONDS [HOLD]
 *
 * OPEN sockets at once. Prints how many connects it tried and how many of them were made.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_OPEN 16384
#define PATIENCE_MS 10

static struct sockaddr_in to = { .sin_family = AF_INET };
static struct pollfd slots[MAX_OPEN];
static long dialled_at[MAX_OPEN];
static long made_at[MAX_OPEN];
static long tried, made;

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void dial(int at)
{
	struct pollfd *slot = &slots[at];
	struct linger reset = { .l_onoff = 1 };

	slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	slot->events = POLLOUT;
	setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	tried++;
	made_at[at] = 0;
	dialled_at[at] = now_ms();
	if (!connect(slot->fd, (struct sockaddr *)&to, sizeof(to)) || errno == EINPROGRESS)
		return;
	close(slot->fd);
	slot->fd = -1;
}

int main(int argc, char **argv)
{
	struct rlimit files = { MAX_OPEN + 64, MAX_OPEN + 64 };
	int open = argc >= 5 ? atoi(argv[3]) : 0;
	long end = now_ms() + (argc >= 5 ? atol(argv[4]) : 0);
	long now, hold = argc == 6 ? atol(argv[5]) : 0;

	if (open < 1 || open > MAX_OPEN || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
		fprintf(stderr, "connect-storm: ADDRESS PORT OPEN MILLISECONDS [HOLD]\n");
		return 2;
	}
	setrlimit(RLIMIT_NOFILE, &files);
	to.sin_port = htons(atoi(argv[2]));
	for (int at = 0; at < open; at++)
		slots[at].fd = -1;
	while (now_ms() < end) {
		for (int at = 0; at < open; at++)
			if (slots[at].fd < 0)
				dial(at);
		poll(slots, open, 1);
		now = now_ms();
		for (int at = 0; at < open; at++) {
			if (slots[at].fd < 0)
				continue;
			if (made_at[at] ? !slots[at].revents && now - made_at[at] < hold :
					  !slots[at].revents && now - dialled_at[at] < PATIENCE_MS)
				continue;
			if (!made_at[at] && slots[at].revents == POLLOUT) {
				made++;
				made_at[at] = now;
				slots[at].events = POLLIN;
				if (hold)
					continue;
			}
			close(slots[at].fd);
			slots[at].fd = -1;
		}
	}
	printf("tried=%ld made=%ld\n", tried, made);
	return 0;
}
