/** Networks and kernels inside a pod: the node's kernel sees no connect with the pod's address. */
import type { LabPod } from '../../pods/pod.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { checkCallers } from './callers.ts';
import { askByFrames, silenceKernel } from './frames.ts';

const nested: Scenario = {
  name: 'nested-container',
  title:
    'A container inside a pod, behind the pod’s address, gets the pod’s token where the pod has a link of its own.',
  needs: 'namespaces',
  inTour: false,
  run: (testBed) =>
    checkCallers(testBed, 'nested', async ({ bound, unbound }) => {
      const [inBound, inUnbound] = [
        bound.through(await testBed.environment.openInside(bound.name)),
        unbound.through(await testBed.environment.openInside(unbound.name)),
      ];
      return { bound: () => inBound.ask(), unbound: () => inUnbound.ask() };
    }),
};

const sandbox: Scenario = {
  name: 'sandboxed-pod',
  title: 'A pod with a network stack of its own gets its token where it has a link of its own.',
  needs: 'namespaces',
  inTour: false,
  run: (testBed) =>
    checkCallers(testBed, 'sandbox', async ({ link, bound, unbound }) => {
      for (const pod of [bound, unbound]) await silenceKernel(testBed, pod);
      const ask = (pod: LabPod) => () => askByFrames(testBed, pod, { link });
      return { bound: ask(bound), unbound: ask(unbound) };
    }),
};

export const insideScenarios: readonly Scenario[] = [nested, sandbox];
