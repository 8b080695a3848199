/** Requests to our own agent, on loopback and with the lab's fakes around it. */
import { mock } from 'node:test';
import { createPodManifest } from '../../lab/fakes/kube/manifests.ts';
import type { LoopbackAgent } from '../support/loopback-agent.ts';
import { exchange, type Place, type RawReply } from '../support/raw-connection.ts';
import { assertToken, claimsOf } from './reply-rules.ts';
import { renderRequest, tokenPath, tokenQuery, type RequestOptions } from './requests.ts';
import { parseTarget } from './target.ts';

export const vault = 'https://vault.azure.net';
export const boundIp = '127.0.0.11';

export const skipElsewhere =
  parseTarget(process.env) !== undefined && 'only an agent of our own has a test bed to steer';

export function from(agent: LoopbackAgent, sourceIp = boundIp): Place {
  return { host: '127.0.0.1', port: agent.port, sourceIp };
}

export async function ask(
  place: Place,
  target: string,
  options: RequestOptions = {},
): Promise<RawReply> {
  return redated(await exchange(place, renderRequest(target, options), options.method));
}

export function askToken(place: Place, resource = vault, more = ''): Promise<RawReply> {
  return ask(place, targetFor(resource, more));
}

export function targetFor(resource: string, more = ''): string {
  return `${tokenPath}?${tokenQuery(encodeURIComponent(resource), more)}`;
}

/** The lab's name of the identity in the token. */
export function identityOf(reply: RawReply, resource = vault): unknown {
  return claimsOf(assertToken(reply, resource))['lab_identity'];
}

export function announce(agent: LoopbackAgent, name: string, ip: string, binding: string): void {
  agent.kube.apply(createPodManifest({ name, nodeName: 'node-1', ips: [ip], binding }));
}

/** While `work` runs, the wall clock of this process (and so of the fakes) is `ms` ahead. */
export async function aheadBy<T>(ms: number, work: () => Promise<T>): Promise<T> {
  const now = Date.now.bind(Date);
  const ahead = mock.method(Date, 'now', () => now() + ms);
  try {
    return await work();
  } finally {
    ahead.mock.restore();
  }
}

/** How far {@link MovedTime} has moved both clocks of this process ahead. */
let aheadMs = 0;

/** Flags of an agent with moved time: its watches see the move as an equally long silence. */
export const inMovedTime = {
  'address-staleness-limit': '0',
  'rights-staleness-limit': '0',
} as const;

/** Both clocks of this process, which a test moves ahead; armed timers are not affected. */
export class MovedTime implements Disposable {
  readonly #wall;
  readonly #monotonic;

  constructor() {
    const wall = Date.now.bind(Date);
    const monotonic = performance.now.bind(performance);
    this.#wall = mock.method(Date, 'now', () => wall() + aheadMs);
    this.#monotonic = mock.method(performance, 'now', () => monotonic() + aheadMs);
  }

  pass(ms: number): void {
    aheadMs += ms;
  }

  /** Until `performance.now()` has this value; the real time that has already passed counts too. */
  passUntil(monotonicMs: number): void {
    this.pass(Math.max(0, monotonicMs - performance.now()));
  }

  [Symbol.dispose](): void {
    this.#wall.mock.restore();
    this.#monotonic.mock.restore();
    aheadMs = 0;
  }
}

/** Node stamps `Date` from its own clock, which the test cannot move. */
function redated(reply: RawReply): RawReply {
  const behindMs = Date.now() - aheadMs;
  const fields = reply.fields.map(([name, value]) => {
    const isUnmoved = name === 'Date' && Math.abs(Date.parse(value) - behindMs) < 2_000;
    return [name, isUnmoved ? renderDate(Date.parse(value) + aheadMs) : value] as const;
  });
  return aheadMs === 0 ? reply : { ...reply, fields };
}

function renderDate(wallMs: number): string {
  return new Date(wallMs).toUTCString();
}
