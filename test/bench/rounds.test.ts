/** The order of a benchmark's subjects, checked with loads that only record the subject. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Histogram } from '../../bench/core/histogram.ts';
import type { LoadReport } from '../../bench/load/plan.ts';
import { measureRounds, shapes, type Subject } from '../../bench/fixture/rounds.ts';

const report: LoadReport = {
  perSec: 1,
  answers: 1,
  failures: 0,
  foreign: 0,
  firstFailure: undefined,
  cpuMsPer1000: 1,
  loadCpuShare: 0.1,
  latency: new Histogram().compact(),
  measuredFromWallMs: 0,
  timeline: [],
};

describe('rounds', () => {
  it('go from the first subject to the last, then back, after all have warmed up', async () => {
    const asked: string[] = [];
    const subjects = ['a', 'b', 'c'].map((name): Subject => ({
      name,
      host: '',
      port: 0,
      pids: [],
      callers: [],
      runLoad: () => {
        asked.push(name);
        return Promise.resolve(report);
      },
    }));
    const common = { shapes: [shapes.one], rounds: 3, roundMs: 1, say: () => undefined };
    const series = await measureRounds({ ...common, subjects });
    assert.equal(asked.join(''), 'abcabccbaabc');
    assert.deepEqual(
      series.map(({ subject, rounds }) => [subject, rounds.length]),
      [['a', 3], ['b', 3], ['c', 3]], // prettier-ignore
    );
  });
});
