/** Networks and kernels inside a pod: the node's kernel sees no connect with the pod's address. */
import type { LabPod } from '../../pods/pod.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { assertRefused, assertToken } from '../../test-bed/reply-checks.ts';
import { askSettled, checkCallers } from './callers.ts';
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

const refused: Scenario = {
  name: 'unrecorded-refused',
  title:
    'With --unrecorded-callers=refuse, a caller without a record gets no token on any network.',
  needs: 'namespaces',
  inTour: false,
  agentFlags: ['--unrecorded-callers=refuse'],
  run: async (testBed) => {
    testBed.bind('plain', 'plain');
    const pod = await testBed.addPod({ name: 'plain', binding: 'plain', link: 'own' });
    await testBed.untilAgentKnows();
    const inside = pod.through(await testBed.environment.openInside(pod.name));
    const reply = await askSettled(() => inside.ask());
    assertToken(await pod.ask(), 'plain');
    if (!testBed.attests) {
      assertToken(reply, 'plain');
      return 'by address, the option has no effect';
    }
    assertRefused(reply, { status: 403, says: /--unrecorded-callers=refuse/ });
    return 'refused with 403; the pod’s own processes are served';
  },
};

export const insideScenarios: readonly Scenario[] = [nested, sandbox, refused];
