/* The sandbox's process: keeps the pod's namespaces and reaps its orphans. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int sig)
{
	(void)sig;
	_exit(0);
}

static void reap(int sig)
{
	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	struct sigaction act = { .sa_handler = reap, .sa_flags = SA_NOCLDSTOP | SA_RESTART };

	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	sigaction(SIGCHLD, &act, NULL);
	for (;;)
		pause();
}
