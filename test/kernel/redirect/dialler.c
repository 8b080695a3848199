/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dials in ways that no client library of Node can, sends one line, prints one line:
 *
 *   dialler tcp4|tcp6|mptcp4|mptcp6|fastopen4|fastopen6|udp4 ADDRESS PORT
 *     "local=PORT answer=LINE" or "error=NAME"
 *   dialler forge INTERFACE SOURCE SOURCE_PORT GATEWAY_MAC ADDRESS PORT
 *     opens a connection by hand-crafted frames from an address that no host here has: "answer=LINE"
 *   dialler fill plain|lo|late ADDRESS PORT COUNT CGROUP...
 *     dials COUNT times from each of these cgroups, waits for no answer, and keeps all sockets
 *     until its input ends: "made=COUNT refused=COUNT other=COUNT". "lo" binds to the loopback
 *     link, from which no packet arrives; "late" sends the first packet of every socket after the
 *     last one is dialled.
 *   dialler bind tcp|mptcp ADDRESS PORT
 *     listens there until its input ends, answers each connection with "taken": "listening" or
 *     "error=NAME"
 *   dialler twins SOURCE SOURCE_PORT ADDRESS PORT LINK LINK
 *     dials twice with the same addresses and ports, from sockets bound to these two links, and
 *     keeps both until its input ends: "dialled" or "error=NAME"
 *   dialler namespace
 *     prints the cookie of its network namespace; 0 where the kernel does not report it
 *
 * IPv6 kinds dial the IPv4-mapped form of the address.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE 34
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#define REQUEST "hello\n"
#define MAX_DIALLED 4096

static int give_up(void)
{
	printf("error=%s\n", strerrorname_np(errno));
	return 0;
}

static socklen_t make_address(int family, const char *ip, int port, struct sockaddr_storage *address)
{
	char mapped[64];

	memset(address, 0, sizeof(*address));
	address->ss_family = family;
	if (family == AF_INET) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)address;

		v4->sin_port = htons(port);
		inet_pton(AF_INET, ip, &v4->sin_addr);
		return sizeof(*v4);
	}
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

	snprintf(mapped, sizeof(mapped), "::ffff:%s", ip);
	v6->sin6_port = htons(port);
	inet_pton(AF_INET6, mapped, &v6->sin6_addr);
	return sizeof(*v6);
}

static int port_of(const struct sockaddr_storage *address)
{
	return ntohs(address->ss_family == AF_INET ? ((struct sockaddr_in *)address)->sin_port :
						     ((struct sockaddr_in6 *)address)->sin6_port);
}

static int dial(const char *kind, const char *ip, int port)
{
	int family = strchr(kind, '6') ? AF_INET6 : AF_INET;
	int is_udp = !strncmp(kind, "udp", 3), is_fast = !strncmp(kind, "fastopen", 8);
	int protocol = !strncmp(kind, "mptcp", 5) ? IPPROTO_MPTCP : 0;
	int sock = socket(family, is_udp ? SOCK_DGRAM : SOCK_STREAM, protocol);
	struct sockaddr_storage address;
	socklen_t length = make_address(family, ip, port, &address);
	struct timeval patience = { .tv_sec = 3 };
	char answer[256] = "";
	ssize_t received;
	int local;

	if (sock < 0)
		return give_up();
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (is_fast) {
		if (sendto(sock, REQUEST, strlen(REQUEST), MSG_FASTOPEN, (struct sockaddr *)&address,
			   length) < 0)
			return give_up();
	} else {
		if (connect(sock, (struct sockaddr *)&address, length))
			return give_up();
		if (send(sock, REQUEST, strlen(REQUEST), 0) < 0)
			return give_up();
	}
	received = recv(sock, answer, sizeof(answer) - 1, 0);
	if (received <= 0)
		return give_up();
	answer[strcspn(answer, "\n")] = '\0';
	length = sizeof(address);
	getsockname(sock, (struct sockaddr *)&address, &length);
	local = port_of(&address);
	printf("local=%d answer=%s\n", local, answer);
	return 0;
}

struct frame {
	struct ether_header ether;
	struct iphdr ip;
	struct tcphdr tcp;
	char data[512];
} __attribute__((packed));

static unsigned short sum(const void *bytes, size_t length, unsigned long total)
{
	const unsigned char *byte = bytes;

	for (; length > 1; length -= 2, byte += 2)
		total += byte[0] << 8 | byte[1];
	if (length)
		total += byte[0] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return total;
}

struct forgery {
	int sock;
	struct sockaddr_ll interface;
	struct frame frame;
	unsigned sequence, acknowledge;
};

static void send_frame(struct forgery *forgery, int flags, const char *data)
{
	struct frame *frame = &forgery->frame;
	size_t length = strlen(data), tcp_length = sizeof(frame->tcp) + length;
	unsigned long total;

	memcpy(frame->data, data, length);
	frame->ip.tot_len = htons(sizeof(frame->ip) + tcp_length);
	frame->ip.check = 0;
	frame->ip.check = htons(~sum(&frame->ip, sizeof(frame->ip), 0));
	frame->tcp.seq = htonl(forgery->sequence);
	frame->tcp.ack_seq = htonl(forgery->acknowledge);
	frame->tcp.syn = !!(flags & TH_SYN);
	frame->tcp.ack = !!(flags & TH_ACK);
	frame->tcp.psh = length > 0;
	frame->tcp.check = 0;
	total = sum(&frame->ip.saddr, 8, IPPROTO_TCP + tcp_length);
	frame->tcp.check = htons(~sum(&frame->tcp, tcp_length, total));
	sendto(forgery->sock, frame, sizeof(frame->ether) + sizeof(frame->ip) + tcp_length, 0,
	       (struct sockaddr *)&forgery->interface, sizeof(forgery->interface));
	forgery->sequence += length + !!(flags & TH_SYN);
}

/* The next frame of the connection that has these flags or carries data; -1 after a while. */
static int receive_frame(struct forgery *forgery, struct frame *in)
{
	struct pollfd ready = { .fd = forgery->sock, .events = POLLIN };

	for (int tries = 0; tries < 200; tries++) {
		int length;

		if (poll(&ready, 1, 3000) <= 0)
			return -1;
		memset(in, 0, sizeof(*in));
		length = recv(forgery->sock, in, sizeof(*in) - 1, 0);
		if (length < (int)(sizeof(in->ether) + sizeof(in->ip) + sizeof(in->tcp)) ||
		    in->ip.protocol != IPPROTO_TCP || in->ip.daddr != forgery->frame.ip.saddr ||
		    in->tcp.dest != forgery->frame.tcp.source)
			continue;
		return ntohs(in->ip.tot_len) - 4 * in->ip.ihl - 4 * in->tcp.doff;
	}
	return -1;
}

static int forge(char **words)
{
	struct forgery forgery = { .sequence = 1000 };
	struct frame *frame = &forgery.frame, in;
	struct ifreq own = {};
	unsigned char *mac = frame->ether.ether_dhost;
	int length;

	forgery.sock = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));
	if (forgery.sock < 0)
		return give_up();
	forgery.interface.sll_family = AF_PACKET;
	forgery.interface.sll_ifindex = if_nametoindex(words[0]);
	strncpy(own.ifr_name, words[0], IFNAMSIZ - 1);
	bind(forgery.sock, (struct sockaddr *)&forgery.interface, sizeof(forgery.interface));
	if (sscanf(words[3], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
		   &mac[4], &mac[5]) != 6)
		return 1;
	frame->ether.ether_type = htons(ETH_P_IP);
	frame->ether.ether_shost[0] = 2;
	frame->ip.version = 4;
	frame->ip.ihl = 5;
	frame->ip.ttl = 64;
	frame->ip.protocol = IPPROTO_TCP;
	inet_pton(AF_INET, words[1], &frame->ip.saddr);
	inet_pton(AF_INET, words[4], &frame->ip.daddr);
	frame->tcp.source = htons(atoi(words[2]));
	frame->tcp.dest = htons(atoi(words[5]));
	frame->tcp.doff = 5;
	frame->tcp.window = htons(65535);
	send_frame(&forgery, TH_SYN, "");
	if (receive_frame(&forgery, &in) < 0 || !in.tcp.syn) {
		printf("error=%s\n", in.tcp.rst ? "ECONNREFUSED" : "ETIMEDOUT");
		return 0;
	}
	forgery.acknowledge = ntohl(in.tcp.seq) + 1;
	send_frame(&forgery, TH_ACK, "");
	send_frame(&forgery, TH_ACK, REQUEST);
	while ((length = receive_frame(&forgery, &in)) == 0 && !in.tcp.rst)
		;
	if (length <= 0) {
		printf("error=%s\n", in.tcp.rst ? "ECONNRESET" : "ETIMEDOUT");
		return 0;
	}
	in.data[strcspn(in.data, "\n")] = '\0';
	printf("answer=%s\n", (char *)&in.tcp + 4 * in.tcp.doff);
	return 0;
}

static void wait_for_end(void)
{
	char byte;

	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
}

static int enter(const char *cgroup)
{
	char path[1024];
	int file;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	file = open(path, O_WRONLY);
	if (file < 0 || write(file, "0", 1) != 1)
		return -1;
	close(file);
	return 0;
}

struct filled {
	int made, refused, other;
};

/* In a separate process: one process may not have as many sockets as all cgroups together. */
static struct filled fill_from(int at, const char *kind, const char *ip, int port, int each)
{
	static int dialled[MAX_DIALLED];
	struct sockaddr_in own = { .sin_family = AF_INET };
	struct sockaddr_storage address;
	socklen_t length = make_address(AF_INET, ip, port, &address);
	struct filled filled = {};
	int on = 1;

	/* An own address for each cgroup: a pair of addresses has only 28,000 ports. */
	own.sin_addr.s_addr = htonl(0x7f000100 + at);
	while (each-- > 0 && filled.made < MAX_DIALLED) {
		int sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		if (!strcmp(kind, "lo")) {
			setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
			setsockopt(sock, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
			bind(sock, (struct sockaddr *)&own, sizeof(own));
		} else if (!strcmp(kind, "late")) {
			setsockopt(sock, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
			setsockopt(sock, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &on, sizeof(on));
		}
		if (!connect(sock, (struct sockaddr *)&address, length) || errno == EINPROGRESS) {
			dialled[filled.made++] = sock;
			continue;
		}
		if (errno == EPERM)
			filled.refused++;
		else
			filled.other++;
		close(sock);
	}
	if (!strcmp(kind, "late")) {
		for (int made = 0; made < filled.made; made++)
			send(dialled[made], REQUEST, strlen(REQUEST), MSG_NOSIGNAL);
	}
	return filled;
}

static int fill(char **words, char **cgroups, int count)
{
	struct filled all = {}, filled;
	int pipes[2];

	if (pipe(pipes))
		return give_up();
	for (int at = 0; at < count; at++) {
		if (!fork()) {
			memset(&filled, 0, sizeof(filled));
			if (!enter(cgroups[at]))
				filled = fill_from(at, words[0], words[1], atoi(words[2]), atoi(words[3]));
			if (write(pipes[1], &filled, sizeof(filled)) == sizeof(filled))
				wait_for_end();
			_exit(0);
		}
		if (read(pipes[0], &filled, sizeof(filled)) != sizeof(filled))
			return give_up();
		all.made += filled.made;
		all.refused += filled.refused;
		all.other += filled.other;
	}
	printf("made=%d refused=%d other=%d\n", all.made, all.refused, all.other);
	wait_for_end();
	while (wait(NULL) > 0)
		;
	return 0;
}

static int serve(const char *kind, const char *ip, int port)
{
	int family = strchr(ip, ':') ? AF_INET6 : AF_INET, on = 1;
	int sock = socket(family, SOCK_STREAM, strcmp(kind, "mptcp") ? 0 : IPPROTO_MPTCP);
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct pollfd ready[2] = { { .fd = sock, .events = POLLIN }, { .events = POLLIN } };
	int result;

	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	inet_pton(AF_INET, ip, &v4.sin_addr);
	inet_pton(AF_INET6, ip, &v6.sin6_addr);
	/* The IPv6 socket here must accept IPv4. */
	if (family == AF_INET6)
		setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 0 }, sizeof(int));
	result = family == AF_INET ? bind(sock, (struct sockaddr *)&v4, sizeof(v4)) :
				     bind(sock, (struct sockaddr *)&v6, sizeof(v6));
	if (result || listen(sock, 16))
		return give_up();
	printf("listening\n");
	fflush(stdout);
	while (poll(ready, 2, -1) > 0 && !ready[1].revents) {
		int connection = accept(sock, NULL, NULL);

		if (connection < 0)
			continue;
		send(connection, "taken\n", 6, MSG_NOSIGNAL);
		close(connection);
	}
	return 0;
}

static int dial_twins(char **words)
{
	struct sockaddr_storage from, to;
	socklen_t length = make_address(AF_INET, words[0], atoi(words[1]), &from);
	int on = 1;

	make_address(AF_INET, words[2], atoi(words[3]), &to);
	for (int at = 4; at < 6; at++) {
		int sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, words[at], strlen(words[at]));
		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(sock, (struct sockaddr *)&from, length))
			return give_up();
		if (connect(sock, (struct sockaddr *)&to, length) && errno != EINPROGRESS)
			return give_up();
	}
	printf("dialled\n");
	wait_for_end();
	return 0;
}

static int show_namespace(void)
{
	int sock = socket(AF_INET, SOCK_STREAM, 0);
	unsigned long long cookie = 0;
	socklen_t length = sizeof(cookie);

	getsockopt(sock, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length);
	printf("%llu\n", cookie);
	return 0;
}

int main(int count, char **words)
{
	if (count > 6 && !strcmp(words[1], "fill"))
		return fill(words + 2, words + 6, count - 6);
	if (count == 5 && !strcmp(words[1], "bind"))
		return serve(words[2], words[3], atoi(words[4]));
	if (count == 8 && !strcmp(words[1], "twins"))
		return dial_twins(words + 2);
	if (count == 2 && !strcmp(words[1], "namespace"))
		return show_namespace();
	if (count == 8 && !strcmp(words[1], "forge"))
		return forge(words + 2);
	if (count != 4)
		return 2;
	return dial(words[1], words[2], atoi(words[3]));
}
