import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { openWritePace } from '../../../../src/nmi/conditions/write-pace.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { pass } from '../../../support/token-fixture.ts';
import { keptLog } from '../kube/kube-test-bed.ts';

/** @param answer the status of the DaemonSet, or why it cannot be read. */
function paceOf(answer: (signal?: AbortSignal) => unknown, own: { maxPerSec?: number } = {}) {
  const clock = new HandClock();
  const log = keptLog();
  const paths: string[] = [];
  const pace = openWritePace({
    clock,
    log,
    config: {
      agentDaemonSet: 'nmi',
      agentNamespace: 'identity',
      maxWatchEventsPerSec: own.maxPerSec ?? 5_000,
    },
    client: {
      getJson: async (path, call) => {
        paths.push(path);
        assert.equal(call?.timeoutMs, 5_000);
        return { status: await answer(call.signal) };
      },
    },
  });
  return { clock, log, paths, pace };
}

const scheduled = (desiredNumberScheduled: unknown) => () => ({ desiredNumberScheduled });
const refusing = (): never => {
  throw new KubeError('FORBIDDEN', 'no', { status: 403 });
};

describe('the pace of writes', () => {
  for (const [nodes, maxPerSec, pauseMs] of [
    [1, 5_000, 100],
    [3, 5_000, 100],
    [500, 5_000, 100],
    [1_000, 5_000, 200],
    [5_000, 5_000, 1_000],
    [15_000, 5_000, 3_000],
    [50_000, 5_000, 10_000],
    [90_000, 5_000, 10_000],
    [5_000, 50_000, 100],
    [5_000, 1_000, 5_000],
  ] as const) {
    it(`is a write in ${pauseMs} ms for ${nodes} nodes and ${maxPerSec} events`, async () => {
      const { clock, pace } = paceOf(scheduled(nodes), { maxPerSec });
      await using _ = pace;
      await pass(clock, 0);
      assert.equal(pace.pauseMs, pauseMs);
    });
  }

  it('follows the number of nodes in the DaemonSet’s status', async () => {
    let nodes = 10;
    const { clock, pace, paths, log } = paceOf(() => ({ desiredNumberScheduled: nodes }));
    await using _ = pace;
    await pass(clock, 0);
    assert.equal(pace.pauseMs, 100);
    nodes = 2_000;
    await pass(clock, 60_000);
    assert.equal(pace.pauseMs, 400);
    assert.deepEqual([...new Set(paths)], ['/apis/apps/v1/namespaces/identity/daemonsets/nmi']);
    assert.equal(paths.length, 2);
    assert.deepEqual(log.lines, []);
  });

  for (const [what, answer] of [
    ['forbidden', refusing],
    ['no number', () => undefined],
    ['not counted yet', scheduled(0)],
    ['text', scheduled('3')],
  ] as const) {
    it(`is that of a large cluster if the number is unknown (${what}), logged once`, async () => {
      const { clock, pace, log } = paceOf(answer);
      await using _ = pace;
      assert.equal(pace.pauseMs, 1_000);
      await pass(clock, 3_600_000);
      assert.equal(pace.pauseMs, 1_000);
      assert.equal(log.lines.length, 1);
      assert.match(log.lines[0]?.message ?? '', /^number of nodes unknown/);
    });
  }

  it('is not faster than for the last known number when that cannot be read any more', async () => {
    let answer: () => unknown = scheduled(20_000);
    const { clock, pace, log } = paceOf(() => answer());
    await using _ = pace;
    await pass(clock, 0);
    answer = refusing;
    await pass(clock, 120_000);
    assert.equal(pace.pauseMs, 4_000);
    answer = scheduled(3);
    await pass(clock, 60_000);
    assert.equal(pace.pauseMs, 100);
    answer = refusing;
    await pass(clock, 60_000);
    assert.equal(pace.pauseMs, 1_000);
    assert.equal(log.lines.length, 2);
  });

  it('ends a read at its disposal, and logs nothing then', async () => {
    let ended = 0;
    const { clock, pace, paths, log } = paceOf(async (signal) => {
      assert.ok(signal !== undefined);
      await once(signal, 'abort');
      await nextTurn();
      ended += 1;
      throw new KubeError('NETWORK', 'ended');
    });
    await pass(clock, 600_000);
    assert.equal(paths.length, 1, 'one at a time');
    await pace[Symbol.asyncDispose]();
    assert.deepEqual([ended, log.lines], [1, []]);
  });

  it('is read no more after its disposal', async () => {
    const { clock, pace, paths } = paceOf(scheduled(1));
    await pass(clock, 0);
    await pace[Symbol.asyncDispose]();
    await pass(clock, 3_600_000);
    assert.deepEqual([paths.length, clock.armed.length], [1, 0]);
  });
});
