/** The agent's indexes in this process, filled as from the watches. */
import { systemClock } from '../../src/cache/clock.ts';
import { GrantIndex } from '../../src/cache/index/grant-index.ts';
import type { Binding, Identity, Pod } from '../../src/cache/index/objects.ts';
import { PodIndex } from '../../src/cache/index/pod-index.ts';
import { createAzureIdentity, createAzureIdentityBinding } from '../../lab/fakes/kube/manifests.ts';
import {
  parseBinding,
  parseIdentity,
  parsePod,
  type Parsed,
} from '../../src/nmi/kube/watch/parse.ts';
import { createOtherPod, type ClusterSize } from './objects.ts';

export interface Indexes {
  readonly pods: PodIndex;
  readonly grants: GrantIndex;
}

const createdAtWallMs = 1_000;

export function fillIndexes(size: ClusterSize): Indexes {
  const pods = new PodIndex(systemClock);
  const grants = new GrantIndex(pods);
  const count = <T>(length: number, create: (index: number) => T): readonly T[] =>
    Array.from({ length }, (_, index) => create(index));
  pods.replace(count(size.pods, (index) => createPod(index)));
  grants.identities.replace(count(size.identities, (index) => createIdentity(index)));
  grants.bindings.replace(
    count(size.bindings, (index) => createBinding(index, index % size.identities)),
  );
  return { pods, grants };
}

/** Each life has another label. */
export function createPod(index: number, life = 0): Pod {
  return there(parsePod(createOtherPod(index, life)));
}

/** Each life has another client id. */
export function createIdentity(index: number, life = 0): Identity {
  const tail = `${String(life).padStart(4, '0')}${String(index).padStart(8, '0')}`;
  const clientId = `00000000-0000-4000-8000-${tail}`;
  const resourceId =
    '/subscriptions/7e570000-1ab0-4000-8000-000000000002/resourcegroups/rg/providers/' +
    `Microsoft.ManagedIdentity/userAssignedIdentities/id-${index}`;
  const [name, uid] = [`id-${index}`, `id-uid-${index}`];
  return there(
    parseIdentity(createAzureIdentity({ name, uid, createdAtWallMs, clientId, resourceId })),
  );
}

export function createBinding(index: number, identity: number): Binding {
  const [name, uid] = [`b-${index}`, `b-uid-${index}`];
  const [azureIdentity, selector] = [`id-${identity}`, `label-${index}`];
  return there(
    parseBinding(
      createAzureIdentityBinding({ name, uid, createdAtWallMs, azureIdentity, selector }),
    ),
  );
}

function there<T>(parsed: Parsed<T>): T {
  if (!parsed.ok) throw new TypeError(parsed.reason);
  return parsed.value;
}
