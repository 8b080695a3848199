import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { whyNoEbpf } from './support/ebpf-skip.ts';
import {
  isInOrdinaryRun,
  openExecutableLab,
  parseLabResult,
  type ExecutableLab,
} from './support/executable-lab.ts';

describe('the executable in the lab by eBPF', () => {
  let lab: ExecutableLab;

  before(async () => {
    lab = await openExecutableLab();
  });

  after(() => {
    lab[Symbol.dispose]();
  });

  test('every scenario holds in network namespaces', { skip: whyNoEbpf() }, async (t) => {
    const names = (await lab.names()).filter(isInOrdinaryRun);
    const chosen = ['--scenario', names.join(',')];
    const run = await lab.run('--redirect', 'ebpf', ...chosen, '--output', 'json');
    const result = parseLabResult(run);
    for (const { name, ok, detail } of result.scenarios) {
      await t.test(name, () => {
        assert.ok(ok, detail);
      });
    }
    assert.deepEqual(
      result.scenarios.map(({ name }) => name),
      names,
    );
    assert.equal(result.leaks, 0);
    assert.equal(result.redirect, 'ebpf');
    assert.equal(result.ok, true, 'at least one scenario failed');
    assert.equal(run.code, 0, run.stderr);
  });
});
