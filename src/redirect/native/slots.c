/* SPDX-License-Identifier: Apache-2.0 */
/* What two agents of one node know of each other: a locked file, and whether a port is listened on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <stdio.h>
#include <netinet/in.h>
#include "system.h"

/* TCP_LISTEN in linux/tcp_states.h. */
#define LISTENING 10

/*
 * A lock of the open file and not of the process: closing another descriptor of the file does not release it, and
 * it can be read without taking it. The kernel releases it when its holder ends, however that is.
 */
static const struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

static int open_lock(const char *path, struct fault *fault)
{
	int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return file < 0 ? fail(fault, "open lock", errno) : file;
}

int take_lock(const char *path, int *descriptor, struct fault *fault)
{
	struct flock lock = whole;
	int error, file = open_lock(path, fault);

	*descriptor = -1;
	if (file < 0)
		return -1;
	if (fcntl(file, F_OFD_SETLK, &lock)) {
		error = errno;
		close(file);
		return error == EAGAIN || error == EACCES ? 0 : fail(fault, "lock", error);
	}
	*descriptor = file;
	return 0;
}

int is_locked(const char *path, bool *locked, struct fault *fault)
{
	struct flock lock = whole;
	int error, file = open_lock(path, fault);

	if (file < 0)
		return -1;
	error = fcntl(file, F_OFD_GETLK, &lock) ? errno : 0;
	close(file);
	if (error)
		return fail(fault, "read lock", error);
	*locked = lock.l_type != F_UNLCK;
	return 0;
}

/*
 * Reads the kernel's list, which has the sockets that listen first. Binding would tell, too, but programs of an agent
 * that does not know this one refuse that.
 */
int is_listened_on(__be32 ip, __be16 port, bool *listened, struct fault *fault)
{
	unsigned int number, at_port, state;
	__be32 at;
	FILE *list = fopen("/proc/net/tcp", "re");
	char line[256];

	if (!list)
		return fail(fault, "list sockets", errno);
	*listened = false;
	while (!*listened && fgets(line, sizeof(line), list)) {
		if (sscanf(line, " %u: %8X:%4X %*8X:%*4X %2X", &number, &at, &at_port, &state) != 4)
			continue;
		if (state != LISTENING)
			break;
		*listened = at_port == ntohs(port) && (at == ip || at == INADDR_ANY);
	}
	fclose(list);
	return 0;
}
