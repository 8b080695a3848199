/** Networks and kernels inside a pod: the node's kernel sees no connect with the pod's address. */
import assert from 'node:assert/strict';
import { labCommand } from '../../fabric/lab-command.ts';
import { ownLinkMac, type PodLinkKind } from '../../fabric/pod-link.ts';
import { gatewayMac } from '../../fabric/fabric.ts';
import { tokenTarget, type LabPod, type PodReply } from '../../pods/pod.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';
import { checkCallers } from './callers.ts';

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
      const ask = (pod: LabPod) => () => askByFrames(testBed, pod, link);
      return { bound: ask(bound), unbound: ask(unbound) };
    }),
};

/** The kernel resets connections that it did not open. */
async function silenceKernel(testBed: TestBed, pod: LabPod): Promise<void> {
  const rule = ['-A', 'OUTPUT', '-p', 'tcp', '--tcp-flags', 'RST', 'RST', '-j', 'DROP'];
  const { code, stderr } = await testBed.environment.runInPod(pod.name, 'iptables', rule);
  assert.equal(code, 0, stderr);
}

/** A request in frames of the pod's own address. */
async function askByFrames(testBed: TestBed, pod: LabPod, link: PodLinkKind): Promise<PodReply> {
  const mac = link === 'own' ? ownLinkMac : gatewayMac;
  const words = ['forge', 'eth0', pod.ip, mac, '169.254.169.254', '80', tokenTarget({})];
  const [program, ...leading] = labCommand;
  const { stdout } = await testBed.environment.runInPod(pod.name, program, [...leading, ...words]);
  return pod.noteResponse(stdout);
}

export const insideScenarios: readonly Scenario[] = [nested, sandbox];
