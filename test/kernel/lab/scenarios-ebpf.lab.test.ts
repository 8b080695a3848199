import { test } from 'node:test';
import { scenarios } from '../../../lab/scenarios/all.ts';
import { whyNoEbpf } from './support/ebpf-skip.ts';
import { holdScenarios, isInOrdinaryRun, openExecutableLab } from './support/executable-lab.ts';

test('every scenario holds by eBPF', { skip: whyNoEbpf() }, async (t) => {
  using lab = await openExecutableLab();
  const names = scenarios.map(({ name }) => name).filter(isInOrdinaryRun);
  await holdScenarios(t, lab, { redirect: 'ebpf' }, names);
});
