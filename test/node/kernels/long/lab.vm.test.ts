/**
 * The lab's tour on other kernels, in both modes: the whole path of a token, attacks and restarts
 * included.
 */
import { dirname } from 'node:path';
import { describeOnKernel, itPassesTheTour, kernelNames } from '../support/suite.ts';

const script = (mode: string) => `
  export PATH='${dirname(process.execPath)}':$PATH
  lab() { node lab/main.ts --redirect '${mode}' --output json || true; }
  check lab lab
`;

for (const name of kernelNames) {
  for (const mode of ['ebpf', 'iptables']) {
    describeOnKernel(
      name,
      `the lab with ${mode}`,
      () => ({ script: script(mode) }),
      (run) => {
        itPassesTheTour(run, 'lab', mode);
      },
    );
  }
}
