/** The lab's scenarios of translated callers, with the real programs in place of small ones. */
import { sidecarRules } from '../../../lab/pods/mesh.ts';
import {
  checkCallers,
  restoreRules,
  startProxy,
} from '../../../lab/scenarios/translated/callers.ts';
import type { Scenario } from '../../../lab/test-bed/scenario.ts';
import { envoyCommand, envoyReady } from './envoy.ts';
import { openSandbox } from './gvisor.ts';

const shared = { needs: 'namespaces', inTour: false } as const;

function envoy(
  name: string,
  folder: string,
  listener: 'tcp' | 'http',
  excluded: readonly string[],
): Scenario {
  return {
    ...shared,
    name,
    title: `A pod with Envoy as its sidecar, ${listener} listener, gets its own token.`,
    run: (testBed) =>
      checkCallers(testBed, 'sidecar', async ({ bound, unbound }) => {
        for (const pod of [bound, unbound]) {
          await startProxy(testBed, pod, envoyCommand(folder, listener), envoyReady);
          await restoreRules(testBed, pod, sidecarRules(excluded));
        }
        return { bound: () => bound.ask(), unbound: () => unbound.ask() };
      }),
  };
}

export function envoyScenarios(folder: string): readonly Scenario[] {
  return [
    envoy('envoy-tcp', folder, 'tcp', []),
    envoy('envoy-http', folder, 'http', []),
    envoy('envoy-excluded', folder, 'http', ['169.254.169.254/32']),
  ];
}

export const gvisor: Scenario = {
  ...shared,
  name: 'gvisor',
  title: 'A pod on gVisor gets its own token where it has a link of its own.',
  run: async (testBed) => {
    using opened = new DisposableStack();
    return await checkCallers(testBed, 'sandbox', async ({ bound, unbound }) => {
      const inBound = opened.use(await openSandbox(testBed, bound));
      const inUnbound = opened.use(await openSandbox(testBed, unbound));
      return { bound: () => inBound.ask(), unbound: () => inUnbound.ask() };
    });
  },
};
