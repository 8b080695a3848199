/** A token cache on a hand-driven clock, with an upstream that returns what the test sets. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Cooldown, Keyed } from '../../src/cache/token/negative-cache.ts';
import { RateLimiter } from '../../src/base/rate-limiter.ts';
import {
  TokenCache,
  type Cached,
  type Fetched,
  type TokenCacheOptions,
} from '../../src/cache/token/cache.ts';
import { RenderedToken, type Token } from '../../src/cache/token/token.ts';
import { HandClock } from './hand-clock.ts';

export interface Failure extends Cooldown {
  readonly name: string;
}

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;

/** What the upstream does with the next fetches. */
export interface Upstream {
  lifeMs: number;
  latencyMs: number;
  /** The failure to return instead of a token. */
  failure: Failure | undefined;
  error: Error | undefined;
  /** Time from the arrival of a token to its refresh, as the upstream suggests. */
  refreshInMs: number | undefined;
  /** How far the wall clock is ahead of the upstream's, which the upstream sends. */
  clockAheadMs: number;
}

export interface TokenFixture {
  readonly clock: HandClock;
  readonly cache: TokenCache<Keyed, Failure>;
  readonly limiter: RateLimiter;
  readonly upstream: Upstream;
  readonly calls: { readonly key: string; readonly atMs: number }[];
  readonly refreshes: string[];
  readonly bugs: unknown[];
  readonly unwanted: Set<string>;
  /** The largest number of fetches that ran at the same time. */
  readonly mostConcurrent: () => number;
  ask(key: string, waitMs?: number): Promise<Cached<Failure>>;
  /** The same as text: `hit k#1`, `held failed down`. */
  request(key: string, waitMs?: number): Promise<string>;
}

type Tuning = Partial<TokenCacheOptions<Keyed, Failure>> & { readonly maxQueued?: number };

export function openTokenFixture(tuning: Tuning = {}): TokenFixture {
  const clock = new HandClock();
  const { maxQueued = 1_000, ...overrides } = tuning;
  const limiter = new RateLimiter({ clock, maxConcurrent: 4, maxPerSec: 20, maxQueued });
  const calls: { key: string; atMs: number }[] = [];
  const refreshes: string[] = [];
  const bugs: unknown[] = [];
  const unwanted = new Set<string>();
  const upstream: Upstream = {
    lifeMs: 24 * hourMs,
    latencyMs: 0,
    failure: undefined,
    error: undefined,
    refreshInMs: undefined,
    clockAheadMs: 0,
  };
  let [running, most] = [0, 0];

  async function fetch({ key }: Keyed): Promise<Fetched<Failure>> {
    const number = calls.push({ key, atMs: clock.monotonicMs() });
    most = Math.max(most, ++running);
    await elapse(upstream.latencyMs);
    running--;
    const { failure, error, lifeMs, refreshInMs, clockAheadMs } = upstream;
    if (error !== undefined) throw error;
    if (failure !== undefined) return { ok: false, failure };
    const made = createToken(clock, `${key}#${number}`, lifeMs - clockAheadMs);
    const token = clockAheadMs === 0 ? made : { ...made, clockAheadMs };
    if (refreshInMs === undefined) return { ok: true, token };
    const refreshAtWallS = (clock.wallMs() + refreshInMs) / 1000;
    return { ok: true, token: { ...token, refreshAtWallS } };
  }

  async function elapse(ms: number): Promise<void> {
    if (ms === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.schedule(ms, resolve);
    await promise;
  }

  const cache = new TokenCache<Keyed, Failure>({
    clock,
    random: () => 0.5,
    limiterOf: () => limiter,
    partyOf: ({ key }) => ({ namespace: `of ${key}`, pod: key }),
    fetch,
    isWanted: ({ key }) => !unwanted.has(key),
    onRefresh: (outcome) => refreshes.push(outcome),
    onBug: (error) => bugs.push(error),
    failures: {
      overloaded: { name: 'overloaded', cooldownMs: 0 },
      late: { name: 'late', cooldownMs: 0 },
      expired: { name: 'expired', cooldownMs: 1_000 },
    },
    maxEntries: 100,
    groupOf: () => 'all',
    maxPerGroup: Infinity,
    maxWaiters: 5_000,
    minLifeMs: 5 * minuteMs,
    waitMs: 10_500,
    waitWithTokenMs: 1_000,
    usedWithinMs: 3 * hourMs,
    ...overrides,
  });
  const ask = (key: string, waitMs?: number) => cache.get({ key }, waitMs);
  return {
    clock,
    cache,
    limiter,
    upstream,
    calls,
    refreshes,
    bugs,
    unwanted,
    ask,
    mostConcurrent: () => most,
    request: async (key, waitMs) => describeAnswer(await ask(key, waitMs)),
  };
}

/** Far later than the start of any test clock. */
export const longLived = new RenderedToken({
  accessToken: 'token',
  clientId: 'client',
  resource: 'https://vault.example',
  expiresAtWallS: 4_000_000_000,
  notBeforeWallS: 0,
  extExpiresAtWallS: undefined,
});

export function createToken(clock: HandClock, accessToken: string, lifeMs: number): Token {
  const nowS = clock.wallMs() / 1000;
  return {
    accessToken,
    clientId: 'c',
    resource: 'r',
    expiresAtWallS: nowS + lifeMs / 1000,
    notBeforeWallS: nowS,
    extExpiresAtWallS: undefined,
  };
}

export function describeAnswer(answer: Cached<Failure>): string {
  const what = answer.ok ? answer.rendered.token.accessToken : `failed ${answer.failure.name}`;
  return `${answer.outcome} ${what}`;
}

/** Lets `ms` pass, and after each event also everything that follows from it. */
export async function pass(clock: HandClock, ms: number): Promise<void> {
  const endMs = clock.monotonicMs() + ms;
  await nextTurn();
  for (let step = 0; step < 100_000; step++) {
    const nextMs = clock.armed[0] ?? Infinity;
    const leftMs = endMs - clock.monotonicMs();
    clock.advance(Math.min(nextMs, leftMs));
    await nextTurn();
    if (nextMs > leftMs) return;
  }
  throw new Error('something is armed again without end');
}
