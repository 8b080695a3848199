/** How long pods wait beside one that attacks, in both modes: measured, so little else may run. */
import { test } from 'node:test';
import { whyNoEbpf } from './support/ebpf-skip.ts';
import { holdScenarios, measuredBy, openExecutableLab } from './support/executable-lab.ts';
import { fabricSkip } from './support/fabric-pod.ts';

for (const [redirect, skip] of [
  ['ebpf', whyNoEbpf()],
  ['iptables', fabricSkip],
] as const) {
  test(`beside a pod that attacks others are served, by ${redirect}`, { skip }, async (t) => {
    using lab = await openExecutableLab();
    await holdScenarios(t, lab, { redirect }, measuredBy(redirect));
  });
}
