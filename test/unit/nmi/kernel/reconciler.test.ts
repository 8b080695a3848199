import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Log } from '../../../../src/base/log.ts';
import { Reconciler, type ReconcilerOptions } from '../../../../src/nmi/kernel/reconciler.ts';
import type { Neighbor, Side } from '../../../../src/nmi/kernel/slots.ts';
import { asRedirectError } from '../../../../src/redirect/native/addon.ts';
import {
  RedirectError,
  type Redirect,
  type RedirectStatus,
} from '../../../../src/redirect/redirect.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const active: RedirectStatus = { state: 'active', detail: 'nft', problems: [] };
const absent: RedirectStatus = { state: 'absent', detail: 'nothing', problems: ['no chain'] };
const broken: RedirectStatus = { state: 'broken', detail: 'nft', problems: ['jump is gone'] };

const [ownPort, otherPort] = [2580, 2579];
const activeAt = (port: number): RedirectStatus => ({ ...active, port });

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
    install: async (port) => {
      testBed.installs++;
      if (testBed.heldInstall !== undefined) await testBed.heldInstall;
      if (testBed.installError !== undefined) throw testBed.installError;
      const installed = port === undefined ? active : activeAt(port);
      testBed.now = testBed.undone > 0 ? { ...broken, port } : installed;
      testBed.undone--;
      return testBed.now;
    },
    remove: () => Promise.reject(new Error('nobody removes the redirect')),
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
  const outcomes: string[] = [];
  const keeper = new Reconciler({
    redirect,
    intervalMs: 10_000,
    clock,
    log,
    listenPort: otherPort,
    hasSlots: false,
    unrecordedCallers: 'by-link',
    ...more,
    onStatus: () => {
      for (const [outcome, count] of Object.entries(keeper.checks)) {
        if (count > outcomes.filter((each) => each === outcome).length) outcomes.push(outcome);
      }
      more.onStatus?.();
    },
  });
  const pass = async (ms: number) => {
    clock.advance(ms);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  return { clock, testBed, keeper, lines, details, outcomes, pass };
}

/**
 * The same with another agent on the node. At first it takes connections and its process runs, and the own agent is younger
 * and not ready.
 */
async function openBeside(initial: RedirectStatus, more: Partial<ReconcilerOptions> = {}) {
  const agents = {
    own: { port: ownPort, listens: false, order: 2 } as Side,
    other: { port: otherPort, listens: true, order: 1, isHeld: true } as Neighbor | undefined,
    looks: 0,
    statuses: 0,
    hasLeft: false,
    /** Calls back as after a change of the other agent's file. */
    onChange: undefined as (() => void) | undefined,
    /** Checks that run. */
    turns: 0,
  };
  const slot = {
    port: ownPort,
    isAlone: () => false,
    [Symbol.dispose]: () => undefined,
    own: () => agents.own,
    other: () => {
      agents.looks++;
      return agents.other;
    },
    leave: () => void (agents.hasLeft = true),
    watch: (onChange: () => void) => {
      agents.onChange = onChange;
      return { [Symbol.dispose]: () => void (agents.onChange = undefined) };
    },
    turn: async () => {
      agents.turns++;
      return { [Symbol.dispose]: () => void agents.turns-- };
    },
  };
  const takeSlot = async () => slot;
  const fixture = open(initial, { takeSlot, onStatus: () => agents.statuses++, ...more });
  await fixture.keeper.prepare();
  return {
    ...fixture,
    agents,
    own: (change: Partial<Side>) => (agents.own = { ...agents.own, ...change }),
    other: (change: Partial<Neighbor>) => {
      assert.ok(agents.other !== undefined);
      agents.other = { ...agents.other, ...change };
    },
  };
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

  it('has the problem of a repair that takes longer than a second, and none of a shorter one', async () => {
    const { keeper, testBed, pass, clock } = open(active);
    await keeper.start();
    const { promise, resolve } = Promise.withResolvers<void>();
    testBed.heldInstall = promise;
    testBed.now = broken;
    await pass(10_000);
    assert.equal(testBed.installs, 1);
    await pass(999);
    assert.equal(keeper.problem(), undefined);
    await pass(1);
    assert.equal(keeper.problem(), 'jump is gone');
    resolve();
    await pass(0);
    assert.equal(keeper.problem(), undefined);
    assert.equal(clock.armed.length, 1, 'the next check');
    await keeper[Symbol.asyncDispose]();
  });

  it('has the problem at once where there is no redirect, or was none before', async () => {
    const held = Promise.withResolvers<void>().promise;
    const settled = open(active);
    await settled.keeper.start();
    settled.testBed.heldInstall = held;
    settled.testBed.now = absent;
    await settled.pass(10_000);
    assert.equal(settled.keeper.problem(), 'no chain');
    const first = open(broken);
    first.testBed.heldInstall = held;
    void first.keeper.start();
    await first.pass(0);
    assert.equal(first.keeper.problem(), 'jump is gone');
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
    await keeper[Symbol.asyncDispose]();
  });

  it('reads the whole state less than six times in a minute, however long the interval is', async () => {
    for (const [intervalMs, most] of [
      [1_000, 6],
      [30_000, 2],
      [60_000, 1],
      [300_000, 1],
    ] as const) {
      const { keeper, testBed, pass } = open(active, { intervalMs });
      testBed.isFrontWhole = true;
      await keeper.start();
      for (let round = 1; round < most; round++) await pass(intervalMs);
      assert.equal(testBed.reads, 1, `each ${intervalMs} ms`);
      await pass(intervalMs);
      assert.equal(testBed.reads, 2);
      await keeper[Symbol.asyncDispose]();
    }
  });

  it('reads the whole state after a check that failed', async () => {
    const { keeper, testBed, pass } = open(active);
    testBed.isFrontWhole = true;
    testBed.verifyError = new Error('busy');
    await keeper.start();
    testBed.verifyError = undefined;
    await pass(250);
    assert.equal(testBed.reads, 2);
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

  it('is disposed only after a running check has ended', async () => {
    const { keeper, testBed } = open(absent);
    const { promise, resolve } = Promise.withResolvers<void>();
    testBed.held = promise;
    const started = keeper.start();
    let isOver = false;
    const ending = keeper[Symbol.asyncDispose]().then(() => (isOver = true));
    await new Promise(setImmediate);
    assert.deepEqual([isOver, testBed.installs], [false, 0]);
    resolve();
    await ending;
    assert.equal(testBed.installs, 1);
    await started;
  });
});

describe('the reconciler of the redirect beside another agent', () => {
  it('changes nothing and has no problem while the other one maintains the redirect in its way', async () => {
    const { keeper, testBed, pass, outcomes, lines, clock } = await openBeside(activeAt(otherPort));
    await keeper.start();
    assert.notEqual(keeper.settledAtMs, undefined);
    testBed.now = { ...broken, port: otherPort };
    for (let round = 0; round < 20; round++) {
      await pass(10_000);
      assert.deepEqual([keeper.problem(), keeper.isOwner], [undefined, false]);
    }
    assert.equal(keeper.status().detail, 'of another agent; nft');
    assert.deepEqual([testBed.installs, outcomes], [0, []]);
    assert.deepEqual(lines, ['info another agent maintains the redirect']);
    await keeper[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
  });

  it('takes the redirect as soon as its own agent listens, within a look', async () => {
    const { keeper, testBed, pass, outcomes, lines, own } = await openBeside(activeAt(otherPort));
    await keeper.start();
    await pass(5_000);
    assert.equal(testBed.reads, 1, 'looks are no checks');
    own({ listens: true });
    await pass(250);
    await pass(0);
    assert.deepEqual([testBed.now, keeper.isOwner], [activeAt(ownPort), true]);
    assert.deepEqual(outcomes, ['unchanged']);
    assert.equal(lines.at(-1), 'info redirect points at another agent now');
    testBed.now = { ...broken, port: ownPort };
    await pass(10_000);
    assert.deepEqual(
      [testBed.now, outcomes.at(-1)],
      [activeAt(ownPort), 'repaired'],
      'it is the owner',
    );
    await keeper[Symbol.asyncDispose]();
  });

  it('leaves the redirect to the younger one, also when that one has moved it', async () => {
    const { keeper, testBed, pass, own, other } = await openBeside(activeAt(ownPort));
    own({ listens: true, order: 1 });
    other({ order: 2, listens: false });
    await keeper.start();
    assert.equal(keeper.isOwner, true);
    other({ listens: true });
    await pass(30_000);
    assert.deepEqual([testBed.installs, testBed.now], [0, activeAt(ownPort)]);
    testBed.now = activeAt(otherPort);
    await pass(10_000);
    assert.deepEqual([testBed.installs, keeper.isOwner, keeper.problem()], [0, false, undefined]);
    await keeper[Symbol.asyncDispose]();
  });

  it('lets the other one take the redirect while its own agent does not listen', async () => {
    const { keeper, testBed, pass, own } = await openBeside(activeAt(ownPort));
    own({ listens: true });
    await keeper.start();
    own({ listens: false });
    await pass(250);
    await pass(0);
    assert.deepEqual([testBed.installs, keeper.isOwner], [0, false]);
    await keeper[Symbol.asyncDispose]();
  });

  it('takes the redirect of one that leaves, at once', async () => {
    const { keeper, testBed, agents, pass, own, other } = await openBeside(activeAt(otherPort));
    own({ listens: true, order: 1 });
    agents.other = undefined;
    testBed.now = activeAt(ownPort);
    await keeper.start();
    await pass(3_000);
    agents.other = { port: otherPort, listens: true, order: 2, isHeld: true };
    testBed.now = activeAt(otherPort);
    agents.onChange?.();
    await pass(0);
    assert.deepEqual([testBed.installs, keeper.isOwner], [0, false]);
    other({ order: -2 });
    agents.onChange?.();
    await pass(0);
    assert.deepEqual([testBed.now, keeper.isOwner], [activeAt(ownPort), true]);
    await keeper[Symbol.asyncDispose]();
    assert.equal(agents.onChange, undefined);
  });

  it('takes the redirect when the process of the other one is gone', async () => {
    const { keeper, testBed, pass, other } = await openBeside(activeAt(otherPort));
    await keeper.start();
    other({ isHeld: false });
    await pass(250);
    await pass(0);
    testBed.now = { ...broken, port: otherPort };
    await pass(10_000);
    assert.deepEqual(testBed.now, activeAt(otherPort), 'maintained for it while it listens');
    assert.equal(keeper.isOwner, true);
    other({ listens: false });
    await pass(250);
    await pass(0);
    assert.deepEqual(testBed.now, activeAt(ownPort));
    await keeper[Symbol.asyncDispose]();
  });

  it('looks no more once there is no other one', async () => {
    const { keeper, agents, pass, clock, own } = await openBeside(activeAt(ownPort));
    own({ listens: true });
    await keeper.start();
    agents.other = undefined;
    await pass(250);
    await pass(0);
    const { looks } = agents;
    await pass(9_000);
    assert.equal(agents.looks, looks);
    assert.equal(clock.armed.length, 1, 'the next check');
    await keeper[Symbol.asyncDispose]();
  });

  it('reports each look, and none that fails', async () => {
    const { keeper, agents, pass, testBed } = await openBeside(activeAt(otherPort));
    await keeper.start();
    assert.equal(agents.statuses, 1);
    for (let round = 0; round < 4; round++) await pass(250);
    assert.equal(agents.statuses, 5);
    const { own } = agents;
    Object.defineProperty(agents, 'own', {
      get: () => {
        throw new Error('no descriptors left');
      },
      configurable: true,
    });
    for (let round = 0; round < 4; round++) await pass(250);
    assert.deepEqual([agents.statuses, testBed.reads], [9, 1]);
    await pass(8_000);
    assert.equal(keeper.problem(), 'no descriptors left', 'the check meets it');
    Object.defineProperty(agents, 'own', { value: own });
    await pass(250);
    assert.equal(keeper.problem(), undefined);
    await keeper[Symbol.asyncDispose]();
  });

  it('has a problem when there is no redirect, whoever maintains it, and installs it', async () => {
    const { keeper, testBed, pass, outcomes, agents } = await openBeside(activeAt(otherPort));
    await keeper.start();
    testBed.now = absent;
    const { promise, resolve } = Promise.withResolvers<void>();
    testBed.heldInstall = promise;
    await pass(10_000);
    assert.deepEqual([keeper.problem(), agents.turns], ['no chain', 1]);
    resolve();
    await pass(0);
    assert.deepEqual(
      [keeper.problem(), agents.turns],
      [undefined, 0],
      'nobody else checks meanwhile',
    );
    assert.deepEqual(testBed.now, activeAt(otherPort));
    assert.deepEqual(outcomes, ['installed']);
    await keeper[Symbol.asyncDispose]();
  });

  it('waits longer after each failure, however often it looks', async () => {
    const { keeper, testBed, pass, own, other } = await openBeside(activeAt(otherPort));
    await keeper.start();
    testBed.installError = new RedirectError('BUSY', 'restore', 'the lock is held');
    own({ listens: true });
    await pass(250);
    await pass(0);
    let installs = 1;
    for (const pauseMs of [250, 500, 1_000, 2_000, 4_000]) {
      assert.equal(testBed.installs, installs, `before ${pauseMs}`);
      for (let passed = 0; passed < pauseMs; passed += 250) await pass(250);
      assert.equal(testBed.installs, (installs += 1), `after ${pauseMs}`);
    }
    // A change of the other agent is something new.
    other({ isHeld: false });
    testBed.installError = undefined;
    await pass(250);
    await pass(0);
    assert.deepEqual(testBed.now, activeAt(ownPort));
    await keeper[Symbol.asyncDispose]();
  });

  describe('when its process ends', () => {
    const cases = [
      ['takes no connections', { listens: false }],
      ['has no process that maintains it', { isHeld: false }],
      ['leaves, too', { order: -1 }],
    ] as const;
    for (const [what, change] of cases) {
      it(`keeps the redirect where the other one ${what}`, async () => {
        const { keeper, testBed, pass, own, other, clock } = await openBeside(activeAt(ownPort));
        own({ listens: true });
        other(change);
        await keeper.start();
        assert.equal(await keeper.leave(), false);
        assert.deepEqual([testBed.now, testBed.installs], [activeAt(ownPort), 0]);
        const { reads } = testBed;
        await pass(60_000);
        assert.equal(testBed.reads, reads, 'these were the last checks');
        await keeper[Symbol.asyncDispose]();
        assert.deepEqual(clock.armed, []);
      });
    }

    it('says so, and waits until the other one has taken the redirect', async () => {
      const { keeper, testBed, agents, pass, own } = await openBeside(activeAt(ownPort));
      own({ listens: true });
      await keeper.start();
      const leaving = keeper.leave();
      for (let round = 0; round < 5; round++) await pass(100);
      assert.equal(agents.hasLeft, true);
      testBed.now = activeAt(otherPort);
      await pass(100);
      assert.equal(await leaving, true);
      assert.equal(testBed.installs, 0);
      await keeper[Symbol.asyncDispose]();
    });

    for (const [what, installError, isGiven] of [
      ['gives it to one that does not take it', undefined, true],
      ['reports that it cannot', new RedirectError('BUSY', 'restore', 'the lock is held'), false],
    ] as const) {
      it(what, async () => {
        const { keeper, testBed, pass, own, lines } = await openBeside(activeAt(ownPort));
        own({ listens: true });
        await keeper.start();
        testBed.installError = installError;
        const leaving = keeper.leave();
        for (let passedMs = 0; passedMs <= 5_000; passedMs += 100) {
          assert.equal(testBed.installs, 0, `after ${passedMs} ms`);
          await pass(100);
        }
        await pass(100);
        assert.equal(await leaving, isGiven);
        assert.deepEqual(testBed.now, activeAt(isGiven ? otherPort : ownPort));
        assert.equal(
          lines.includes('warn failed to leave the redirect to the other agent'),
          !isGiven,
        );
        await keeper[Symbol.asyncDispose]();
      });
    }

    it('has given nothing away without a slot', async () => {
      const { keeper, testBed } = open(active);
      await keeper.start();
      const { reads } = testBed;
      assert.equal(await keeper.leave(), false);
      assert.equal(testBed.reads, reads);
      await keeper[Symbol.asyncDispose]();
    });
  });
});
