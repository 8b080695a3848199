/** Proxies that take a pod's connections and open others in its place, as service meshes do. */
import assert from 'node:assert/strict';
import { ambientRules, sidecarForward, sidecarRules, ztunnelForward } from '../../pods/mesh.ts';
import type { LabPod } from '../../pods/pod.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';
import { checkCallers, restoreRules, startProxy, type CallerPods } from './callers.ts';
import { agentAddress, metadataAddress } from './frames.ts';

const metadataRange = `${metadataAddress.ip}/32`;

function sidecar(name: string, title: string, excluded: readonly string[]): Scenario {
  return {
    name,
    title,
    needs: 'namespaces',
    inTour: false,
    run: (testBed) =>
      checkCallers(testBed, 'sidecar', async ({ bound, unbound }) => {
        for (const pod of [bound, unbound]) {
          await restoreRules(testBed, pod, sidecarRules(excluded));
          // With eBPF, the pod's rules see the agent's address in place of the one that it dials.
          const seen = testBed.attests ? agentAddress : metadataAddress;
          if (!excluded.includes(`${seen.ip}/32`)) await assertTaken(pod);
          await startProxy(testBed, pod, sidecarForward);
        }
        return { bound: () => bound.ask(), unbound: () => unbound.ask() };
      }),
  };
}

const sidecarProxy = sidecar(
  'sidecar-proxy',
  'A pod whose sidecar takes every outgoing connection, as Istio’s does, gets its own token.',
  [],
);

const sidecarExcluded = sidecar(
  'sidecar-proxy-excluded',
  'A pod whose mesh excludes the metadata address from its sidecar gets its own token.',
  [metadataRange],
);

const sidecarBypassed = sidecar(
  'sidecar-proxy-bypassed',
  'A pod whose mesh excludes the metadata and the agent’s address from its sidecar gets its own token.',
  [metadataRange, `${agentAddress.ip}/32`],
);

const otherPodsProxy: Scenario = {
  name: 'other-pods-proxy',
  title:
    'A proxy of another pod with its sockets in this pod’s network, as ztunnel, gets the token of the pod that it works for, where that has a link of its own.',
  needs: 'namespaces',
  inTour: false,
  run: (testBed) =>
    checkCallers(testBed, 'other-pods-proxy', async (pods) => {
      await startZtunnel(testBed, pods);
      return { bound: () => pods.bound.ask(), unbound: () => pods.unbound.ask() };
    }),
};

/** The rules redirect the pod's connections to a port where nothing listens yet. */
async function assertTaken(pod: LabPod): Promise<void> {
  assert.equal((await pod.ask()).failure, 'ECONNREFUSED', 'the proxy’s rules do not apply');
}

/** One proxy pod for both, with an identity of its own that neither may get. */
async function startZtunnel(testBed: TestBed, pods: CallerPods): Promise<LabPod> {
  testBed.bind('ztunnel', 'ztunnel');
  const ztunnel = await testBed.addPod({
    name: `ztunnel-${pods.link}`,
    binding: 'ztunnel',
    link: pods.link,
  });
  await testBed.untilAgentKnows();
  for (const pod of [pods.bound, pods.unbound]) {
    const file = testBed.environment.podNamespace(pod.name);
    await restoreRules(testBed, pod, ambientRules);
    await assertTaken(pod);
    await startProxy(testBed, ztunnel, ztunnelForward(file));
  }
  return ztunnel;
}

export const proxyScenarios: readonly Scenario[] = [
  sidecarProxy,
  sidecarExcluded,
  sidecarBypassed,
  otherPodsProxy,
];
