/**
 * Answers look-ups of callers for an agent that may not read the map itself: bpf(2) is not permitted
 * to a container without CAP_BPF, by the default seccomp profile of container runtimes. Who reaches
 * the folder of the socket may ask; in the manifests that is the other container of the pod. An answer
 * tells which cgroup opened a connection, and nothing can be changed here.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Attestation } from '../../redirect/redirect.ts';
import { listenAt, makeFolder } from './local-socket.ts';
import { networkCode } from '../base/network-code.ts';
import { StartError } from '../base/start-error.ts';
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
  /** Its folder, but none above that, is made when it is not there. */
  readonly path: string;
  readonly report: () => RedirectReport;
  readonly lookUp: (ip: string, port: number) => Attestation;
}

/** The agent, its successor, and a verb that somebody types. */
const maxClients = 8;
/** Of a client that does not read its answers. */
const maxUnreadBytes = 256 * 1024;

/** @throws StartError when nobody can listen there. */
export async function openCallerServer(options: CallerServerOptions): Promise<AsyncDisposable> {
  const { path } = options;
  const clients = new Set<Socket>();
  const server = createServer((socket) => {
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    serve(socket, options);
  });
  server.maxConnections = maxClients;
  const problem = await listen(server, path);
  if (problem !== undefined) {
    throw new StartError('UNAVAILABLE', `no socket for look-ups of callers at ${path}: ${problem}`);
  }
  return {
    [Symbol.asyncDispose]: () => {
      const { promise, resolve } = Promise.withResolvers<undefined>();
      server.close(() => resolve(undefined));
      for (const socket of clients) socket.destroy();
      return promise;
    },
  };
}

/** @returns why nobody listens, or undefined. */
async function listen(server: Server, path: string): Promise<string | undefined> {
  try {
    await makeFolder(dirname(path), 0o755);
    // The other container has another user.
    return await listenAt(server, path, 0o666);
  } catch (error) {
    return networkCode(error);
  }
}

function serve(socket: Socket, options: CallerServerOptions): void {
  const frames = new FrameReader(requestBytes);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    const requests = frames.take(chunk);
    const count = requests.length / requestBytes;
    const answers = Buffer.alloc(count * answerBytes);
    for (let index = 0; index < count; index++) {
      const request = readRequest(requests, index * requestBytes);
      if (request === undefined) {
        socket.destroy();
        return;
      }
      writeAnswer(answerTo(request, options), answers, index * answerBytes);
    }
    if (count > 0) socket.write(answers);
    if (socket.writableLength > maxUnreadBytes) socket.destroy();
  });
}

function answerTo(request: Request, { report, lookUp }: CallerServerOptions): Answer {
  if (request.kind === 'status') return { kind: 'status', report: report() };
  const found = lookUp(request.ip, request.port);
  switch (found.kind) {
    case 'attested':
      return { kind: 'look-up', outcome: 'attested', cgroupId: found.cgroupId };
    case 'unattested':
      return { kind: 'look-up', outcome: 'unattested', cgroupId: 0n };
    // By address nobody is looked up.
    case 'by-address':
    case 'unavailable':
      return { kind: 'look-up', outcome: 'unavailable', cgroupId: 0n };
  }
}
