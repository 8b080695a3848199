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
  cpuWindowMs: 1,
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

  it('have no processor time that is of a window other than that of the answers', async () => {
    const windows = [350, 320, 314, 386, 384, 700];
    const subject: Subject = {
      name: 'a',
      host: '',
      port: 0,
      pids: [],
      callers: [],
      runLoad: ({ measuredMs }) => {
        // The warm-up is longer.
        const cpuWindowMs = measuredMs === 350 ? (windows.shift() ?? 0) : 0;
        return Promise.resolve({ ...report, cpuWindowMs });
      },
    };
    const common = { shapes: [shapes.one], rounds: 6, roundMs: 350, say: () => undefined };
    const [series] = await measureRounds({ ...common, subjects: [subject] });
    const cpu = series?.rounds.map(({ cpuMsPer1000 }) => cpuMsPer1000);
    assert.deepEqual(cpu, [1, 1, undefined, undefined, 1, undefined]);
  });
});
