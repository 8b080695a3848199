import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Log } from '../../../src/base/log.ts';
import {
  Reconciler,
  type CheckOutcome,
  type ReconcilerOptions,
} from '../../../src/nmi/kernel/reconciler.ts';
import { asRedirectError } from '../../../src/redirect/native/addon.ts';
import {
  RedirectError,
  type Redirect,
  type RedirectStatus,
} from '../../../src/redirect/redirect.ts';
import { HandClock } from '../../support/hand-clock.ts';

const active: RedirectStatus = { state: 'active', detail: 'nft', problems: [] };
const absent: RedirectStatus = { state: 'absent', detail: 'nothing', problems: ['no chain'] };
const broken: RedirectStatus = { state: 'broken', detail: 'nft', problems: ['jump is gone'] };

/** A kernel in one variable: the current state, and whether an installation works. */
function open(initial: RedirectStatus, more: Partial<ReconcilerOptions> = {}) {
  const clock = new HandClock();
  const testBed = {
    now: initial,
    installError: undefined as RedirectError | undefined,
    verifyError: undefined as Error | undefined,
    /** Each check waits for it. */
    held: undefined as Promise<void> | undefined,
    /** Each installation waits for it. */
    heldInstall: undefined as Promise<void> | undefined,
    installs: 0,
    reads: 0,
    isFrontWhole: false,
    /** Installations that another process reverts before they are verified. */
    undone: 0,
  };
  const redirect: Redirect = {
    mode: 'iptables',
    prepare: () => Promise.resolve(),
    isFrontWhole: async () => testBed.isFrontWhole,
    verify: async () => {
      testBed.reads++;
      if (testBed.held !== undefined) await testBed.held;
      if (testBed.verifyError !== undefined) throw testBed.verifyError;
      return testBed.now;
    },
    install: async () => {
      testBed.installs++;
      if (testBed.heldInstall !== undefined) await testBed.heldInstall;
      if (testBed.installError !== undefined) throw testBed.installError;
      testBed.now = testBed.undone > 0 ? broken : active;
      testBed.undone--;
      return testBed.now;
    },
    remove: () => Promise.reject(new Error('nobody removes the redirect')),
    attest: () => ({ kind: 'by-address' }),
  };
  const lines: string[] = [];
  const add = (level: string) => (_fields: unknown, message: string) => {
    lines.push(`${level} ${message}`);
  };
  const details: Readonly<Record<string, unknown>>[] = [];
  const log: Log = {
    debug: (fields) => {
      details.push({ ...fields });
    },
    info: add('info'),
    warn: add('warn'),
    error: add('error'),
  };
  const outcomes: CheckOutcome[] = [];
  const keeper = new Reconciler({
    redirect,
    intervalMs: 10_000,
    clock,
    log,
    onCheck: (outcome) => outcomes.push(outcome),
    ...more,
  });
  const pass = async (ms: number) => {
    clock.advance(ms);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  return { clock, testBed, keeper, lines, details, outcomes, pass };
}

describe('the reconciler of the redirect', () => {
  it('settles a minute after an installation, and seconds after a start or a repair', async () => {
    const { keeper, testBed, pass, clock } = open(active);
    assert.equal(keeper.settledAtMs, undefined);
    await keeper.start();
    const startMs = clock.monotonicMs();
    assert.equal(keeper.settledAtMs, startMs + 5_000);
    await pass(10_000);
    assert.equal(keeper.settledAtMs, startMs + 5_000);
    testBed.now = broken;
    await pass(10_000);
    assert.equal(keeper.settledAtMs, startMs + 25_000);
    testBed.now = absent;
    await pass(10_000);
    assert.equal(keeper.settledAtMs, startMs + 90_000);
    testBed.now = broken;
    await pass(10_000);
    assert.equal(keeper.settledAtMs, startMs + 90_000, 'a repair does not shorten it');
  });

  it('installs at start, checks at each interval and repairs drift', async () => {
    const { keeper, testBed, pass, outcomes, lines } = open(absent);
    await keeper.start();
    assert.equal(keeper.problem(), undefined);
    assert.notEqual(keeper.settledAtMs, undefined);
    await pass(10_000);
    testBed.now = broken;
    await pass(9_999);
    assert.equal(testBed.installs, 1);
    await pass(1);
    assert.equal(testBed.installs, 2);
    assert.deepEqual(outcomes, ['installed', 'unchanged', 'repaired']);
    assert.deepEqual(lines, [
      'info redirect installed',
      'warn redirect drift detected and repaired',
    ]);
    await keeper[Symbol.asyncDispose]();
  });

  it('repairs at the first check after a break, at any time and any number of times', async () => {
    const { keeper, testBed, pass, outcomes } = open(absent);
    await keeper.start();
    for (let round = 1; round <= 100; round++) {
      // At a different point of the interval each time, and after zero to three checks without a
      // break.
      for (let idle = 0; idle < round % 4; idle++) await pass(10_000);
      const beforeMs = (round * 97) % 10_000;
      await pass(beforeMs);
      testBed.now = round % 2 === 0 ? broken : absent;
      const checks = outcomes.length;
      await pass(10_000 - beforeMs - 1);
      assert.equal(outcomes.length, checks, `round ${round}: a check too early`);
      await pass(1);
      assert.equal(testBed.now, active, `round ${round}`);
      assert.deepEqual(outcomes.slice(checks), [round % 2 === 0 ? 'repaired' : 'installed']);
    }
    assert.equal(testBed.installs, 101);
    await keeper[Symbol.asyncDispose]();
  });

  it('has the problem while a repair of it runs', async () => {
    const { keeper, testBed, pass } = open(active);
    await keeper.start();
    const { promise, resolve } = Promise.withResolvers<void>();
    testBed.heldInstall = promise;
    testBed.now = broken;
    await pass(10_000);
    assert.equal(testBed.installs, 1);
    assert.equal(keeper.problem(), 'jump is gone');
    resolve();
    await pass(0);
    assert.equal(keeper.problem(), undefined);
    await keeper[Symbol.asyncDispose]();
  });

  it('reads the whole state once a minute, and at once if its front has changed', async () => {
    const { keeper, testBed, pass, outcomes } = open(active);
    testBed.isFrontWhole = true;
    await keeper.start();
    testBed.now = broken;
    for (let round = 0; round < 5; round++) await pass(10_000);
    assert.deepEqual([testBed.reads, testBed.installs], [1, 0]);
    await pass(10_000);
    assert.deepEqual([testBed.reads, testBed.installs], [2, 1]);
    await pass(10_000);
    testBed.now = broken;
    testBed.isFrontWhole = false;
    await pass(10_000);
    assert.deepEqual([testBed.reads, testBed.installs], [4, 2]);
    assert.equal(outcomes.at(-1), 'repaired');
    testBed.isFrontWhole = true;
    await keeper.pause();
    await pass(20_000);
    assert.equal(testBed.reads, 5, 'also while it is paused');
    await keeper[Symbol.asyncDispose]();
  });

  it('tries again at once when a repair is reverted immediately, a limited number of times', async () => {
    const { keeper, testBed, pass, outcomes } = open(active);
    await keeper.start();
    testBed.now = broken;
    testBed.undone = 2;
    await pass(10_000);
    assert.equal(testBed.installs, 3);
    testBed.now = broken;
    testBed.undone = 100;
    await pass(10_000);
    assert.equal(testBed.installs, 6);
    assert.deepEqual(outcomes, ['unchanged', 'repaired', 'failed']);
    assert.equal(keeper.problem(), 'jump is gone');
    await keeper[Symbol.asyncDispose]();
  });

  it('repairs what is not active, and what is active with a problem', async () => {
    for (const wrong of [
      { ...broken, problems: [] },
      { ...absent, problems: [] },
      { ...active, problems: ['older rule'] },
    ]) {
      const { keeper, testBed } = open(wrong);
      await keeper.start();
      assert.equal(testBed.now, active);
      await keeper[Symbol.asyncDispose]();
    }
  });

  it('stays up over failures, retries with growing pauses and logs the transition once', async () => {
    const { keeper, testBed, pass, outcomes, lines } = open(absent);
    testBed.installError = new RedirectError('BUSY', 'restore', 'the lock is held');
    await keeper.start();
    assert.match(keeper.problem() ?? '', /BUSY: restore: the lock is held/);
    assert.equal(keeper.settledAtMs, undefined);
    for (const [tries, pauseMs] of [250, 500, 1000, 2000].entries()) {
      await pass(pauseMs - 1);
      assert.equal(testBed.installs, tries + 1, 'not too early');
      await pass(1);
      assert.equal(testBed.installs, tries + 2);
    }
    testBed.installError = undefined;
    await pass(4_000);
    assert.equal(keeper.problem(), undefined);
    assert.deepEqual(outcomes, [...Array<string>(5).fill('failed'), 'installed']);
    assert.deepEqual(lines, ['error redirect not in place, retrying', 'info redirect installed']);
    await keeper[Symbol.asyncDispose]();
  });

  it('retries no later than asked for', async () => {
    const { keeper, testBed, pass } = open(absent, { longestRetryMs: 1_000 });
    testBed.installError = new RedirectError('BUSY', 'restore', 'the lock is held');
    await keeper.start();
    for (const pauseMs of [250, 500, 1000, 1000, 1000, 1000]) await pass(pauseMs);
    assert.equal(testBed.installs, 7);
    testBed.installError = undefined;
    await pass(1_000);
    assert.equal(keeper.problem(), undefined);
    await keeper[Symbol.asyncDispose]();
  });

  it('keeps the full verifier log for debugging', async () => {
    const { keeper, testBed, lines, details } = open(absent);
    const detail = 'func#0 @0\n'.repeat(1_000);
    const refused = Object.assign(new Error('Permission denied'), {
      code: 'EACCES',
      errno: 13,
      step: 'load',
      detail,
    });
    testBed.installError = asRedirectError(refused) as RedirectError;
    await keeper.start();
    assert.ok((keeper.problem() ?? '').length < 700);
    const err = 'UNSUPPORTED: load: Permission denied (func#0 @0 | func#0 @0 | func#0 @0)';
    assert.deepEqual(details, [{ err, kernelLog: detail }]);
    assert.deepEqual(lines, ['error redirect not in place, retrying']);
    await keeper[Symbol.asyncDispose]();
  });

  it('stops checking when it is disposed during its first check', async () => {
    const { keeper, clock, outcomes } = open(active);
    const started = keeper.start();
    await keeper[Symbol.asyncDispose]();
    await started;
    assert.deepEqual(clock.armed, []);
    assert.deepEqual(outcomes, ['unchanged']);
  });

  it('leaves the redirect in place and nothing armed when it is disposed', async () => {
    const { keeper, clock, testBed } = open(absent);
    await keeper.start();
    await keeper[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
    assert.equal(testBed.now, active);
  });

  it('changes nothing and has no problem while another process keeps the redirect in its way', async () => {
    const { keeper, testBed, pass, outcomes } = open(absent);
    await keeper.start();
    await keeper.pause();
    testBed.now = broken;
    for (let round = 0; round < 20; round++) {
      await pass(10_000);
      assert.equal(keeper.problem(), undefined);
    }
    assert.match(keeper.status.detail, /^maintained by another agent; nft$/);
    assert.deepEqual([testBed.installs, outcomes], [1, ['installed']]);
    await keeper[Symbol.asyncDispose]();
  });

  it('has a problem when there is no redirect, whoever keeps it, and looks again soon', async () => {
    const { keeper, testBed, pass } = open(active);
    await keeper.start();
    await keeper.pause();
    testBed.now = absent;
    await pass(10_000);
    assert.deepEqual([keeper.problem(), testBed.installs], ['no chain', 0]);
    testBed.now = broken;
    await pass(999);
    assert.equal(keeper.problem(), 'no chain');
    await pass(1);
    assert.equal(keeper.problem(), undefined);
    await keeper[Symbol.asyncDispose]();
  });

  it('repairs at once what the other process left, and has no problem meanwhile', async () => {
    const { keeper, testBed, pass, outcomes } = open(active);
    await keeper.start();
    await keeper.pause();
    testBed.now = broken;
    await pass(10_000);
    const { promise, resolve } = Promise.withResolvers<void>();
    testBed.heldInstall = promise;
    keeper.resume();
    await pass(0);
    assert.deepEqual([testBed.installs, keeper.problem()], [1, undefined]);
    resolve();
    await pass(0);
    assert.deepEqual([testBed.now, keeper.problem()], [active, undefined]);
    assert.deepEqual(outcomes, ['unchanged', 'repaired']);
    await pass(9_999);
    assert.equal(outcomes.length, 2);
    // What breaks later is a problem until it is repaired.
    testBed.heldInstall = Promise.withResolvers<void>().promise;
    testBed.now = broken;
    await pass(1);
    assert.equal(keeper.problem(), 'jump is gone');
  });

  it('has the problem when the other process left no redirect, or what it left cannot be repaired', async () => {
    const { keeper, testBed, pass } = open(active);
    await keeper.start();
    await keeper.pause();
    testBed.now = absent;
    testBed.heldInstall = Promise.withResolvers<void>().promise;
    keeper.resume();
    await pass(0);
    assert.equal(keeper.problem(), 'no chain');

    const other = open(active);
    await other.keeper.start();
    await other.keeper.pause();
    other.testBed.now = broken;
    other.testBed.installError = new RedirectError('BUSY', 'restore', 'the lock is held');
    other.keeper.resume();
    await other.pass(0);
    assert.match(other.keeper.problem() ?? '', /the lock is held/);
    other.testBed.installError = undefined;
    await other.pass(250);
    assert.equal(other.keeper.problem(), undefined);
    await other.keeper[Symbol.asyncDispose]();
  });

  it('checks once more when a pause ends during its first check, and stays paused when one begins again', async () => {
    const { keeper, testBed, pass, outcomes } = open(absent);
    const { promise, resolve } = Promise.withResolvers<void>();
    testBed.held = promise;
    const pausing = keeper.pause();
    const started = keeper.start();
    await pass(0);
    keeper.resume();
    resolve();
    await Promise.all([pausing, started]);
    assert.deepEqual(outcomes, []);
    await pass(0);
    assert.deepEqual(outcomes, ['installed']);
    testBed.held = Promise.withResolvers<void>().promise;
    await pass(10_000);
    const again = keeper.pause();
    keeper.resume();
    void keeper.pause();
    testBed.now = broken;
    await pass(60_000);
    assert.deepEqual(outcomes, ['installed']);
    void again;
  });

  it('begins no check when a pause ends after its disposal', async () => {
    const { keeper, clock } = open(active);
    await keeper.start();
    await keeper.pause();
    await keeper[Symbol.asyncDispose]();
    keeper.resume();
    assert.deepEqual(clock.armed, []);
  });

  it('reports what another process keeps, though it never succeeded itself', async () => {
    const { keeper, testBed, pass, lines } = open(absent);
    testBed.installError = new RedirectError('BUSY', 'load', 'refused');
    await keeper.start();
    await keeper.pause();
    assert.deepEqual([keeper.problem(), keeper.settledAtMs], ['BUSY: load: refused', undefined]);
    testBed.now = broken;
    await pass(10_000);
    assert.equal(keeper.problem(), undefined);
    assert.notEqual(keeper.settledAtMs, undefined);
    testBed.now = active;
    await pass(10_000);
    keeper.resume();
    await pass(10_000);
    assert.deepEqual(lines, ['error redirect not in place, retrying'], 'it installed nothing');
    await keeper[Symbol.asyncDispose]();
  });

  it('reports a success after a single failure, though it was active before', async () => {
    const { keeper, testBed, pass, lines } = open(active);
    await keeper.start();
    testBed.verifyError = new Error('a bug of ours');
    await pass(10_000);
    assert.equal(keeper.problem(), 'a bug of ours');
    testBed.verifyError = undefined;
    await pass(250);
    assert.equal(keeper.problem(), undefined);
    assert.deepEqual(lines, [
      'info redirect installed',
      'error redirect not in place, retrying',
      'info redirect installed',
    ]);
    await keeper[Symbol.asyncDispose]();
  });

  it('has no problem when no redirect is configured, and reports the end of the last one', async () => {
    const off: RedirectStatus = { state: 'off', detail: 'no redirect', problems: [] };
    const { keeper, testBed, pass, lines } = open(off);
    await keeper.start();
    assert.deepEqual([keeper.problem(), lines], [undefined, []]);
    testBed.verifyError = new RedirectError('BUSY', 'list', 'the lock is held');
    await pass(10_000);
    testBed.verifyError = undefined;
    await pass(250);
    assert.deepEqual(lines, [
      'error redirect not in place, retrying',
      'info no redirect is left behind',
    ]);
    assert.equal(testBed.installs, 0);
    await keeper[Symbol.asyncDispose]();
  });

  for (const [what, end] of [
    ['paused', (keeper: Reconciler) => keeper.pause()],
    ['disposed', (keeper: Reconciler) => keeper[Symbol.asyncDispose]()],
  ] as const) {
    it(`is ${what} only after a running check has ended`, async () => {
      const { keeper, testBed } = open(absent);
      const { promise, resolve } = Promise.withResolvers<void>();
      testBed.held = promise;
      const started = keeper.start();
      let isOver = false;
      const ending = end(keeper).then(() => (isOver = true));
      await new Promise(setImmediate);
      assert.deepEqual([isOver, testBed.installs], [false, 0]);
      resolve();
      await ending;
      assert.equal(testBed.installs, 1);
      await started;
      await keeper[Symbol.asyncDispose]();
    });
  }
});
