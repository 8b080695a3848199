import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { findCgroupRoot } from '../../src/redirect/cgroup/cgroup-tree.ts';
import { nativeModule } from '../../src/redirect/native/addon.ts';
import { openExecutableLab, parseLabResult, type ExecutableLab } from './support/executable-lab.ts';
import { fabricSkip } from './support/fabric-pod.ts';

/** Why eBPF cannot be tried on this machine, or `false`. */
function whyNoEbpf(): string | false {
  if (fabricSkip !== false) return fabricSkip;
  try {
    findCgroupRoot();
    const refused = Object.entries(nativeModule().probe()).filter(([, errno]) => errno !== 0);
    return refused.length === 0 ? false : `the kernel refuses ${refused.join(', ')}`;
  } catch (error) {
    return error instanceof Error ? error.message : 'no eBPF';
  }
}

describe('the executable in the lab by eBPF', () => {
  let lab: ExecutableLab;

  before(async () => {
    lab = await openExecutableLab();
  });

  after(() => {
    lab[Symbol.dispose]();
  });

  test('every scenario holds in network namespaces', { skip: whyNoEbpf() }, async (t) => {
    const run = await lab.run('--redirect', 'ebpf', '--scenario', 'all', '--output', 'json');
    const result = parseLabResult(run);
    for (const { name, ok, detail } of result.scenarios) {
      await t.test(name, () => {
        assert.ok(ok, detail);
      });
    }
    assert.deepEqual(
      result.scenarios.map(({ name }) => name),
      await lab.names(),
    );
    assert.equal(result.leaks, 0);
    assert.equal(result.redirect, 'ebpf');
    assert.equal(result.ok, true, 'at least one scenario failed');
    assert.equal(run.code, 0, run.stderr);
  });
});
