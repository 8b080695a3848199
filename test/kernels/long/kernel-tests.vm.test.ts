/**
 * Tests of the redirect that need a kernel, on the oldest and the newest one, with their features.
 */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { dirname } from 'node:path';
import { before, describe, it } from 'node:test';
import { repositoryRoot } from '../../conventions/tree.ts';
import type { GuestRun } from '../support/machine.ts';
import { findKernel, outputOf, runWhole } from '../support/suite.ts';

const files = globSync(
  ['test/redirect/**/*.kernel.test.ts', 'test/deploy/image-root.kernel.test.ts'],
  {
    cwd: repositoryRoot,
  },
).sort();

/** A fresh node has no legacy iptables module; these tests make tables of legacy iptables. */
const script = (file: string) => `
  export PATH='${dirname(process.execPath)}':$PATH
  modprobe iptable_nat
  modprobe iptable_mangle
  check test node --test --test-reporter=spec '${file}'
`;

for (const name of ['5.10', 'newest'] as const) {
  const kernel = findKernel(name);
  const skip = typeof kernel === 'string' ? kernel : false;
  const title = typeof kernel === 'string' ? name : `${name} (${kernel.version})`;
  for (const file of files) {
    describe(`${file} on Linux ${title}`, { skip }, () => {
      let run: GuestRun;

      before(async () => {
        assert.ok(typeof kernel !== 'string');
        run = await runWhole(kernel, script(file));
      });

      it('passes', () => {
        outputOf(run, 'test');
      });
    });
  }
}
