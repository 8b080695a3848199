import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nextJob, runJobs, type Job } from './queue.ts';
import { needsOf } from './suite.ts';
import type { Programs } from './kinds.ts';

function job(name: string, expectedMs = 1, more: Partial<Job> = {}): Job {
  return { name, files: [name], expectedMs, isExclusive: false, needs: [], ...more };
}

const alone = { isExclusive: true } as const;
const all: (programs: Programs) => boolean = () => true;
const next = (waiting: readonly Job[], running: readonly Job[] = [], isThere = all) =>
  nextJob(waiting, running, isThere)?.name;

describe('the next test file', () => {
  it('is the longest', () => {
    assert.equal(next([job('a', 1), job('b', 3), job('c', 2)]), 'b');
    assert.equal(next([job('a', 1, alone), job('b', 3, alone)]), 'b');
  });

  it('is an exclusive one if none runs, and never a second one', () => {
    const waiting = [job('a', 9), job('x', 1, alone)];
    assert.equal(next(waiting), 'x');
    assert.equal(next(waiting, [job('b')]), 'x');
    assert.equal(next(waiting, [job('y', 1, alone)]), 'a');
    assert.equal(next([job('x', 1, alone)], [job('y', 1, alone)]), undefined);
  });

  it('is none while three run', () => {
    assert.equal(next([job('a')], [job('b'), job('c')]), 'a');
    assert.equal(next([job('a')], [job('b'), job('c'), job('d')]), undefined);
  });

  it('has one other beside it if it is exclusive and long', () => {
    const lab = job('lab', 300_000, alone);
    assert.equal(next([lab, job('a')], [job('b')]), 'lab');
    assert.equal(next([lab, job('a')], [job('b'), job('c')]), undefined);
    assert.equal(next([job('a')], [lab]), 'a');
    assert.equal(next([job('a')], [lab, job('b')]), undefined);
  });

  it('is none on a node beside it', () => {
    const lab = job('lab', 300_000, alone);
    const node = job('node', 400_000, { needs: ['node'] });
    assert.equal(next([node, job('a')], [lab]), 'a');
    assert.equal(next([node], [lab]), undefined);
    assert.equal(next([lab, job('a')], [node]), 'a');
    assert.equal(next([lab, node]), 'lab');
  });

  it('is one with all its programs', () => {
    const waiting = [job('a', 9, { needs: ['cluster', 'older'] }), job('b')];
    const has = (...there: readonly Programs[]) => next(waiting, [], (one) => there.includes(one));
    assert.equal(has(), 'b');
    assert.equal(has('cluster'), 'b');
    assert.equal(has('cluster', 'older'), 'a');
  });
});

describe('a run of all jobs', () => {
  const noStop = new AbortController().signal;
  const noBuilds = { isThere: all, change: () => Promise.withResolvers<void>().promise };

  it('runs each once, at most three at once, at most one of them exclusive', async () => {
    const jobs = Array.from({ length: 20 }, (_, at) =>
      job(`${at}`, at % 7, { isExclusive: at % 3 === 0 }),
    );
    const running = new Set<Job>();
    const ran: Job[] = [];
    let most = 0;
    const skipped = await runJobs({
      jobs,
      builds: noBuilds,
      patienceMs: () => Infinity,
      stop: noStop,
      run: async (each) => {
        running.add(each);
        ran.push(each);
        most = Math.max(most, running.size);
        assert.ok([...running].filter(({ isExclusive }) => isExclusive).length <= 1);
        for (let turn = 0; turn <= each.expectedMs; turn++) await Promise.resolve();
        running.delete(each);
      },
    });
    assert.deepEqual(skipped, []);
    assert.equal(most, 3);
    assert.deepEqual(new Set(ran), new Set(jobs));
    assert.equal(ran.length, jobs.length);
  });

  it('gives up what waits for programs only when nothing else is left', async () => {
    const ran: string[] = [];
    const skipped = await runJobs({
      jobs: [job('x', 9, { needs: ['node'] }), job('a'), job('b')],
      builds: { isThere: () => false, change: () => Promise.resolve() },
      patienceMs: () => (ran.length < 2 ? 1 : 0),
      stop: noStop,
      run: ({ name }) => {
        ran.push(name);
        return Promise.resolve();
      },
    });
    assert.deepEqual(ran, ['a', 'b']);
    assert.deepEqual(
      skipped.map(({ name }) => name),
      ['x'],
    );
  });
});

describe('the programs that a file needs', () => {
  it('are those of its kind and of what it calls', () => {
    const suite = 'test/cluster/a.cluster.test.ts';
    assert.deepEqual(needsOf(suite, 'test', ''), ['cluster']);
    assert.deepEqual(needsOf(suite, 'test', 'describeOnEveryVersion('), ['cluster']);
    assert.deepEqual(needsOf(suite, 'all', ''), ['cluster']);
    assert.deepEqual(needsOf(suite, 'all', 'describeOnEveryVersion('), ['cluster', 'older']);
    assert.deepEqual(needsOf(suite, 'long', ''), ['cluster', 'older']);
    assert.deepEqual(
      needsOf('test/a.kernel.test.ts', 'all', "import { installKit } from './b.ts';"),
      ['clients'],
    );
    assert.deepEqual(needsOf('test/a.node.test.ts', 'all', ''), ['node']);
    assert.deepEqual(
      needsOf('test/a.test.ts', 'long', "'describeOnEveryVersion(' 'installKit('"),
      [],
    );
  });
});
