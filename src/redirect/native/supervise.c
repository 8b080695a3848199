/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   nmi-supervise PROGRAM [ARGUMENT ...]
 *
 * Runs a program and starts it again when it fails. Without the agent no pod is answered, without the process that
 * keeps the redirect no new caller is attested, and the kubelet starts a container that failed again only after its
 * back-off, 10 s to 5 min; a reboot of the node counts as a failure.
 *
 * SIGTERM and SIGINT are passed on, and end it with the program. At the fifth failure within ten minutes the
 * container ends, so that Kubernetes counts and shows it. The status is the program's, or 128 and its signal.
 * Small on purpose, and without Node: it costs 0.2 MB and no start time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_FAILURES 5
/* A test builds it with less. */
#ifndef WINDOW_MS
#define WINDOW_MS (10 * 60 * 1000)
#endif
/* Doubled at each failure within the window: five starts in about two seconds. */
#define FIRST_PAUSE_MS 100
/* Of nmi, src/cli/io.ts: another start of the same command line cannot be better. */
#define WRONG_USAGE 2
#define WRONG_CONFIG 78
#define CANNOT_START 127

static sigset_t handled;

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* One line in the format of the agent's log. */
static void report(const char *problem, int status)
{
	char time_text[32];
	time_t now = time(NULL);

	strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S.000Z", gmtime(&now));
	dprintf(STDOUT_FILENO,
		"{\"level\":\"error\",\"time\":\"%s\",\"component\":\"supervisor\",\"status\":%d,\"msg\":\"%s\"}\n",
		time_text, status, problem);
}

static pid_t start(char **command)
{
	pid_t parent = getpid(), child = fork();

	if (child)
		return child;
	/* Without its supervisor nothing would stop it in order. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(CANNOT_START);
	sigprocmask(SIG_UNBLOCK, &handled, NULL);
	execvp(command[0], command);
	dprintf(STDERR_FILENO, "nmi-supervise: %s: %s\n", command[0], strerror(errno));
	_exit(CANNOT_START);
}

/* Waits for the end of the child. As process 1 of a container it also collects processes without a parent. */
static int await(pid_t child, int *is_stopping)
{
	int status, signal;
	pid_t ended;

	for (;;) {
		signal = sigwaitinfo(&handled, NULL);
		if (signal == SIGTERM || signal == SIGINT) {
			*is_stopping = 1;
			kill(child, signal);
		}
		while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
			if (ended == child)
				return WIFSIGNALED(status) ? 128 + WTERMSIG(status) :
							     WEXITSTATUS(status);
		}
	}
}

/* Whether it is to stop meanwhile. */
static int pause_for(long long pause_ms)
{
	struct timespec left;
	long long until = now_ms() + pause_ms, left_ms;
	int signal;

	while ((left_ms = until - now_ms()) > 0) {
		left.tv_sec = left_ms / 1000;
		left.tv_nsec = left_ms % 1000 * 1000000;
		signal = sigtimedwait(&handled, NULL, &left);
		if (signal == SIGTERM || signal == SIGINT)
			return 1;
	}
	return 0;
}

/* Of the latest failures, how many are within the window. */
static int count_failure(void)
{
	static long long at_ms[MAX_FAILURES];
	static int next;
	long long now = now_ms();
	int count = 0, each;

	at_ms[next] = now;
	next = (next + 1) % MAX_FAILURES;
	for (each = 0; each < MAX_FAILURES; each++)
		count += at_ms[each] > 0 && now - at_ms[each] < WINDOW_MS;
	return count;
}

static int is_final(int status)
{
	return status == 0 || status == WRONG_USAGE || status == WRONG_CONFIG || status == CANNOT_START;
}

int main(int argc, char **argv)
{
	int failures, is_stopping = 0, status;
	pid_t child;

	if (argc < 2) {
		dprintf(STDERR_FILENO, "usage: nmi-supervise PROGRAM [ARGUMENT ...]\n");
		return 2;
	}
	sigemptyset(&handled);
	sigaddset(&handled, SIGCHLD);
	sigaddset(&handled, SIGTERM);
	sigaddset(&handled, SIGINT);
	sigprocmask(SIG_BLOCK, &handled, NULL);
	for (;;) {
		child = start(argv + 1);
		status = child < 0 ? CANNOT_START : await(child, &is_stopping);
		if (is_stopping || is_final(status))
			return status;
		failures = count_failure();
		if (failures >= MAX_FAILURES) {
			report("the process failed five times in ten minutes, this container ends", status);
			return status;
		}
		report("the process failed, it is started again", status);
		if (pause_for((long long)FIRST_PAUSE_MS << (failures - 1)))
			return 128 + SIGTERM;
	}
}
