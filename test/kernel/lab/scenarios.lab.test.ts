import assert from 'node:assert/strict';
import { chownSync, mkdirSync, mkdtempDisposableSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { scenarios } from '../../../lab/scenarios/all.ts';
import { labCommand } from '../../../lab/fabric/lab-command.ts';
import { isWithin, sizeOfThisRun } from '../../runner/kinds.ts';
import { whyNoEbpf } from './support/ebpf-skip.ts';
import { holdScenarios, isInOrdinaryRun, openExecutableLab } from './support/executable-lab.ts';
import type { ExecutableLab } from './support/executable-lab.ts';
import { fabricSkip } from './support/fabric-pod.ts';

const isLong = isWithin('long', sizeOfThisRun());
/** What needs no kernel is the same with eBPF, where all scenarios run. */
const chosen = scenarios
  .filter(({ needs }) => isLong || needs === 'namespaces')
  .map(({ name }) => name)
  .filter(isInOrdinaryRun);
const onLoopback = scenarios.filter(({ needs }) => needs === 'any').map(({ name }) => name);

describe('the executable in the lab', () => {
  let lab: ExecutableLab;
  before(async () => {
    lab = await openExecutableLab();
  });
  after(() => lab[Symbol.dispose]());

  test('every scenario of the redirect holds by iptables', { skip: fabricSkip }, async (t) => {
    assert.ok(chosen.length > 30);
    await holdScenarios(t, lab, { redirect: 'iptables' }, chosen);
  });

  test(
    'agents of other users run from a repository below a home of mode 700',
    { skip: fabricSkip },
    async (t) => {
      using home = mkdtempDisposableSync(join(tmpdir(), 'nmi-test-home-'));
      const repository = join(import.meta.dirname, '../../..');
      const clone = join(home.path, 'clone');
      mkdirSync(clone);
      // The home of somebody else, whose repository root runs.
      chownSync(home.path, 1_000, 1_000);
      assert.equal(statSync(home.path).mode & 0o777, 0o700);
      const [node] = labCommand;
      const mount = 'mount --bind "$0" "$1" && shift && exec "$@"';
      using below = await openExecutableLab([
        ...(['unshare', '--mount', '--', 'sh', '-c', mount, repository, clone] as const),
        ...[node, join(clone, 'lab/main.ts')],
      ]);
      await holdScenarios(t, below, { redirect: 'iptables' }, ['privilege-split']);
    },
  );

  /** Each run of all scenarios has five. */
  const redirectsOfNewNodes = [
    { redirect: 'ebpf', skip: whyNoEbpf() },
    { redirect: 'iptables', skip: fabricSkip },
  ];
  for (const { redirect, skip } of isLong ? redirectsOfNewNodes : []) {
    test(`the first tokens of 100 new nodes do not fail, by ${redirect}`, { skip }, async (t) => {
      const names = Array.from({ length: 20 }, () => 'fresh-nodes');
      await holdScenarios(t, lab, { redirect, times: 20 }, names);
    });
  }

  test(
    'auto runs in the mode that the node supports, and reports it',
    { skip: fabricSkip },
    async () => {
      const flags = ['--redirect=auto', '--scenario=one-identity'];
      const { redirect, ok } = JSON.parse((await lab.run(...flags, '--output=json')).stdout) as {
        readonly redirect: string;
        readonly ok: boolean;
      };
      assert.ok(ok);
      assert.match(redirect, /^(?:ebpf|iptables)$/);
      const told = await lab.run(...flags);
      assert.match(told.stdout, new RegExp(`; redirect: auto, here ${redirect};`));
    },
  );

  // The same scenarios run in namespaces, where those can be made.
  if (isLong || fabricSkip !== false) {
    test('every scenario that needs no kernel passes on loopback', async (t) => {
      assert.ok(onLoopback.length > 20);
      await holdScenarios(t, lab, { redirect: 'none' }, onLoopback);
    });
  }

  test('scenarios are run the requested number of times, one whole round after the other', async (t) => {
    const names = ['no-identity', 'no-identity', 'no-identity'];
    const { stderr } = await holdScenarios(t, lab, { redirect: 'none', times: 3 }, names);
    assert.match(stderr, /on loopback and WITHOUT the redirect/);
  });
});
