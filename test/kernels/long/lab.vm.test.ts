/**
 * The lab's tour on other kernels, in both modes: the whole path of a token, attacks and restarts
 * included.
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { before, describe, it } from 'node:test';
import type { LabResult } from '../../../lab/test-bed/scenario.ts';
import type { GuestRun } from '../support/machine.ts';
import { findKernel, kernelNames, outputOf, runWhole } from '../support/suite.ts';

const script = (mode: string) => `
  export PATH='${dirname(process.execPath)}':$PATH
  # It counts scenarios that do not hold by its exit code, and this test by their names.
  lab() { node lab/main.ts --redirect '${mode}' --output json || true; }
  check lab lab
`;

for (const name of kernelNames) {
  const kernel = findKernel(name);
  const skip = typeof kernel === 'string' ? kernel : false;
  const title = typeof kernel === 'string' ? name : `${name} (${kernel.version})`;
  for (const mode of ['ebpf', 'iptables']) {
    describe(`the lab with ${mode} on Linux ${title}`, { skip }, () => {
      let run: GuestRun;

      before(async () => {
        assert.ok(typeof kernel !== 'string');
        run = await runWhole(kernel, script(mode));
      });

      it('passes every scenario of the tour, without a leak', async (t) => {
        const printed = outputOf(run, 'lab');
        const line = printed.split('\n').find((each) => each.startsWith('{'));
        assert.ok(line !== undefined, printed);
        const { scenarios, leaks, redirect } = JSON.parse(line) as LabResult;
        assert.equal(redirect, mode);
        assert.equal(leaks, 0);
        assert.ok(scenarios.length >= 12, printed);
        for (const { name: scenario, ok, detail } of scenarios) {
          await t.test(scenario, () => {
            assert.ok(ok, detail);
          });
        }
      });
    });
  }
}
