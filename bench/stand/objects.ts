/** A cluster of a given size, of which one or a few pods ask for tokens. */
import type { FakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import type { FakeImds } from '../../lab/fakes/imds/fake-imds.ts';
import { createLabIdentity } from '../../lab/fakes/identity.ts';
import type { LabIdentity } from '../../lab/fakes/token.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../lab/fakes/kube/manifests.ts';

export interface ClusterSize {
  /** On the agent's node. */
  readonly pods: number;
  readonly identities: number;
  readonly bindings: number;
}

/** What the goals speak of. */
export const goalSize: ClusterSize = { pods: 250, identities: 10_000, bindings: 20_000 };

export const nodeName = 'bench-node';

/**
 * Long resource ids, so that a token has about the size of a real one: the lab's tokens carry little
 * else.
 */
export function createBenchIdentity(name: string): LabIdentity {
  const identity = createLabIdentity(name);
  return { ...identity, resourceId: `${identity.resourceId}-${'of-a-long-name'.repeat(24)}` };
}

/** A pod at an address of its own, bound to an identity of its own that is on the node. */
export function addAskingPod(
  kube: FakeKube,
  imds: FakeImds,
  pod: { readonly name: string; readonly ip: string; readonly uid?: string },
): LabIdentity {
  const { name, ip, uid } = pod;
  const identity = createBenchIdentity(name);
  const { clientId, resourceId } = identity;
  imds.assign(identity);
  kube.apply(createAzureIdentity({ name, clientId, resourceId }));
  kube.apply(createAzureIdentityBinding({ name, azureIdentity: name, selector: name }));
  kube.apply(
    createPodManifest({
      name,
      nodeName,
      ips: [ip],
      binding: name,
      ...(uid === undefined ? {} : { uid }),
    }),
  );
  return identity;
}

/** The rest of the cluster, which look-ups must not depend on. */
export function fillCluster(kube: FakeKube, size: ClusterSize): void {
  const { pods, identities, bindings } = size;
  for (let index = 0; index < identities; index++) {
    const { clientId, resourceId } = createLabIdentity(`id-${index}`);
    kube.apply(createAzureIdentity({ name: `id-${index}`, clientId, resourceId }));
  }
  for (let index = 0; index < bindings; index++) {
    const azureIdentity = `id-${index % Math.max(1, identities)}`;
    const selector = `label-${index}`;
    kube.apply(createAzureIdentityBinding({ name: `b-${index}`, azureIdentity, selector }));
  }
  for (let index = 0; index < pods; index++) kube.apply(createOtherPod(index));
}

/** A pod that asks nothing; the same index is the same pod, another life another label. */
export function createOtherPod(index: number, life = 0): object {
  const ips = [`10.244.${(index >> 8) + 1}.${index & 255}`];
  const binding = `label-${index + life}`;
  const uid = `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
  return createPodManifest({ name: `p-${index}`, nodeName, ips, binding, uid });
}
