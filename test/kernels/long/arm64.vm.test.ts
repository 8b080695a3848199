/** The redirect and the lab's tour on arm64, emulated: the product as it is built for that processor. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import type { LabResult } from '../../../lab/test-bed/scenario.ts';
import { makeArm64Root, type Arm64Root } from '../support/arm64-root.ts';
import type { GuestRun } from '../support/machine.ts';
import { findKernel, outputOf, runWhole } from '../support/suite.ts';

const modes = ['ebpf', 'iptables'] as const;
const actions = ['install', 'verify', 'remove'] as const;

const script = (nodeFolder: string) => `
  export PATH='${nodeFolder}':$PATH
  check processor uname -m
  for mode in ${modes.join(' ')}; do
    for action in ${actions.join(' ')}; do
      check "$action $mode" dist/nmi redirect "$action" --redirect="$mode"
    done
  done
  # It counts scenarios that do not hold by its exit code, and this test by their names.
  lab() { node lab/main.ts --redirect "$1" --output json || true; }
  for mode in ${modes.join(' ')}; do check "lab $mode" lab "$mode"; done
`;

for (const name of ['6.1', 'newest'] as const) {
  const kernel = findKernel(name, 'arm64');
  const skip = typeof kernel === 'string' ? kernel : false;
  const title = typeof kernel === 'string' ? name : `${name} (${kernel.version})`;
  describe(`arm64 with Linux ${title}`, { skip }, () => {
    let root: Arm64Root;
    let run: GuestRun;

    before(async () => {
      assert.ok(typeof kernel !== 'string');
      root = await makeArm64Root(kernel);
      run = await runWhole(kernel, script(root.nodeFolder), { shared: root.shared });
      assert.equal(outputOf(run, 'processor').trim(), 'aarch64');
    });

    for (const mode of modes) {
      it(`has ${mode} installed, verified and removed`, () => {
        const [installed] = actions.map((action) => outputOf(run, `${action} ${mode}`));
        assert.match(installed ?? '', new RegExp(`^${mode}: active`));
      });

      it(`passes every scenario of the tour with ${mode}, without a leak`, async (t) => {
        const printed = outputOf(run, `lab ${mode}`);
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
    }
  });
}
