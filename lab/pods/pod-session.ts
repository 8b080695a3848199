/**
 * A pod's HTTP: sends requests exactly as asked and says exactly what came back. node:http sends
 * what it accepts; what it refuses (a space in the target, a bad header) goes onto the socket as it
 * is, and node:http still parses the answer.
 */
import { Agent, request as openRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';

import { OwnTime } from './own-time.ts';
import { runLoad } from './pod-load.ts';
import { runAttack } from './pod-attack.ts';
import type {
  PodAnswer,
  PodAttack,
  PodAttackReport,
  PodLoad,
  PodLoadReport,
  PodRequest,
} from './pod-protocol.ts';

const maxBodyBytes = 4 * 1024 * 1024;

export interface PodSessionOptions {
  /** Where requests without a host or port of their own go. */
  readonly host: string;
  readonly port: number;
  /** Dial from this address; default: the kernel's choice. */
  readonly sourceIp?: string;
}

/** Connections outlive requests here; `dispose` closes them. */
export interface PodSession extends Disposable {
  request(request: PodRequest): Promise<PodAnswer>;
  load(load: PodLoad): Promise<PodLoadReport>;
  attack(attack: PodAttack): Promise<PodAttackReport>;
  closeConnection(name: string): void;
}

export function openPodSession(options: PodSessionOptions): PodSession {
  const agents = new Map<string, Agent>();
  const time = new OwnTime();

  /** An agent of one connection is the named connection, opened again when the server closed it. */
  const agentOf = (connection: string): Agent | false => {
    if (connection === 'new') return false;
    const known = agents.get(connection);
    if (known !== undefined) return known;
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    agents.set(connection, agent);
    return agent;
  };

  const closeConnection = (name: string): void => {
    agents.get(name)?.destroy();
    agents.delete(name);
  };

  const request = async (wanted: PodRequest): Promise<PodAnswer> => {
    const from = wanted.from ?? options.sourceIp;
    const target = {
      host: wanted.host ?? options.host,
      port: wanted.port ?? options.port,
      ...(from === undefined ? {} : { localAddress: from }),
    };
    const headers = completeHeaders(wanted, target.host, target.port);
    return exchange(wanted.timeoutMs, time, () => {
      if (wanted.httpVersion !== '1.0') {
        try {
          return openRequest({
            ...target,
            method: wanted.method,
            path: wanted.target,
            headers,
            setHost: false,
            agent: agentOf(wanted.connection),
          }).end(wanted.body);
        } catch {
          // Refused before anything was sent: the bytes go out by hand.
        }
      }
      return openRawRequest(target, wanted, headers);
    });
  };

  return {
    request,
    load: (load) => runLoad(load, request, closeConnection),
    attack: (attack) => {
      const from = attack.from ?? options.sourceIp;
      return runAttack(attack, {
        host: attack.host ?? options.host,
        port: attack.port ?? options.port,
        ...(from === undefined ? {} : { localAddress: from }),
      });
    },
    closeConnection,
    [Symbol.dispose]: () => {
      time[Symbol.dispose]();
      for (const name of [...agents.keys()]) closeConnection(name);
    },
  };
}

function completeHeaders(wanted: PodRequest, host: string, port: number): readonly string[] {
  const names = new Set(wanted.headers.filter((_, at) => at % 2 === 0).map((n) => n.toLowerCase()));
  const added: string[] = [];
  if (!names.has('host') && wanted.httpVersion !== '1.0') {
    added.push('Host', port === 80 ? host : `${host}:${String(port)}`);
  }
  const framed = names.has('content-length') || names.has('transfer-encoding');
  if (!framed && wanted.body !== undefined) {
    added.push('Content-Length', String(Buffer.byteLength(wanted.body)));
  }
  return [...added, ...wanted.headers];
}

/** Runs one request to its end, its failure or its time limit, whichever is first. */
async function exchange(
  timeoutMs: number,
  time: OwnTime,
  open: () => ClientRequest,
): Promise<PodAnswer> {
  const startMs = performance.now();
  const ownStartMs = time.nowMs();
  const ownMs = (): number => time.nowMs() - ownStartMs;
  const { promise, resolve } = Promise.withResolvers<PodAnswer>();
  const fail = (error: string): void => {
    resolve({ outcome: 'failed', error, durationMs: performance.now() - startMs, ownMs: ownMs() });
  };
  const request = open();
  const cancelTimeout = time.after(timeoutMs, () => {
    fail('TIMEOUT');
    request.destroy();
  });
  request.on('error', (error) => {
    fail(errorCode(error));
  });
  request.once('response', (response) => {
    readBody(response).then(
      (body) => {
        resolve({
          outcome: 'answered',
          status: response.statusCode ?? 0,
          headers: pairUp(response.rawHeaders),
          body,
          durationMs: performance.now() - startMs,
          ownMs: ownMs(),
          reusedConnection: request.reusedSocket,
        });
      },
      (error: unknown) => {
        fail(errorCode(error));
        request.destroy();
      },
    );
  });
  try {
    return await promise;
  } finally {
    cancelTimeout();
  }
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength;
    if (bytes > maxBodyBytes) {
      throw Object.assign(new Error('answer too large'), { code: 'BODY_TOO_LARGE' });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function pairUp(flat: readonly string[]): readonly (readonly [string, string])[] {
  return flat.flatMap((name, at) => (at % 2 === 0 ? [[name, flat[at + 1] ?? ''] as const] : []));
}

function errorCode(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return error.code;
  }
  return 'UNKNOWN';
}

/** node:http writes a plain request, whose bytes are dropped and replaced on the wire. */
function openRawRequest(
  target: { readonly host: string; readonly port: number; readonly localAddress?: string },
  wanted: PodRequest,
  headers: readonly string[],
): ClientRequest {
  const lines = pairUp([...headers, 'Connection', 'close']).map(([name, value]) => {
    return `${name}: ${value}\r\n`;
  });
  const version = wanted.httpVersion ?? '1.1';
  const head = `${wanted.method} ${wanted.target} HTTP/${version}\r\n${lines.join('')}\r\n`;
  return openRequest({
    ...target,
    // The parser must know that an answer to HEAD has no body.
    method: wanted.method === 'HEAD' ? 'HEAD' : 'GET',
    createConnection: () => {
      const socket = connect(target);
      socket.write(Buffer.from(head + (wanted.body ?? ''), 'latin1'));
      return joinHalves(socket);
    },
  }).end();
}

/** Reads from the socket; what is written goes nowhere. */
function joinHalves(socket: Socket): Duplex {
  const duplex = new Duplex({
    read: () => socket.resume(),
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  socket.on('data', (chunk: Buffer) => {
    if (!duplex.push(chunk)) socket.pause();
  });
  socket.once('end', () => duplex.push(null));
  socket.once('error', (error) => duplex.destroy(error));
  duplex.once('close', () => socket.destroy());
  return duplex;
}
