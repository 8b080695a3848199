import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nextJob, runJobs, type Job } from './queue.ts';
import { needsOf } from './suite.ts';
import type { Programs } from './kinds.ts';

function job(name: string, expectedMs = 1, more: Partial<Job> = {}): Job {
  return {
    name,
    files: [name],
    expectedMs,
    isExclusive: false,
    needs: [],
    processors: 0.5,
    ...more,
  };
}

const alone = { isExclusive: true } as const;
const all: (programs: Programs) => boolean = () => true;
const next = (waiting: readonly Job[], running: readonly Job[] = [], isThere = all) =>
  nextJob(waiting, running, isThere, { machine: 2 })?.name;

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

  it('is one that the machine has a processor for', () => {
    const busy = [job('b', 1, { processors: 0.8 }), job('c', 1, { processors: 0.8 })];
    assert.equal(
      next([job('a', 9, { processors: 0.5 }), job('d', 1, { processors: 0.4 })], busy),
      'd',
    );
    assert.equal(next([job('a', 9, { processors: 0.5 })], busy), undefined);
    assert.equal(next([job('x', 9, { ...alone, processors: 0.5 })], busy), undefined);
    assert.equal(next([job('a', 9, { processors: 3 })]), 'a');
  });

  it('is one that idle processors have room for, unless something is measured', () => {
    const waits = [job('b', 1, { processors: 1 }), job('c', 1, { processors: 1 })];
    const beside = (running: readonly Job[], idle: number) =>
      nextJob([job('a')], running, all, { machine: 2, idle })?.name;
    assert.equal(beside(waits, 0.4), undefined);
    assert.equal(beside(waits, 0.6), 'a');
    assert.equal(beside([job('m', 1, { ...alone, processors: 1.6 })], 2), undefined);
  });

  it('is one that claims most of the machine before longer ones', () => {
    const measuring = job('m', 1, { ...alone, processors: 1.6 });
    assert.equal(next([job('a', 9), measuring, job('x', 9, alone)]), 'm');
    assert.equal(next([job('a', 9), job('b', 1, { processors: 0.4 })], [measuring]), 'b');
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
  const noIdle = { read: () => 0, restart: () => undefined };
  const noBuilds = { isThere: all, change: () => Promise.withResolvers<void>().promise };

  it('runs each once, with at most one exclusive at once', async () => {
    const jobs = Array.from({ length: 20 }, (_, at) =>
      job(`${at}`, at % 7, { isExclusive: at % 3 === 0 }),
    );
    const running = new Set<Job>();
    const ran: Job[] = [];
    const skipped = await runJobs({
      jobs,
      builds: noBuilds,
      idle: noIdle,
      patienceMs: () => Infinity,
      stop: noStop,
      run: async (each) => {
        running.add(each);
        ran.push(each);
        assert.ok([...running].filter(({ isExclusive }) => isExclusive).length <= 1);
        for (let turn = 0; turn <= each.expectedMs; turn++) await Promise.resolve();
        running.delete(each);
      },
    });
    assert.deepEqual(skipped, []);
    assert.deepEqual(new Set(ran), new Set(jobs));
    assert.equal(ran.length, jobs.length);
  });

  it('gives up what waits for programs only when nothing else is left', async () => {
    const ran: string[] = [];
    const skipped = await runJobs({
      jobs: [job('x', 9, { needs: ['node'] }), job('a'), job('b')],
      builds: { isThere: () => false, change: () => Promise.resolve() },
      idle: noIdle,
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
    assert.deepEqual(
      needsOf('test/a.image.test.ts', 'long', "import { provideRegistry } from './b.ts';"),
      ['registry'],
    );
    assert.deepEqual(needsOf('test/a.node.test.ts', 'all', ''), ['node']);
    assert.deepEqual(
      needsOf('test/a.node.test.ts', 'long', "import { provideGvisor } from './b.ts';"),
      ['node', 'gvisor'],
    );
    assert.deepEqual(
      needsOf('test/a.test.ts', 'long', "'describeOnEveryVersion(' 'installKit('"),
      [],
    );
  });
});
