/** A kubelet's Pods API on a Unix socket, as far as the agent uses it; and the messages that it sends. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectKubelet } from '../../../../src/nmi/kube/kubelet/pods-api.ts';

export interface FakePod {
  readonly name: string;
  readonly uid?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly ips?: readonly string[];
  readonly phase?: string;
}

export const eventTypes = { added: 1, modified: 2, deleted: 3, end: 4 } as const;

export interface FakeKubelet extends AsyncDisposable {
  readonly path: string;
  readonly connect: ConnectKubelet;
  readonly pods: Map<string, FakePod>;
  /** Calls since the start. */
  readonly calls: string[];
  /** A gRPC code for each further call, without a message; undefined: it serves. */
  refusal: number | undefined;
  /** Accepts calls and never answers. */
  isHung: boolean;
  /** False: it lists pods, and never their end. */
  endsLists: boolean;
  /** To all watches. */
  send(type: keyof typeof eventTypes, pod: FakePod): void;
  /** Raw bytes to all watches. */
  sendBytes(bytes: Buffer): void;
  /** Ends all watches with a gRPC code. */
  endWatches(code: number): void;
  /** As at a restart: connections end, and nothing is at the path. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

export async function openFakeKubelet(): Promise<FakeKubelet> {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-test-kubelet-'));
  const path = join(folder, 'pods-api.sock');
  const pods = new Map<string, FakePod>();
  const calls: string[] = [];
  const watches = new Set<ServerHttp2Stream>();
  const sessions = new Set<ServerHttp2Session>();
  let server: http2.Http2Server | undefined;

  function serve(stream: ServerHttp2Stream, called: string): void {
    calls.push(called);
    stream.on('error', () => undefined);
    if (kubelet.isHung) return;
    const content = { ':status': 200, 'content-type': 'application/grpc' };
    if (kubelet.refusal !== undefined) {
      const status = { 'grpc-status': String(kubelet.refusal), 'grpc-message': 'not now' };
      return stream.respond({ ...content, ...status }, { endStream: true });
    }
    stream.respond(content, { waitForTrailers: true });
    watches.add(stream);
    stream.once('close', () => watches.delete(stream));
    for (const pod of pods.values()) stream.write(frame(eventMessage('added', pod)));
    if (kubelet.endsLists) stream.write(frame(eventMessage('end')));
  }
  function end(stream: ServerHttp2Stream, code: number): void {
    stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': String(code) }));
    stream.end();
  }

  const kubelet: FakeKubelet = {
    path,
    connect: () => Promise.resolve(connect({ path })),
    pods,
    calls,
    refusal: undefined,
    isHung: false,
    endsLists: true,
    send(type, pod) {
      if (type === 'deleted') pods.delete(pod.name);
      else pods.set(pod.name, pod);
      kubelet.sendBytes(frame(eventMessage(type, pod)));
    },
    sendBytes(bytes) {
      for (const stream of watches) stream.write(bytes);
    },
    endWatches(code) {
      for (const stream of [...watches]) end(stream, code);
    },
    async start() {
      server = http2.createServer();
      server.on('session', (session) => sessions.add(session));
      server.on('stream', (stream, headers) => {
        serve(stream as ServerHttp2Stream, String(headers[':path']));
      });
      server.listen({ path });
      await once(server, 'listening');
    },
    async stop() {
      for (const session of sessions) session.destroy();
      sessions.clear();
      await new Promise<void>((resolve) => server?.close(() => resolve()) ?? resolve());
      server = undefined;
    },
    async [Symbol.asyncDispose]() {
      await kubelet.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await kubelet.start();
  return kubelet;
}

function uidOf({ name, uid = `uid-${name}` }: FakePod): string {
  return uid;
}

export function frame(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

export function eventMessage(type: keyof typeof eventTypes, pod?: FakePod): Buffer {
  const content = pod === undefined ? [] : [lengthField(2, podMessage(pod))];
  return Buffer.concat([numberField(1, eventTypes[type]), ...content]);
}

export function podMessage(pod: FakePod): Buffer {
  const { name, labels = {}, ips = [], phase = 'Running' } = pod;
  const metadata = [
    textField(1, name),
    textField(3, 'default'),
    textField(5, uidOf(pod)),
    lengthField(8, numberField(1, 1_700_000_000)),
    ...Object.entries(labels).map((entry) => lengthField(11, mapEntry(...entry))),
  ];
  const status = [
    textField(1, phase),
    ...ips.slice(0, 1).map((ip) => textField(6, ip)),
    ...ips.map((ip) => lengthField(12, textField(1, ip))),
  ];
  return Buffer.concat([
    lengthField(1, Buffer.concat(metadata)),
    lengthField(2, textField(8, 'default')),
    lengthField(3, Buffer.concat(status)),
  ]);
}

function mapEntry(key: string, value: string): Buffer {
  return Buffer.concat([textField(1, key), textField(2, value)]);
}

export function varint(value: number | bigint): Buffer {
  const bytes: number[] = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 0x80n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
}

export function numberField(field: number, value: number | bigint): Buffer {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

export function lengthField(field: number, content: Buffer): Buffer {
  return Buffer.concat([varint(field * 8 + 2), varint(content.length), content]);
}

export function textField(field: number, text: string): Buffer {
  return lengthField(field, Buffer.from(text));
}
