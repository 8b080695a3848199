/**
 * The cache against a model that only knows what must never happen, with fetches that end in any
 * order, clocks that step, rights that end and room for very little.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import type { Keyed } from '../../../src/cache/token/negative-cache.ts';
import { ConcurrencyGate } from '../../../src/cache/token/rate-limiter.ts';
import { TokenCache, type Cached, type Fetched } from '../../../src/cache/token/cache.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createToken, hourMs, minuteMs, pass, type Failure } from '../../support/token-stand.ts';

const keys = ['a', 'b', 'c', 'd'] as const;
const limits = { maxConcurrent: 2, maxPerSec: 5, maxQueued: 2 };
const [maxWaiters, waitMs, minLifeMs] = [6, 10_000, 5 * minuteMs];

type Ending =
  | { readonly kind: 'token'; readonly lifeMs: number }
  | { readonly kind: 'failure'; readonly holdMs: number }
  | { readonly kind: 'bug' };

type Step =
  | { readonly kind: 'ask'; readonly key: string; readonly waitMs: number }
  | { readonly kind: 'land' }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'jump'; readonly ms: number }
  | { readonly kind: 'drop'; readonly key: string }
  | { readonly kind: 'want'; readonly isWanted: boolean };

const anyKey = fc.constantFrom(...keys);

const anyEnding: fc.Arbitrary<Ending> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('token' as const),
      lifeMs: fc.constantFrom(-1_000, 1_000, minuteMs, 6 * minuteMs, hourMs, 24 * hourMs),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('failure' as const),
      holdMs: fc.constantFrom(0, 250, 7_000),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'bug' as const }) },
);

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('ask' as const),
      key: anyKey,
      waitMs: fc.constantFrom(0, 500, waitMs),
    }),
  },
  { weight: 5, arbitrary: fc.constant({ kind: 'land' as const }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('pass' as const),
      ms: fc.constantFrom(1, 250, 1_000, 7_000, 30 * minuteMs, 2 * hourMs, 12 * hourMs),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('jump' as const),
      ms: fc.constantFrom(-hourMs, hourMs),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), key: anyKey }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('want' as const), isWanted: fc.boolean() }),
  },
);

/** What the model knows of a token. */
interface Minted {
  readonly key: string;
  /** How often the key had been dropped when its fetch began. */
  readonly epoch: number;
  readonly endsAtWallMs: number;
  readonly endsAtMs: number;
  readonly lifeMs: number;
}

class World {
  readonly clock = new HandClock();
  readonly gate = new ConcurrencyGate({ clock: this.clock, ...limits });
  readonly cache: TokenCache<Keyed, Failure>;
  readonly maxEntries: number;
  readonly scheduler: fc.Scheduler;
  readonly endings: readonly Ending[];
  readonly startsAtMs: number[] = [];
  readonly running = new Set<string>();
  readonly minted = new Map<string, Minted>();
  /** What the cache must still have, unless it had to make room. */
  readonly kept = new Map<string, Minted>();
  readonly heldUntilMs = new Map<string, number>();
  /** Dropped, and perhaps while a fetch waited for its turn, which then is not kept either. */
  readonly unsure = new Set<string>();
  readonly epochs = new Map<string, number>();
  /** Found where nobody would see an exception. */
  readonly violations: unknown[] = [];
  isWanted = true;
  asked = 0;
  answered = 0;
  #isDisposed = false;

  constructor(scheduler: fc.Scheduler, endings: readonly Ending[], maxEntries: number) {
    this.scheduler = scheduler;
    this.endings = endings;
    this.maxEntries = maxEntries;
    let random = 0;
    this.cache = new TokenCache<Keyed, Failure>({
      clock: this.clock,
      random: () => (random = (random + 0.37) % 1),
      gateOf: () => this.gate,
      partyOf: ({ key }) => ({ namespace: 'default', pod: key }),
      fetch: ({ key }) => this.#fetch(key),
      isWanted: () => this.isWanted,
      onRefresh: () => undefined,
      onBug: (error) => {
        if (!/bug/.test(String(error))) this.violations.push(error);
      },
      failures: {
        overloaded: { name: 'overloaded', holdMs: 0 },
        late: { name: 'late', holdMs: 0 },
        expired: { name: 'expired', holdMs: 1_000 },
      },
      ...{ maxEntries, maxWaiters, minLifeMs, waitMs, waitWithTokenMs: 1_000 },
      usedWithinMs: 3 * hourMs,
    });
  }

  ask(key: string, boundMs: number): void {
    this.asked++;
    const epoch = this.#epochOf(key);
    void this.cache
      .get({ key }, boundMs)
      .then(
        (answer) => {
          this.#check(key, epoch, answer);
        },
        (error: unknown) => {
          assert.match(String(error), /bug/);
          assert.ok(!this.#mustHave(key), 'a valid token and yet an error');
        },
      )
      .catch((error: unknown) => this.violations.push(error))
      .finally(() => this.answered++);
  }

  async dispose(): Promise<void> {
    this.cache[Symbol.dispose]();
    this.gate[Symbol.dispose]();
    await nextTurn();
    this.kept.clear();
    this.#isDisposed = true;
  }

  drop(key: string): void {
    this.epochs.set(key, this.#epochOf(key) + 1);
    this.kept.delete(key);
    this.heldUntilMs.delete(key);
    this.unsure.add(key);
    this.cache.drop((request) => request.key === key);
  }

  checkBounds(): void {
    assert.deepEqual(this.violations, []);
    const { holds, flights, waiting } = this.cache.stats;
    assert.ok(this.cache.size <= this.maxEntries);
    assert.ok(holds <= this.maxEntries);
    assert.ok(waiting <= maxWaiters);
    assert.ok(flights <= limits.maxConcurrent + 2 * limits.maxQueued);
    assert.ok(this.clock.armed.length <= 2, 'a timer of the cache and one of the gate');
  }

  #check(key: string, epoch: number, answer: Cached<Failure>): void {
    const [nowWallMs, nowMs] = [this.clock.wallMs(), this.clock.monotonicMs()];
    if (!answer.ok) {
      assert.ok(!this.#mustHave(key), `a valid token and yet ${answer.failure.name}`);
      return;
    }
    const token = this.minted.get(answer.rendered.token.accessToken);
    assert.ok(token !== undefined);
    assert.equal(token.key, key, 'another key’s token');
    assert.ok(token.endsAtWallMs > nowWallMs && token.endsAtMs > nowMs, 'an expired token');
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

  async #fetch(key: string): Promise<Fetched<Failure>> {
    const startMs = this.clock.monotonicMs();
    assert.ok(!this.running.has(key), 'two flights for one key');
    this.running.add(key);
    assert.ok(this.running.size <= limits.maxConcurrent);
    const number = this.startsAtMs.push(startMs);
    const earlierMs = this.startsAtMs[number - 1 - limits.maxPerSec] ?? -Infinity;
    assert.ok(startMs - earlierMs >= 1_000, 'too many in a second');
    assert.ok(startMs >= (this.heldUntilMs.get(key) ?? 0), 'a call within the hold');
    const epoch = this.#epochOf(key);

    await this.scheduler.schedule(Promise.resolve(), key);
    this.running.delete(key);
    const isDropped = this.#isDisposed || epoch !== this.#epochOf(key);
    const isUnsure = this.unsure.delete(key);
    const ending = this.endings[number % this.endings.length] ?? { kind: 'bug' };
    if (ending.kind === 'bug') throw new Error('bug');
    if (ending.kind === 'failure') {
      if (!isDropped && !isUnsure) this.#hold(key, ending.holdMs);
      return { ok: false, failure: { name: 'upstream', holdMs: ending.holdMs } };
    }
    const { lifeMs } = ending;
    const token = createToken(this.clock, `${key}#${number}`, lifeMs);
    const minted = {
      ...{ key, epoch, lifeMs },
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

  #hold(key: string, holdMs: number): void {
    this.heldUntilMs.delete(key);
    if (holdMs === 0) return;
    this.heldUntilMs.set(key, this.clock.monotonicMs() + holdMs);
    // The cache forgets the holds of more keys than it has room for.
    if (this.maxEntries < keys.length) this.heldUntilMs.clear();
  }

  #epochOf(key: string): number {
    return this.epochs.get(key) ?? 0;
  }
}

async function take(world: World, step: Step): Promise<void> {
  const { clock, scheduler } = world;
  switch (step.kind) {
    case 'ask':
      world.ask(step.key, step.waitMs);
      break;
    case 'land':
      if (scheduler.count() > 0) await scheduler.waitNext(1);
      break;
    case 'pass':
      await pass(clock, step.ms);
      break;
    case 'jump':
      clock.jumpWall(step.ms);
      break;
    case 'drop':
      world.drop(step.key);
      break;
    case 'want':
      world.isWanted = step.isWanted;
      break;
  }
  await nextTurn();
  world.checkBounds();
}

async function landAll({ scheduler }: World): Promise<void> {
  for (let count = 0; scheduler.count() > 0 && count < 1_000; count++) await scheduler.waitNext(1);
  await nextTurn();
}

const anyRun = [
  fc.scheduler(),
  fc.array(anyStep, { minLength: 1, maxLength: 80 }),
  fc.array(anyEnding, { minLength: 1, maxLength: 12 }),
  fc.constantFrom(2, 100),
] as const;

describe('the token cache under any order of events', () => {
  it('keeps its promises, and has answered everyone once their time is up', async () => {
    await fc.assert(
      fc.asyncProperty(...anyRun, async (scheduler, steps, endings, maxEntries) => {
        const world = new World(scheduler, endings, maxEntries);
        for (const step of steps) await take(world, step);
        // No fetch ends any more; only time passes.
        await pass(world.clock, waitMs);
        assert.equal(world.answered, world.asked);
        assert.equal(world.cache.stats.waiting, 0);
        await world.dispose();
        await landAll(world);
        assert.deepEqual(world.clock.armed, []);
        assert.deepEqual(world.violations, []);
      }),
      { numRuns: 1_000 },
    );
  });

  it('asks nothing within a hold, though a step of the clock puts off the end of a token', async () => {
    const endings = [
      { kind: 'failure', holdMs: 0 },
      { kind: 'token', lifeMs: 6 * minuteMs },
      { kind: 'failure', holdMs: 7_000 },
    ] as const;
    const steps: readonly Step[] = [
      { kind: 'ask', key: 'a', waitMs },
      { kind: 'land' },
      // Its refresh fails when the token has ended, and the clock steps before it is forgotten.
      { kind: 'pass', ms: 30 * minuteMs },
      { kind: 'land' },
      { kind: 'jump', ms: -hourMs },
      { kind: 'pass', ms: 1 },
    ];
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), async (scheduler) => {
        const world = new World(scheduler, endings, 100);
        for (const step of steps) await take(world, step);
        assert.equal(world.startsAtMs.length, 2);
        await pass(world.clock, 7_000);
        assert.equal(world.startsAtMs.length, 3);
        await world.dispose();
        await landAll(world);
      }),
      { numRuns: 1 },
    );
  });

  it('can be disposed at any moment: everyone is answered, nothing is armed or asked', async () => {
    await fc.assert(
      fc.asyncProperty(...anyRun, async (scheduler, steps, endings, maxEntries) => {
        const world = new World(scheduler, endings, maxEntries);
        for (const step of steps) await take(world, step);
        const calls = world.startsAtMs.length;
        await world.dispose();
        assert.equal(world.answered, world.asked);
        assert.deepEqual(world.clock.armed, []);
        await landAll(world);
        world.ask('a', waitMs);
        await nextTurn();
        assert.equal(world.answered, world.asked);
        assert.deepEqual(world.clock.armed, []);
        assert.equal(world.startsAtMs.length, calls);
        assert.equal(world.cache.size, 0);
        assert.ok(world.cache.isEmpty);
        assert.deepEqual(world.violations, []);
      }),
      { numRuns: 1_000 },
    );
  });
});
