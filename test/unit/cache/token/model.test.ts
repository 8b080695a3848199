import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { RateLimiter } from '../../../../src/base/rate-limiter.ts';
import { type Cached, type Fetched, TokenCache } from '../../../../src/cache/token/cache.ts';
import type { Keyed } from '../../../../src/cache/token/negative-cache.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createToken,
  type Failure,
  hourMs,
  minuteMs,
  pass,
} from '../../../support/token-fixture.ts';

/**
 * The cache against a model of what must never happen, with fetches that end in any order, clocks
 * that step, grants that end, and very little room. Requests of one key differ in their grant
 * ("right"), and the end of a grant drops only the requests that were made by it.
 */

const keys = ['a', 'b', 'c', 'd'] as const;
const rights = ['binding', 'exception'] as const;
type Right = (typeof rights)[number];
interface Request extends Keyed {
  readonly right: Right;
}
const limits = { maxConcurrent: 2, maxPerSec: 5, maxQueued: 2 };
const [maxWaiters, waitMs, waitWithTokenMs, minLifeMs] = [6, 10_000, 1_000, 5 * minuteMs];
const [renewPauseMs, longestLifeMs] = [10_000, 24 * hourMs];

type Ending =
  | { readonly kind: 'token'; readonly lifeMs: number }
  | { readonly kind: 'failure'; readonly cooldownMs: number }
  | { readonly kind: 'bug' };

type Step =
  | { readonly kind: 'ask'; readonly request: Request; readonly waitMs: number }
  | { readonly kind: 'renew'; readonly request: Request }
  | { readonly kind: 'land' }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'jump'; readonly ms: number }
  | { readonly kind: 'drop'; readonly key: string; readonly rights: readonly Right[] }
  | { readonly kind: 'dropTokens'; readonly key: string }
  | { readonly kind: 'want'; readonly isWanted: boolean };

const anyKey = fc.constantFrom(...keys);
const anyRequest: fc.Arbitrary<Request> = fc.record({
  key: anyKey,
  right: fc.constantFrom(...rights),
});

function one<K extends string, T extends object>(
  weight: number,
  kind: K,
  fields: { readonly [P in keyof T]: fc.Arbitrary<T[P]> },
): fc.WeightedArbitrary<{ readonly kind: K } & T> {
  return { weight, arbitrary: fc.record(fields).map((made) => ({ kind, ...(made as T) })) };
}

const anyEnding: fc.Arbitrary<Ending> = fc.oneof(
  one(4, 'token', {
    lifeMs: fc.constantFrom(-1_000, 1_000, minuteMs, 6 * minuteMs, hourMs, longestLifeMs),
  }),
  one(2, 'failure', { cooldownMs: fc.constantFrom(0, 250, 7_000) }),
  one(1, 'bug', {}),
);

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  one(6, 'ask', { request: anyRequest, waitMs: fc.constantFrom(0, 500, waitMs) }),
  one(1, 'renew', { request: anyRequest }),
  one(5, 'land', {}),
  one(4, 'pass', {
    // After 40 s a token with a life of a minute is still valid, but its remaining life is too
    // short for a hit.
    ms: fc.constantFrom(1, 250, 1_000, 7_000, 40_000, 30 * minuteMs, 2 * hourMs, 12 * hourMs),
  }),
  one(1, 'jump', { ms: fc.constantFrom(-hourMs, hourMs) }),
  one(2, 'drop', {
    key: anyKey,
    rights: fc.constantFrom<readonly Right[]>(rights, ...rights.map((right) => [right])),
  }),
  one(1, 'dropTokens', { key: anyKey }),
  one(1, 'want', { isWanted: fc.boolean() }),
);

/** The model's record of a token. */
interface Minted {
  readonly request: Request;
  /** How often its request had been dropped when the fetch began. */
  readonly epoch: number;
  readonly endsAtWallMs: number;
  readonly endsAtMs: number;
  readonly lifeMs: number;
}

class TestBed {
  readonly clock = new HandClock();
  readonly limiter = new RateLimiter({ clock: this.clock, ...limits });
  readonly cache: TokenCache<Request, Failure>;
  readonly maxEntries: number;
  readonly scheduler: fc.Scheduler;
  readonly endings: readonly Ending[];
  readonly startsAtMs: number[] = [];
  readonly running = new Set<string>();
  readonly minted = new Map<string, Minted>();
  /** Tokens that the cache must still have, unless it had to make room. */
  readonly kept = new Map<string, Minted>();
  readonly heldUntilMs = new Map<string, number>();
  /** Keys that were dropped while a fetch was running or queued. */
  readonly unsure = new Set<string>();
  /** By key and right. */
  readonly epochs = new Map<string, number>();
  /** Violations found where an exception would not be seen. */
  readonly violations: unknown[] = [];
  isWanted = true;
  /** The largest possible difference between the two clocks. */
  jumpedMs = 0;
  asked = 0;
  answered = 0;
  #isDisposed = false;

  constructor(scheduler: fc.Scheduler, endings: readonly Ending[], maxEntries: number) {
    this.scheduler = scheduler;
    this.endings = endings;
    this.maxEntries = maxEntries;
    let random = 0;
    this.cache = new TokenCache<Request, Failure>({
      clock: this.clock,
      random: () => (random = (random + 0.37) % 1),
      limiterOf: () => this.limiter,
      partyOf: ({ key }) => ({ namespace: 'default', pod: key }),
      fetch: (request) => this.#fetch(request),
      isWanted: () => this.isWanted,
      onRefresh: () => undefined,
      onBug: (error) => {
        if (!/bug/.test(String(error))) this.violations.push(error);
      },
      failures: {
        overloaded: { name: 'overloaded', cooldownMs: 0 },
        late: { name: 'late', cooldownMs: 0 },
        expired: { name: 'expired', cooldownMs: 1_000 },
      },
      maxEntries,
      groupOf: () => 'all',
      maxPerGroup: Infinity,
      maxWaiters,
      minLifeMs,
      waitMs,
      waitWithTokenMs,
      usedWithinMs: 3 * hourMs,
    });
  }

  ask(request: Request, boundMs: number): void {
    this.#await(request, boundMs, this.cache.get(request, boundMs));
  }

  renew(request: Request): void {
    this.#await(request, waitMs, this.cache.renew(request, renewPauseMs));
  }

  #await({ key }: Request, boundMs: number, asked: Promise<Cached<Failure>>): void {
    this.asked++;
    const longestMs = this.#mustHave(key) ? Math.min(boundMs, waitWithTokenMs) : boundMs;
    const lateAtMs = this.clock.monotonicMs() + longestMs;
    const epochs = new Map(this.epochs);
    void asked
      .then(
        (answer) => {
          this.#check(key, epochs, answer);
        },
        (error: unknown) => {
          assert.match(String(error), /bug/);
          assert.ok(!this.#mustHave(key), 'a valid token and yet an error');
        },
      )
      .then(() => {
        assert.ok(this.clock.monotonicMs() <= lateAtMs, 'an answer after its deadline');
      })
      .catch((error: unknown) => this.violations.push(error))
      .finally(() => this.answered++);
  }

  async dispose(): Promise<void> {
    this.cache[Symbol.dispose]();
    this.limiter[Symbol.dispose]();
    await nextTurn();
    this.kept.clear();
    this.#isDisposed = true;
  }

  drop(key: string, dropped: readonly Right[]): void {
    for (const right of dropped) {
      const name = nameOf({ key, right });
      this.epochs.set(name, (this.epochs.get(name) ?? 0) + 1);
    }
    const right = this.kept.get(key)?.request.right;
    if (right !== undefined && dropped.includes(right)) this.kept.delete(key);
    this.#doubtFetch(key);
    this.heldUntilMs.delete(key);
    this.cache.drop((request) => request.key === key && dropped.includes(request.right));
  }

  dropTokens(key: string): void {
    for (const [accessToken, { request }] of this.minted) {
      if (request.key === key) this.minted.delete(accessToken);
    }
    this.kept.delete(key);
    this.#doubtFetch(key);
    this.cache.dropTokens((request) => request.key === key);
  }

  checkBounds(): void {
    assert.deepEqual(this.violations, []);
    const { negative, inflight, waiting } = this.cache.stats;
    assert.ok(this.cache.size <= this.maxEntries);
    assert.ok(negative <= this.maxEntries);
    assert.ok(waiting <= maxWaiters);
    assert.ok(inflight <= limits.maxConcurrent + 2 * limits.maxQueued);
    const owners = waiting + this.cache.size + inflight + 1;
    assert.ok(this.clock.armed.length <= owners, 'one timer for each owner, and the limiter’s');
    for (const { token, isFetching } of this.cache.describe(() => true)) {
      assert.ok(isFetching || token?.state !== 'refreshing', 'a refresh without a fetch');
    }
  }

  /** Nothing waits, runs or is cached any more, and no timer is armed. */
  checkEmpty(): void {
    const { inflight, waiting } = this.cache.stats;
    const { running, queued } = this.limiter;
    assert.equal(this.answered, this.asked);
    const nothing = { inflight: 0, waiting: 0, running: 0, queued: 0 };
    assert.deepEqual({ inflight, waiting, running, queued }, nothing);
    assert.equal(this.cache.size, 0, 'a token that is never evicted');
    assert.deepEqual(this.clock.armed, []);
    assert.deepEqual(this.violations, []);
  }

  #check(key: string, epochs: ReadonlyMap<string, number>, answer: Cached<Failure>): void {
    const [nowWallMs, nowMs] = [this.clock.wallMs(), this.clock.monotonicMs()];
    if (!answer.ok) {
      assert.ok(!this.#mustHave(key), `a valid token, but ${answer.failure.name}`);
      return;
    }
    const token = this.minted.get(answer.rendered.token.accessToken);
    assert.ok(token !== undefined, 'an unknown token');
    assert.equal(token.request.key, key, 'another key’s token');
    assert.ok(token.endsAtWallMs > nowWallMs && token.endsAtMs > nowMs, 'an expired token');
    const epoch = epochs.get(nameOf(token.request)) ?? 0;
    assert.ok(token.epoch >= epoch, 'a token from before the drop');
    if (answer.outcome !== 'hit') return;
    const lifeMs = Math.min(token.endsAtWallMs - nowWallMs, token.endsAtMs - nowMs);
    assert.ok(lifeMs >= Math.min(minLifeMs, token.lifeMs / 2), 'a hit with too little life');
  }

  #mustHave(key: string): boolean {
    const token = this.kept.get(key);
    if (token === undefined || this.maxEntries < keys.length) return false;
    return token.endsAtWallMs > this.clock.wallMs() && token.endsAtMs > this.clock.monotonicMs();
  }

  /** The cache may or may not keep the result of a running fetch, and the token that it renews. */
  #doubtFetch(key: string): void {
    const [status] = this.cache.describe((request) => request.key === key);
    if (status?.isFetching !== true) return;
    this.kept.delete(key);
    this.unsure.add(key);
  }

  async #fetch(request: Request): Promise<Fetched<Failure>> {
    const { key } = request;
    const startMs = this.clock.monotonicMs();
    assert.ok(!this.running.has(key), 'two fetches in flight for one key');
    this.running.add(key);
    assert.ok(this.running.size <= limits.maxConcurrent);
    const number = this.startsAtMs.push(startMs);
    const earlierMs = this.startsAtMs[number - 1 - limits.maxPerSec] ?? -Infinity;
    assert.ok(startMs - earlierMs >= 1_000, 'too many in a second');
    assert.ok(startMs >= (this.heldUntilMs.get(key) ?? 0), 'a call during the cooldown');
    const epoch = this.#epochOf(request);

    await this.scheduler.schedule(Promise.resolve(), key);
    this.running.delete(key);
    const isDropped = this.#isDisposed || epoch !== this.#epochOf(request);
    const isUnsure = this.unsure.delete(key);
    const ending = this.endings[number % this.endings.length] ?? { kind: 'bug' };
    if (ending.kind === 'bug') throw new Error('bug');
    if (ending.kind === 'failure') {
      if (!isDropped && !isUnsure) this.#hold(key, ending.cooldownMs);
      return { ok: false, failure: { name: 'upstream', cooldownMs: ending.cooldownMs } };
    }
    const { lifeMs } = ending;
    const token = createToken(this.clock, `${key}#${number}`, lifeMs);
    const minted = {
      request,
      epoch,
      lifeMs,
      endsAtWallMs: this.clock.wallMs() + lifeMs,
      endsAtMs: this.clock.monotonicMs() + lifeMs,
    };
    this.minted.set(token.accessToken, minted);
    if (!isDropped) {
      if (lifeMs > 0 && !isUnsure) this.kept.set(key, minted);
      this.heldUntilMs.delete(key);
    }
    return { ok: true, token };
  }

  #hold(key: string, cooldownMs: number): void {
    this.heldUntilMs.delete(key);
    if (cooldownMs === 0) return;
    this.heldUntilMs.set(key, this.clock.monotonicMs() + cooldownMs);
    // The cache drops cooldowns when there are more keys than it has room for.
    if (this.maxEntries < keys.length) this.heldUntilMs.clear();
  }

  #epochOf(request: Request): number {
    return this.epochs.get(nameOf(request)) ?? 0;
  }
}

function nameOf({ key, right }: Request): string {
  return `${key} ${right}`;
}

async function take(testBed: TestBed, step: Step): Promise<void> {
  const { clock, scheduler } = testBed;
  if (step.kind === 'ask') testBed.ask(step.request, step.waitMs);
  if (step.kind === 'renew') testBed.renew(step.request);
  if (step.kind === 'land' && scheduler.count() > 0) await scheduler.waitNext(1);
  if (step.kind === 'pass') await pass(clock, step.ms);
  if (step.kind === 'drop') testBed.drop(step.key, step.rights);
  if (step.kind === 'dropTokens') testBed.dropTokens(step.key);
  if (step.kind === 'want') testBed.isWanted = step.isWanted;
  if (step.kind === 'jump') {
    clock.jumpWall(step.ms);
    testBed.jumpedMs += Math.abs(step.ms);
  }
  await nextTurn();
  testBed.checkBounds();
}

async function landAll({ scheduler }: TestBed): Promise<void> {
  for (let count = 0; scheduler.count() > 0 && count < 1_000; count++) await scheduler.waitNext(1);
  await nextTurn();
}

/** Every fetch ends, no further requests arrive, and every token expires by both clocks. */
async function outlive(testBed: TestBed): Promise<void> {
  testBed.isWanted = false;
  const stepMs = longestLifeMs / 2;
  for (let leftMs = testBed.jumpedMs + 3 * longestLifeMs; leftMs > 0; leftMs -= stepMs) {
    await landAll(testBed);
    await pass(testBed.clock, stepMs);
    testBed.checkBounds();
  }
}

const anyRun = [
  fc.scheduler(),
  fc.array(anyStep, { minLength: 1, maxLength: 80, size: 'max' }),
  fc.array(anyEnding, { minLength: 1, maxLength: 12 }),
  fc.constantFrom(2, 100),
] as const;

describe('the token cache under any order of events', () => {
  it('breaks no rule, and has answered all requests once their time is up', async () => {
    await fc.assert(
      fc.asyncProperty(...anyRun, async (scheduler, steps, endings, maxEntries) => {
        const testBed = new TestBed(scheduler, endings, maxEntries);
        for (const step of steps) await take(testBed, step);
        // No further fetch ends; only time passes.
        await pass(testBed.clock, waitMs);
        assert.equal(testBed.answered, testBed.asked);
        assert.equal(testBed.cache.stats.waiting, 0);
        await outlive(testBed);
        testBed.checkEmpty();
        await testBed.dispose();
      }),
      { numRuns: 1_000 },
    );
  });

  it('can be disposed at any moment: all requests are answered, nothing is armed or fetched', async () => {
    await fc.assert(
      fc.asyncProperty(...anyRun, async (scheduler, steps, endings, maxEntries) => {
        const testBed = new TestBed(scheduler, endings, maxEntries);
        for (const step of steps) await take(testBed, step);
        const calls = testBed.startsAtMs.length;
        await testBed.dispose();
        assert.equal(testBed.answered, testBed.asked);
        assert.deepEqual(testBed.clock.armed, []);
        await landAll(testBed);
        testBed.ask({ key: 'a', right: 'binding' }, waitMs);
        await nextTurn();
        assert.equal(testBed.answered, testBed.asked);
        assert.deepEqual(testBed.clock.armed, []);
        assert.equal(testBed.startsAtMs.length, calls);
        assert.equal(testBed.cache.size, 0);
        assert.ok(testBed.cache.isEmpty);
        assert.deepEqual(testBed.violations, []);
      }),
      { numRuns: 1_000 },
    );
  });
});
