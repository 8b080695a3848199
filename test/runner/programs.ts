/**
 * Builds or fetches what tests need, in the tests' cache: `node test/runner/programs.ts NAME...`.
 * One process of the machine at a time: clones that share the cache do not build the same twice.
 */
import { findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { clients } from '../node/clients/support/client-matrix.ts';
import { installKit } from '../node/clients/support/install.ts';
import {
  provideCluster,
  provideHelm,
  provideOlderCluster,
  provideRegistry,
} from '../cluster/support/binaries.ts';
import { kernelNames, findKernel } from '../node/kernels/support/suite.ts';
import { provideGvisor } from '../node/support/gvisor.ts';
import { provideNodeSystem } from '../node/support/node-system.ts';
import { provideOldNmi } from '../node/support/old-nmi.ts';
import type { Programs } from './kinds.ts';
import { takeTurn } from './processes.ts';

interface Outcome {
  readonly name: string;
  readonly missing?: string | undefined;
}

const makers: Readonly<Record<Programs, () => readonly Outcome[]>> = {
  cluster: () => [provideCluster(), provideHelm()],
  older: () => [provideOlderCluster() ?? { name: '' }],
  clients: () => {
    const kits = findFabricObstacle() === undefined ? clients.map(({ kit }) => kit) : [];
    return [...new Set(kits)].map((kit) => ({
      name: `the clients of ${kit}`,
      missing: installKit(kit).missing,
    }));
  },
  // It prints itself what is missing.
  kernels: () => {
    for (const name of kernelNames) findKernel(name);
    return [];
  },
  registry: () => [provideHelm(), provideRegistry()],
  node: () => [provideNodeSystem(), provideOldNmi()],
  gvisor: () => [provideGvisor()],
};

await takeTurn('entra-pod-identity-test-programs');
for (const [name, make] of Object.entries(makers)) {
  if (!process.argv.includes(name)) continue;
  for (const outcome of make()) {
    if (outcome.missing === undefined) continue;
    process.stderr.write(`SKIPPED: all tests on ${outcome.name}: ${outcome.missing}\n`);
  }
}
