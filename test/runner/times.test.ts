import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { planJobs } from './suite.ts';
import { learnTimes, type KnownTimes } from './times.ts';

describe('the known times', () => {
  const time = { file: 'a', kind: 'unit', waitedMs: 0, processorMs: 400 } as const;

  it('are those of the last run, and of files that it did not have', () => {
    const known = { a: { wallMs: 900, processorMs: 500 }, b: { wallMs: 1, processorMs: 1 } };
    const learned = learnTimes(known, [{ ...time, wallMs: 800 }]);
    assert.deepEqual(learned, { ...known, a: { wallMs: 800, processorMs: 400 } });
  });

  it('grow in steps: a file is slower beside others, and its share of a processor less', () => {
    let known: KnownTimes = { a: { wallMs: 1_000, processorMs: 400 } };
    for (const expected of [1_100, 1_210, 1_300, 1_300]) {
      known = learnTimes(known, [{ ...time, wallMs: 1_300 }]);
      assert.equal(known['a']?.wallMs, expected);
    }
  });
});

describe('the share of a processor', () => {
  const root = mkdtempSync(join(tmpdir(), 'nmi-times-'));
  after(() => {
    rmSync(root, { recursive: true });
  });

  function shareOf(file: string, processorMs?: number): number | undefined {
    writeFileSync(join(root, file), '');
    const known = processorMs === undefined ? {} : { [file]: { wallMs: 1_000, processorMs } };
    const options = { root, files: [file], size: 'all', sharesProcesses: true, known } as const;
    const [job] = planJobs(options);
    return job?.processors;
  }

  it('is the known one, within bounds, and no more than that of the kind', () => {
    assert.equal(shareOf('a.test.ts'), 0.6);
    assert.equal(shareOf('a.test.ts', 450), 0.45);
    assert.equal(shareOf('a.test.ts', 10), 0.3);
    assert.equal(shareOf('a.test.ts', 1_900), 0.6);
  });

  it('is what it claims for a file that measures', () => {
    assert.equal(shareOf('attacks.lab.test.ts', 450), 1.6);
  });
});
