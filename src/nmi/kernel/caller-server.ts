/**
 * Looks callers up for an agent that cannot read the map itself: the default seccomp profile of container
 * runtimes forbids bpf(2) to a container without CAP_BPF. Every process that can reach the socket's
 * folder may send requests; in the manifests that is only the other container of the pod. An answer
 * contains the cgroup that opened a connection. The only change that a request makes is which pods on the
 * host network are not redirected: the programs ignore it for every other pod.
 */
import { createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Attestation } from '../../redirect/redirect.ts';
import { listenForAgent } from './local-socket.ts';
import {
  FrameReader,
  answerBytes,
  readRequest,
  requestBytes,
  writeAnswer,
  type Answer,
  type RedirectReport,
  type Request,
} from './caller-frames.ts';

export interface CallerServerOptions {
  /** Path of the socket. Its folder is created if absent, but not the folders above it. */
  readonly path: string;
  readonly report: () => RedirectReport;
  readonly lookUp: (ip: string, port: number) => Attestation;
  readonly letThrough: (cgroupIds: readonly bigint[]) => void;
}

/** As many as the map of the programs has. */
const maxLetThrough = 1_024;

/** The agent, its successor during an update, and verbs run by an administrator. */
const maxClients = 8;
const pollMs = 50;
/** Limit for a client that does not read its answers. */
const maxUnreadBytes = 256 * 1024;

export interface CallerServer extends AsyncDisposable {
  /** Resolves when no client is connected, or after `maxMs`. */
  untilUnused(maxMs: number): Promise<void>;
}

/** @throws StartError if the server cannot listen at the path. */
export async function openCallerServer(options: CallerServerOptions): Promise<CallerServer> {
  const clients = new Set<Socket>();
  const server = createServer((socket) => {
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    serve(socket, options);
  });
  server.maxConnections = maxClients;
  await listenForAgent(server, options.path, 'look-ups of callers');
  return {
    untilUnused: async (maxMs) => {
      const deadlineMs = performance.now() + maxMs;
      while (clients.size > 0 && performance.now() < deadlineMs) await delay(pollMs);
    },
    [Symbol.asyncDispose]: () => {
      const closed = server[Symbol.asyncDispose]();
      for (const socket of clients) socket.destroy();
      return closed;
    },
  };
}

function serve(socket: Socket, options: CallerServerOptions): void {
  const frames = new FrameReader(requestBytes);
  const nodePods: bigint[] = [];
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    const requests = frames.take(chunk);
    const count = requests.length / requestBytes;
    const answers = Buffer.alloc(count * answerBytes);
    for (let index = 0; index < count; index++) {
      const request = readRequest(requests, index * requestBytes);
      if (request === undefined || nodePods.length > maxLetThrough) {
        socket.destroy();
        return;
      }
      writeAnswer(answerTo(request, nodePods, options), answers, index * answerBytes);
    }
    socket.write(answers);
    if (socket.writableLength > maxUnreadBytes) socket.destroy();
  });
}

/** @param nodePods collects the cgroups of one `let-through`. */
function answerTo(request: Request, nodePods: bigint[], options: CallerServerOptions): Answer {
  switch (request.kind) {
    case 'status':
      return { kind: 'status', report: options.report() };
    case 'look-up':
      return { kind: 'look-up', found: options.lookUp(request.ip, request.port) };
    case 'let-through':
      if (request.cgroupId !== 0n) nodePods.push(request.cgroupId);
      if (!request.hasMore) options.letThrough(nodePods.splice(0));
      return { kind: 'let-through' };
  }
}
