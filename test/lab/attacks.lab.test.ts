/** How long pods wait beside one that attacks, in both modes: measured, so little else may run. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { whyNoEbpf } from './support/ebpf-skip.ts';
import {
  measuredBy,
  openExecutableLab,
  parseLabResult,
  type ExecutableLab,
} from './support/executable-lab.ts';
import { fabricSkip } from './support/fabric-pod.ts';

describe('beside a pod that attacks', () => {
  let lab: ExecutableLab;

  before(async () => {
    lab = await openExecutableLab();
  });
  after(() => {
    lab[Symbol.dispose]();
  });

  for (const { redirect, skip } of [
    { redirect: 'ebpf', skip: whyNoEbpf() },
    { redirect: 'iptables', skip: fabricSkip },
  ] as const) {
    it(`others are served, by ${redirect}`, { skip }, async (t) => {
      const names = measuredBy(redirect);
      const flags = ['--redirect', redirect, '--scenario', names.join(), '--output', 'json'];
      const run = await lab.run(...flags);
      const result = parseLabResult(run);
      const detail = result.scenarios.map((each) => each.detail).join();
      t.diagnostic(detail);
      assert.ok(result.ok, detail);
      assert.deepEqual(
        result.scenarios.map(({ name }) => name),
        names,
      );
      assert.deepEqual([result.leaks, result.redirect, run.code], [0, redirect, 0], run.stderr);
    });
  }
});
