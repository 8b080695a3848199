/** The redirect and the lab's tour on arm64, emulated: the product as it is built for that processor. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { makeArm64Root } from '../support/arm64-root.ts';
import { describeOnKernel, itPassesTheTour, outputOf } from '../support/suite.ts';

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
  lab() { node lab/main.ts --redirect "$1" --output json || true; }
  for mode in ${modes.join(' ')}; do check "lab $mode" lab "$mode"; done
`;

for (const name of ['6.1', 'newest'] as const) {
  describeOnKernel(
    name,
    'arm64',
    async (kernel) => {
      const { nodeFolder, shared } = await makeArm64Root(kernel);
      return { script: script(nodeFolder), shared };
    },
    (run) => {
      for (const mode of modes) {
        it(`has ${mode} installed, verified and removed`, () => {
          assert.equal(outputOf(run(), 'processor').trim(), 'aarch64');
          const [installed] = actions.map((action) => outputOf(run(), `${action} ${mode}`));
          assert.match(installed ?? '', new RegExp(`^${mode}: active`));
        });

        itPassesTheTour(run, `lab ${mode}`, mode);
      }
    },
    'arm64',
  );
}
