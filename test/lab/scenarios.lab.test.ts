import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';

import { isWithin, sizeOfThisRun } from '../runner/kinds.ts';
import { scenarios as allScenarios } from '../../lab/scenarios/all.ts';
import { listFabricNamespaces } from '../../lab/fabric/namespaces.ts';
import { whyNoEbpf } from './support/ebpf-skip.ts';
import {
  isInOrdinaryRun,
  openExecutableLab,
  parseLabResult,
  type ExecutableLab,
} from './support/executable-lab.ts';
import { fabricSkip } from './support/fabric-pod.ts';

const isLong = isWithin('long', sizeOfThisRun());
/** What needs no kernel is the same with eBPF, where all scenarios run. */
const chosen = allScenarios
  .filter(({ needs }) => isLong || needs === 'namespaces')
  .map(({ name }) => name)
  .filter(isInOrdinaryRun);

describe('the executable in the lab', () => {
  let lab: ExecutableLab;

  before(async () => {
    lab = await openExecutableLab();
  });

  after(() => {
    lab[Symbol.dispose]();
  });

  test(
    'every scenario of the redirect holds in network namespaces',
    { skip: fabricSkip },
    async (t) => {
      const names = ['--scenario', chosen.join(',')];
      const run = await lab.run('--redirect', 'iptables', ...names, '--output', 'json');
      const result = parseLabResult(run);
      for (const { name, ok, detail } of result.scenarios) {
        await t.test(name, () => {
          assert.ok(ok, detail);
        });
      }
      assert.deepEqual(
        result.scenarios.map(({ name }) => name),
        chosen,
      );
      assert.ok(result.scenarios.length > 30);
      assert.equal(result.leaks, 0);
      assert.equal(result.redirect, 'iptables');
      assert.equal(result.ok, true, 'at least one scenario failed');
      assert.equal(run.code, 0, run.stderr);
    },
  );

  /** Each run of all scenarios has five. */
  const redirectsOfNewNodes = [
    { redirect: 'ebpf', skip: whyNoEbpf() },
    { redirect: 'iptables', skip: fabricSkip },
  ];
  for (const { redirect, skip } of isLong ? redirectsOfNewNodes : []) {
    test(`the first tokens of 100 new nodes do not fail, by ${redirect}`, { skip }, async (t) => {
      const words = ['--redirect', redirect, '--scenario', 'fresh-nodes', '--times', '20'];
      const run = await lab.run(...words, '--output', 'json');
      const { ok, leaks, scenarios } = parseLabResult(run);
      for (const { detail } of scenarios) t.diagnostic(detail);
      assert.deepEqual([ok, leaks, scenarios.length, run.code], [true, 0, 20, 0], run.stderr);
    });
  }

  test(
    'auto runs in the mode that the node supports, and reports it',
    { skip: fabricSkip },
    async () => {
      const flags = ['--redirect', 'auto', '--scenario', 'one-identity'];
      const run = await lab.run(...flags, '--output', 'json');
      const result = parseLabResult(run);
      assert.equal(result.ok, true, run.stdout);
      assert.match(result.redirect, /^(?:ebpf|iptables)$/);
      const told = await lab.run(...flags);
      assert.match(told.stdout, new RegExp(`; redirect: auto, here ${result.redirect};`));
    },
  );

  // The same scenarios run in namespaces, where those can be made.
  if (isLong || fabricSkip !== false) {
    test('every scenario that needs no kernel passes on loopback', async (t) => {
      const run = await lab.run('--loopback', '--scenario', 'all', '--output', 'json');
      const result = parseLabResult(run);
      for (const { name, ok, detail } of result.scenarios) {
        await t.test(name, () => {
          assert.ok(ok, detail);
        });
      }
      assert.ok(result.scenarios.length > 20, 'most scenarios run on loopback too');
      assert.equal(result.leaks, 0);
      assert.equal(result.ok, true, 'at least one scenario failed');
      assert.equal(run.code, 0, run.stderr);
    });
  }

  test('scenarios are run the requested number of times, one whole round after the other', async () => {
    const flags = ['--loopback', '--scenario', 'no-identity', '--times', '3', '--output', 'json'];
    const run = await lab.run(...flags);
    const { scenarios, leaks, redirect } = parseLabResult(run);
    const names = scenarios.map(({ name }) => name);
    assert.deepEqual(names, ['no-identity', 'no-identity', 'no-identity']);
    assert.equal(run.code, 0, run.stderr);
    assert.deepEqual({ leaks, redirect }, { leaks: 0, redirect: 'none' });
    assert.match(run.stderr, /on loopback and WITHOUT the redirect/);
    for (const wrong of ['0', '-1', 'x', '1.5', '1001']) {
      const refused = await lab.run('--loopback', '--times', wrong);
      assert.equal(refused.code, 2, wrong);
      assert.match(
        refused.stderr,
        /--times has the value ".*"; allowed: a whole number from 1 to 1000/,
      );
    }
  });

  test('without the redirect it leaks, reports it and exits 1', { skip: fabricSkip }, async () => {
    const run = await lab.run('--redirect', 'none', '--scenario', 'leak', '--output', 'json');
    const result = parseLabResult(run);
    assert.ok(result.leaks > 0);
    assert.equal(result.ok, false);
    assert.deepEqual(
      result.scenarios.map(({ name, ok }) => ({ name, ok })),
      [{ name: 'leak', ok: false }],
    );
    assert.match(result.scenarios[0]?.detail ?? '', /leaked to pods/);
    assert.equal(run.code, 1);
  });

  test('a Ctrl-C in the middle leaves nothing', { skip: fabricSkip }, async () => {
    const child = lab.start(['--scenario', 'tour']);
    const closed = once(child, 'close');
    const prefix = `nmi-lab-${String(child.pid)}`;
    for await (const line of createInterface({ input: child.stdout })) {
      if (!line.startsWith('    pod ')) continue;
      assert.ok(listFabricNamespaces(prefix).length > 2, 'each pod has its own namespace');
      child.kill('SIGINT');
      break;
    }
    child.stdout.resume();
    const [code] = (await closed) as [number | null];
    assert.notEqual(code, 0, 'a tour that was cut short is no success');
    assert.deepEqual(listFabricNamespaces(prefix), []);
    assert.deepEqual(readdirSync(lab.folder), []);
  });
});
