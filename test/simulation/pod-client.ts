/**
 * A pod that requests tokens as an SDK does: one connection that is kept or closed, a pause, and another
 * try after 429, 503 or a connection that ends. Each answer is checked against the truth.
 */
import { decodeLabToken } from '../../lab/fakes/token.ts';
import { agentIp, metadata } from './kernel.ts';
import { epochMs, longestMs } from './limits.ts';
import type { Node } from './node.ts';
import type { PodFacts } from './truth.ts';
import type { TcpEnd } from './wires.ts';
import { rightsLimitMs } from './agent-pod.ts';

/** A request waits for a late object, then for one token: 2 s and 10 s, and what slow machines add. */
const answerMs = 20_000;
/** A client that gets no answer ends its connection. */
const patienceMs = 45_000;

const delaysMs = Object.values(longestMs).reduce((sum, each) => sum + each, 0);
/**
 * How long a right may be used after its end. In calm: the watch's event, the second for which a decision is
 * kept, and the packets. Under faults: as long as the staleness limit of rights, the longest delays of an
 * API server that is late itself and of packets, the longest freeze of a process, and the same second.
 */
export const bounds = { calmMs: 3_000, faultyMs: rightsLimitMs + delaysMs + 3_000 } as const;
/** After so long without a fault of the API server, network or processes it is calm. */
export const calmAfterMs = 60_000;

/** A connection without a request is closed after 5 s. */
const silentMs = 10_000;
/** The back-off of a container, its start, and the hand-over. */
const refusingMs = 40_000;

/** An agent lists pods within so long after its process began. */
const startMs = 10_000;

/** In the text of `identity_not_owned`. */
const ungranted = 'which no AzureIdentityGrant gives';

const permitted = new Set([200, 400, 403, 429, 503]);
/** Of the metadata service to an excepted pod. */
const relayed = new Set([404, 410, 500]);
/** To bytes that are no request for a token. */
const toGarbage = new Set([400, 404, 405, 417, 431, 501]);

const resources = { usual: 'https://vault.azure.net', rude: 'https://storage.azure.com' } as const;
const rudeMs = 15_000;

/** What no SDK sends on a connection, and how many answers it is owed. */
const manners: readonly {
  readonly owed: number;
  readonly send: (
    end: TcpEnd,
    request: string,
    after: (ms: number, work: () => void) => void,
  ) => void;
}[] = [
  { owed: 5, send: (end, request) => end.send(Buffer.from(request.repeat(5))) },
  {
    owed: 3,
    send: (end, request) => {
      end.send(Buffer.from(request.repeat(3)));
      end.end();
    },
  },
  {
    owed: 1,
    send: (end, request, after) => {
      for (let at = 0; at < request.length; at += 40) {
        after(at, () => end.send(Buffer.from(request.slice(at, at + 40))));
      }
    },
  },
  {
    owed: 0,
    send: (end, request, after) => {
      end.send(Buffer.from(request.repeat(4)));
      after(request.length / 2, () => end.close(true));
    },
  },
  ...[
    'GARBAGE\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: h\r\nA B: c\r\n\r\n',
    'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: h\r\nExpect: foo\r\nContent-Length: 5\r\n\r\nhello',
    `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
    'GET /metadata/ide',
  ].map((bytes) => ({
    owed: 0,
    send: (end: TcpEnd, request: string) => {
      end.send(Buffer.from(bytes + request));
      end.end();
    },
  })),
];

interface Connection {
  readonly end: TcpEnd;
  /** The kernel had no room for a record of it. */
  readonly isUnrecorded: boolean;
  received: string;
}

export class PodClient {
  readonly node: Node;
  readonly facts: PodFacts;
  readonly ip: string;
  readonly everyMs: number;
  readonly #keeps: boolean;
  #connection: Connection | undefined;
  #requestedMs: number | undefined;
  #clientId: string | undefined;
  /** The token that it last got, which comes many times. */
  #token = { text: '', identity: '', resource: '', expiresMs: 0 };
  #isGone = false;
  #pausedUntilMs = 0;
  last = 'nothing';
  /** When the request began that was last answered with a token. */
  servedMs = -1;
  /** When the request began that was last answered at all. */
  answeredMs = -1;

  constructor(node: Node, facts: PodFacts, ip: string, everyMs: number, keeps: boolean) {
    this.node = node;
    this.facts = facts;
    this.ip = ip;
    this.everyMs = everyMs;
    this.#keeps = keeps;
    node.clients.add(this);
    node.kernel.addPod(facts.uid, ip);
    this.#later(node.world.scheduler.random() * everyMs);
  }

  remove(): void {
    this.#isGone = true;
    this.#close(true);
    this.node.clients.delete(this);
    this.node.kernel.removePod(this.facts.uid);
  }

  /** Its processes are ended and started again. */
  pause(ms: number): void {
    this.#close(true);
    this.#pausedUntilMs = this.node.world.nowMs + ms;
    this.#later(ms);
  }

  /** Opens connections that send half a request, or nothing. */
  flood(count: number): void {
    const { world } = this.node;
    for (let index = 0; index < count; index += 1) {
      const isSilent = index % 2 === 1;
      let isOpen = false;
      const end = this.#connect((isRefused) => {
        isOpen = !isRefused;
        if (isOpen && !isSilent) end?.send(Buffer.from('GET /metadata/ide'));
      });
      if (end === undefined) return;
      const beganMs = world.nowMs;
      end.onArrival = () => {
        const arrival = end.receive();
        if (arrival === 'end' || arrival === 'reset') isOpen = false;
      };
      // Node's parser closes the other half by a clock of its own, which is not simulated.
      world.after(isSilent ? silentMs : 8_000, 'flood ends', () => {
        const isCalm = Math.max(this.node.disturbedMs, world.faultUntilMs) <= beganMs;
        if (isSilent && isOpen && isCalm && !this.#isGone) {
          world.break(`a silent connection of ${this.facts.uid} is still open`);
        }
        end.close(true);
      });
    }
  }

  /** Asks at once for the identity of another one. */
  steal(clientId: string): void {
    this.#clientId = clientId;
  }

  /** Sends what no SDK sends, each on a connection of its own: an answer with a token is checked as any other. */
  misbehave(clientId: string): void {
    const { world } = this.node;
    const beganMs = world.nowMs;
    const request = this.#requestFor(resources.rude, clientId, 'keep-alive');
    for (const { owed, send } of manners) {
      const answers: Answer[] = [];
      const end = this.#connect((isRefused) => {
        if (end === undefined || isRefused) return;
        send(end, request, (ms, work) => void world.after(ms, 'rude pod', work));
      });
      if (end === undefined) return;
      const connection = { end, isUnrecorded: this.node.kernel.isFull, received: '' };
      end.onArrival = () => {
        for (const answer of answersOf(connection)) {
          answers.push(answer);
          if (owed === 0 && toGarbage.has(answer.status)) continue;
          this.#check(answer, connection, beganMs, resources.rude);
        }
      };
      world.after(rudeMs, 'rude pod ends', () => {
        const isCalm = Math.max(this.node.disturbedMs, world.faultUntilMs) <= beganMs;
        if (isCalm && !this.#isGone && answers.length < owed)
          world.break(`${this.facts.uid} got ${answers.length} answers, and is owed ${owed}`);
        end.close(true);
      });
    }
  }

  check(): void {
    const { world, disturbedMs } = this.node;
    if (this.#requestedMs === undefined) return;
    const sinceMs = Math.max(this.#requestedMs, disturbedMs, world.faultUntilMs);
    if (world.nowMs - sinceMs > answerMs) {
      world.break(
        `${this.facts.uid} has waited ${Math.round(world.nowMs - sinceMs)} ms for an answer`,
      );
    }
  }

  #later(ms: number): void {
    this.node.world.after(ms, 'pod', () => this.#request());
  }

  #request(): void {
    const { world } = this.node;
    if (this.#isGone || this.#requestedMs !== undefined) return;
    if (world.nowMs < this.#pausedUntilMs) return;
    this.#requestedMs = world.nowMs;
    const began = world.nowMs;
    world.after(patienceMs, 'pod gives up', () => {
      if (this.#requestedMs === began) this.#lost('no answer');
    });
    const connection = this.#connection;
    if (connection !== undefined) this.#send(connection);
    else this.#open();
  }

  #open(): void {
    const opened: { connection?: Connection } = {};
    const end = this.#connect((isRefused) => {
      const { connection } = opened;
      if (connection === undefined || this.#connection !== connection) return;
      if (isRefused) this.#refused();
      else this.#send(connection);
    });
    if (end === undefined) {
      this.#lost('no agent yet');
      return;
    }
    const connection = { end, isUnrecorded: this.node.kernel.isFull, received: '' };
    opened.connection = connection;
    this.#connection = connection;
    end.onArrival = () => this.#receive(connection);
  }

  /** @returns undefined on a node that was never closed since its boot: it has no agent yet. */
  #connect(onAnswer: (isRefused: boolean) => void): TcpEnd | undefined {
    const { world, kernel, machine } = this.node;
    const port = world.network.nextPort();
    const { uid } = this.facts;
    const agentPort = kernel.route(uid, this.ip, port);
    if (agentPort === 'metadata') {
      if (kernel.wasClosed) world.break(`a packet of ${uid} reaches the metadata service`);
      return undefined;
    }
    const source = { ip: this.ip, port };
    const to = { ip: agentIp, port: agentPort };
    const end = world.network.connect(machine, undefined, source, to, onAnswer);
    end.onClosed = () => kernel.forget(this.ip, port);
    return end;
  }

  #send({ end }: Connection): void {
    const kept = this.#keeps ? 'keep-alive' : 'close';
    end.send(Buffer.from(this.#requestFor(resources.usual, this.#clientId, kept)));
  }

  #requestFor(resource: string, clientId: string | undefined, kept: string): string {
    const named = clientId === undefined ? '' : `&client_id=${clientId}`;
    const path = `/metadata/identity/oauth2/token?api-version=2018-02-01&resource=${encodeURIComponent(resource)}${named}`;
    return `GET ${path} HTTP/1.1\r\nHost: ${metadata.ip}\r\nMetadata: true\r\nConnection: ${kept}\r\n\r\n`;
  }

  #receive(connection: Connection): void {
    for (const answer of answersOf(connection, (how) => {
      if (this.#connection === connection) this.#lost(how);
    })) {
      if (this.#connection === connection) this.#answered(answer, connection);
    }
  }

  #answered(answer: Answer, connection: Connection): void {
    const { status, body, closes } = answer;
    const { world } = this.node;
    const beganMs = this.#requestedMs ?? world.nowMs;
    this.#requestedMs = undefined;
    this.last = `${status} ${body.slice(0, 300)}`;
    if (status === 400 && body.includes(ungranted)) this.#checkRefusal(connection);
    this.#clientId = undefined;
    this.answeredMs = beganMs;
    this.#check(answer, connection, beganMs, resources.usual);
    if (status === 200) this.servedMs = beganMs;
    if (closes || !this.#keeps) this.#close(false);
    this.#later(this.everyMs * (0.5 + world.scheduler.random()));
  }

  #check(
    { status, body }: Answer,
    connection: Connection,
    beganMs: number,
    resource: string,
  ): void {
    const { node, facts } = this;
    const { world } = node;
    world.answers += 1;
    const isExcepted = world.nowMs - world.truth.exceptedMs(facts) <= bounds.faultyMs;
    if (!permitted.has(status) && !(isExcepted && relayed.has(status)))
      world.break(`${facts.uid} got ${status} ${body.slice(0, 300)}`);
    const [, text = ''] = /"access_token": *"([^"]*)"/.exec(body) ?? [];
    if (status !== 200 && text === '') return;
    if (text !== this.#token.text || text === '') {
      const claims = decodeLabToken(text);
      const { lab_identity: identity = 'nobody', aud = '', exp = 0 } = claims ?? {};
      this.#token = { text, identity, resource: aud, expiresMs: exp * 1_000 - epochMs };
    }
    const token = this.#token;
    if (status !== 200) world.break(`${facts.uid} got a token with status ${status}`);
    if (token.resource !== resource) world.break(`${facts.uid} got a token for ${token.resource}`);
    if (token.expiresMs < beganMs && !node.hadWrongClock)
      world.break(`${facts.uid} got a token that has expired`);
    this.#checkToken(token.identity, connection);
  }

  #checkToken(identity: string, connection: Connection): void {
    const { world } = this.node;
    world.tokens += 1;
    const { uid } = this.facts;
    const lastMs = world.truth.lastMs(this.facts, identity);
    if (this.#isTakenForTheOneBefore(identity, connection)) return;
    if (lastMs === undefined) {
      world.break(`${uid} got a token of ${identity}, and never had a right to it`);
      return;
    }
    const isCalm = world.faultUntilMs + calmAfterMs < lastMs;
    const boundMs = isCalm ? bounds.calmMs : bounds.faultyMs;
    const lateMs = world.nowMs - lastMs;
    if (lateMs <= boundMs) return;
    world.break(
      `${uid} got a token of ${identity} ${Math.round(lateMs)} ms after its right ended (bound ${boundMs})`,
    );
  }

  /** For an SDK, 400 is final: an agent must not take grants for none that were there all the time. */
  #checkRefusal({ isUnrecorded }: Connection): void {
    const { world } = this.node;
    if (this.#clientId !== undefined || isUnrecorded) return;
    if (world.nowMs - world.truth.exceptedMs(this.facts) <= bounds.faultyMs) return;
    const sinceMs = world.truth.grantedSinceMs(this.facts);
    if (sinceMs === undefined || world.nowMs - sinceMs <= bounds.faultyMs) return;
    world.break(`${this.facts.uid} is refused for lack of a grant, and has one: ${this.last}`);
  }

  /**
   * A known limit: the API server still has a pod that has left its address, and an agent begins at that time. It
   * takes the link that it finds for that pod's. Only a caller without a record is known by its link.
   */
  #isTakenForTheOneBefore(identity: string, { isUnrecorded }: Connection): boolean {
    const { world, before, agentBeganMs } = this.node;
    const tenant = before.get(this.ip);
    if (tenant === undefined || !isUnrecorded) return false;
    const hasBegun = agentBeganMs > tenant.leftMs - startMs;
    const isRecent = world.nowMs < tenant.knownMs + bounds.faultyMs;
    return hasBegun && isRecent && world.truth.lastMs(tenant.facts, identity) !== undefined;
  }

  /** An update refuses no connection; after a kill, somebody listens again within some seconds. */
  #refused(): void {
    const { world, brokenMs } = this.node;
    const sinceMs = world.nowMs - brokenMs;
    if (sinceMs > refusingMs) {
      const since =
        sinceMs === Infinity ? 'nothing was killed' : `${Math.round(sinceMs)} ms after a kill`;
      world.break(`a connection of ${this.facts.uid} is refused: ${since}`);
    }
    this.#lost('refused');
  }

  #lost(how: string): void {
    this.last = how;
    this.#requestedMs = undefined;
    this.#close(true);
    if (!this.#isGone)
      this.#later(Math.min(this.everyMs, 500) * (0.5 + this.node.world.scheduler.random()));
  }

  #close(resets: boolean): void {
    this.#connection?.end.close(resets);
    this.#connection = undefined;
    if (resets) this.#requestedMs = undefined;
  }
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly closes: boolean;
  /** Of all its text. */
  readonly length: number;
}

/** What has arrived, and is complete. */
function* answersOf(
  connection: Connection,
  onEnd: (how: 'end' | 'reset') => void = () => undefined,
): Iterable<Answer> {
  for (;;) {
    const arrival = connection.end.receive();
    if (arrival === undefined) return;
    if (arrival === 'end' || arrival === 'reset') return onEnd(arrival);
    connection.received += arrival.toString('latin1');
    for (;;) {
      const answer = readAnswer(connection.received);
      if (answer === undefined) break;
      connection.received = connection.received.slice(answer.length);
      yield answer;
    }
  }
}

function readAnswer(text: string): Answer | undefined {
  const headEnd = text.indexOf('\r\n\r\n');
  if (headEnd < 0) return undefined;
  const head = text.slice(0, headEnd);
  const length = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
  const body = text.slice(headEnd + 4);
  if (body.length < length) return undefined;
  const status = Number(head.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length));
  return {
    status,
    body: body.slice(0, length),
    closes: /connection: *close/i.test(head),
    length: headEnd + 4 + length,
  };
}
