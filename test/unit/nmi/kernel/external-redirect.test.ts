import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { ExternalRedirect } from '../../../../src/nmi/kernel/external-redirect.ts';
import {
  readNodePods,
  writeState,
  type RedirectState,
} from '../../../../src/nmi/kernel/redirect-state.ts';
import { nativeModule, type CallerAnswer } from '../../../../src/redirect/native/addon.ts';
import type { RedirectTarget } from '../../../../src/redirect/redirect.ts';
import { describeTarget } from '../../../../src/redirect/target.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const target: RedirectTarget = {
  metadataIp: '169.254.169.254',
  metadataPort: 80,
  listenIp: '127.0.0.1',
  listenPort: 2579,
};
const peer = { remoteIp: '10.0.0.1', socket: 9 };
const found = { kind: 'attested', cgroupId: 7n, isDirect: false } as const;

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-test-external-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const notUp = 'not installed yet';

/** @param first what the other process reports; without it, it has not reported yet. */
async function open(t: TestContext, first?: Partial<RedirectState>, wanted = target) {
  const path = await mkdtemp(join(folder, 'pod-'));
  const clock = new HandClock();
  const programs: { answer: CallerAnswer | undefined } = { answer: { kind: 3, cgroupId: 7n } };
  t.mock.method(nativeModule(), 'callerOf', () => programs.answer);
  t.mock.method(nativeModule(), 'isAnswered', () => programs.answer !== undefined);
  let reports = 0;
  const report = (change: Partial<RedirectState> = {}): void =>
    writeState(path, {
      at: String((reports += 1)),
      mode: 'ebpf',
      target: describeTarget(wanted),
      port: wanted.listenPort,
      redirectedTo: wanted.listenPort,
      isAlone: false,
      isLeaving: false,
      problems: [],
      ...change,
    });
  if (first !== undefined) report(first);
  const logged: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => logged.push(line) });
  const redirect = new ExternalRedirect({
    folder: path,
    target: wanted,
    clock,
    log,
    intervalMs: 10_000,
    listenPort: wanted.listenPort,
    hasSlots: true,
    unrecordedCallers: 'refuse',
  });
  t.after(() => redirect[Symbol.asyncDispose]());
  return {
    ...{ programs, redirect, report, clock, path, logged },
    /** Lets the loops that sleep take some turns. */
    pass: async (ms: number) => {
      for (let passed = 0; passed < ms; passed += 20) {
        clock.advance(20);
        await nextTurn();
        await nextTurn();
      }
    },
  };
}

describe('a redirect in another process', () => {
  it('has the mode of that process, and callers by the programs', async (t) => {
    const { programs, redirect, report } = await open(t);
    assert.equal(redirect.mode, 'pinned');
    assert.equal(redirect.attest(peer).kind, 'unavailable');
    assert.match(redirect.whyUnavailable() ?? '', /has not brought the redirect up/);
    report();
    await redirect.prepare();
    assert.equal(redirect.mode, 'ebpf');
    assert.equal(redirect.whyUnavailable(), undefined);
    const status = redirect.status();
    assert.deepEqual([status.state, status.problems], ['active', []]);
    assert.deepEqual(redirect.attest(peer), found);
    programs.answer = { kind: 0, cgroupId: 0n };
    assert.match(JSON.stringify(redirect.attest(peer)), /changed less than a minute ago/);
    programs.answer = undefined;
    assert.equal(redirect.attest(peer).kind, 'unavailable');
    assert.match(redirect.whyUnavailable() ?? '', /no program of this version answers/);
  });

  it('tells that process in a file which pods to let through', async (t) => {
    const { redirect, path } = await open(t, {});
    assert.equal(readNodePods(path), undefined);
    for (const ids of [[5n], [5n, 2n ** 63n], []]) {
      await redirect.letThrough(ids);
      assert.deepEqual(readNodePods(path), ids);
    }
  });

  it('listens at the port that it is given, and at once where no other agent does', async (t) => {
    const { redirect, report } = await open(t, { isAlone: true, port: 2580 });
    assert.equal(redirect.port, 2579, 'before it has read anything');
    await redirect.prepare();
    assert.deepEqual([redirect.port, redirect.isAlone()], [2580, true]);
    assert.match(redirect.status().detail, /to 127\.0\.0\.1:2580$/);
    assert.deepEqual(redirect.attest(peer), found);
    report({ isAlone: false, port: 2580 });
    assert.equal(redirect.isAlone(), false);
  });

  it('identifies callers by address if that process uses iptables, without a look-up', async (t) => {
    const { redirect, programs } = await open(t, { mode: 'iptables' });
    programs.answer = undefined;
    await redirect.prepare();
    assert.equal(redirect.mode, 'iptables');
    assert.deepEqual(redirect.attest(peer), { kind: 'by-address', place: 'unknown' });
    assert.equal(redirect.whyUnavailable(), undefined);
  });

  it('is in doubt when that process has been silent for half a minute, and serves callers on', async (t) => {
    const { redirect, report, clock } = await open(t, {});
    await redirect.prepare();
    clock.advance(29_999);
    assert.equal(redirect.status().state, 'active');
    clock.advance(1);
    const { state, problems } = redirect.status();
    assert.deepEqual(
      [state, problems],
      ['broken', ['nmi redirect run has reported nothing for 30 s']],
    );
    assert.deepEqual(redirect.attest(peer), found);
    report();
    assert.equal(redirect.status().state, 'active');
  });

  it('logs once that the redirect is in place, is not, and is again', async (t) => {
    const { redirect, report, logged, pass } = await open(t);
    report({ problems: ['jump is gone'] });
    assert.deepEqual([redirect.hasBeenActive, logged], [false, []], 'it has not started');
    await redirect.start();
    await pass(5_000);
    report();
    await pass(2_000);
    assert.ok(redirect.hasBeenActive);
    await pass(60_000);
    const messages = logged.map((line) => (JSON.parse(line) as { readonly msg: string }).msg);
    assert.deepEqual(messages, [
      'redirect not in place, retrying',
      'redirect installed',
      'redirect not in place, retrying',
    ]);
  });

  const mismatches: readonly (readonly [Partial<RedirectState>, RegExp])[] = [
    [{ mode: 'iptables' }, /by iptables now and was by ebpf: restart this pod/],
    [
      { target: describeTarget({ ...target, listenPort: 2580 }) },
      /redirects 169\.254\.169\.254:80 to 127\.0\.0\.1:2580/,
    ],
  ];
  for (const [change, says] of mismatches) {
    it(`refuses callers while the report of the process contains ${says.source}`, async (t) => {
      const { redirect, report } = await open(t, {});
      await redirect.prepare();
      report(change);
      const status = redirect.status();
      assert.equal(status.state, 'broken');
      assert.match(status.problems.join(), says);
      const attestation = redirect.attest(peer);
      assert.ok(attestation.kind === 'unavailable');
      assert.match(attestation.why, says);
      assert.equal(redirect.whyUnavailable(), attestation.why);
      assert.equal(redirect.mode, 'ebpf');
      report();
      assert.equal(redirect.status().state, 'active');
      assert.deepEqual(redirect.attest(peer), found);
    });
  }

  it('does not accept look-ups after a start in iptables mode', async (t) => {
    const { redirect, report } = await open(t, { mode: 'iptables' });
    await redirect.prepare();
    report({ mode: 'ebpf' });
    assert.equal(redirect.status().state, 'broken');
    assert.equal(redirect.attest(peer).kind, 'unavailable');
  });

  it('is not prepared before it is active, and gives up when the signal aborts', async (t) => {
    for (const [first, says] of [
      [undefined, /has reported nothing yet/],
      [{ problems: [notUp] }, /^not installed yet$/],
    ] as const) {
      const { redirect, report, pass } = await open(t, first);
      const stop = new AbortController();
      let isPrepared = false;
      const preparing = redirect.prepare(stop.signal).then(() => (isPrepared = true));
      await pass(1_000);
      const status = redirect.status();
      assert.equal(status.state, 'absent');
      assert.match(status.problems.join(), says);
      assert.equal(redirect.mode, 'pinned');
      assert.equal(isPrepared, false);
      stop.abort();
      await pass(200);
      await preparing;
      const again = redirect.prepare();
      await pass(1_000);
      report();
      await pass(400);
      await again;
      assert.equal(redirect.mode, 'ebpf');
    }
  });

  it('is not prepared while the node does not have the address of the agent, and fails after a while', async (t) => {
    const { redirect, pass, report } = await open(t, {}, { ...target, listenIp: '192.0.2.1' });
    const failures: unknown[] = [];
    const preparing = redirect.prepare().catch((error: unknown) => failures.push(error));
    for (let round = 0; round < 170 && failures.length === 0; round++) {
      report();
      await pass(200);
      await delay(1);
    }
    await preparing;
    assert.match(String(failures[0]), /wait for nmi redirect run: 192\.0\.2\.1 is on no link/);
    assert.equal(redirect.status().state, 'active');
  });

  it('continues to look callers up while that process repairs the redirect', async (t) => {
    const { redirect, report } = await open(t, {});
    await redirect.prepare();
    report({ problems: ['jump is gone'] });
    const { state, problems } = redirect.status();
    assert.deepEqual([state, problems], ['broken', ['jump is gone']]);
    assert.deepEqual(redirect.attest(peer), found);
  });

  describe('when the agent ends', () => {
    /** Whether another agent gets the new connections then, and for how long it was waited for. */
    const cases: readonly (readonly [string, Partial<RedirectState>, boolean, number])[] = [
      [
        'is told that another agent has the connections',
        { redirectedTo: 2580, isLeaving: true },
        true,
        0,
      ],
      ['is told that no other agent takes them', { isLeaving: true }, false, 0],
      ['waits ten seconds where nothing changes', {}, false, 10_000],
      ['does not take a lost redirect for a move', { redirectedTo: null }, false, 10_000],
    ];
    for (const [what, change, isMoved, waitMs] of cases) {
      it(what, async (t) => {
        const { redirect, report, clock, pass } = await open(t, {});
        await redirect.prepare();
        const startMs = clock.monotonicMs();
        const leaving = redirect.leave();
        let endMs: number | undefined;
        void leaving.then(() => (endMs = clock.monotonicMs()));
        await pass(100);
        assert.equal(endMs, undefined);
        report(change);
        await pass(11_000);
        assert.equal(await leaving, isMoved);
        const tookMs = (endMs ?? Infinity) - startMs;
        assert.ok(tookMs >= waitMs && tookMs <= waitMs + 200, `${tookMs} ms`);
      });
    }

    it('does not wait without a state', async (t) => {
      const { redirect } = await open(t);
      assert.equal(await redirect.leave(), false);
    });
  });
});
