/** A cluster as it would be after manifests were applied to it, and what is wrong by them. Pure. */
import { isDeepStrictEqual } from 'node:util';
import { asRecord, stringAt } from '../../base/json-value.ts';
import { tuning } from '../../nmi/config/tuning.ts';
import type { Finding } from '../../nmi/diagnosis/finding.ts';
import {
  metadataOf,
  nameOf,
  namespaceOf,
  specOf,
  statusOf,
  templateOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { isWorkload } from '../cluster/manifests.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import { ownersOf } from './owners.ts';

/** Of a cluster that nobody looks at. Files without grants do not show whether it has grants. */
export function emptySnapshot(objects: readonly RawObject[]): Snapshot {
  const hasGrants = objects.some((each) => each['kind'] === 'AzureIdentityGrant');
  return {
    scope: undefined,
    pods: [],
    identities: [],
    bindings: [],
    exceptions: [],
    policies: [],
    accounts: [],
    grants: hasGrants ? [] : undefined,
    workloads: [],
    agents: undefined,
    unread: [],
  };
}

export function applyTo(
  snapshot: Snapshot,
  objects: readonly RawObject[],
  nowWallMs: number,
): Snapshot {
  // Past every grace period.
  const addedAt = new Date(nowWallMs - 2 * tuning.bindingGraceMs).toISOString();
  const merge = (known: readonly RawObject[], own: readonly RawObject[]) => {
    const byKey = new Map(known.map((each) => [keyOf(each), each]));
    for (const each of own) {
      const key = keyOf(each);
      const before = byKey.get(key);
      // The oldest identity is chosen, the oldest bindings count.
      const creationTimestamp =
        stringAt(metadataOf(before ?? each), 'creationTimestamp') || addedAt;
      const metadata = { ...metadataOf(each), creationTimestamp };
      // What agents reported is about an object as it was.
      const isSame = before !== undefined && isDeepStrictEqual(specOf(before), specOf(each));
      const { uid } = metadataOf(isSame ? before : each);
      byKey.set(key, { ...each, metadata: { ...metadata, uid } });
    }
    return [...byKey.values()];
  };
  const withKind = (known: readonly RawObject[], kind: string) =>
    merge(
      known,
      objects.filter((each) => each['kind'] === kind),
    );
  const workloads = objects.filter(isWorkload);
  const staying = snapshot.pods.filter((pod) => ownersOf(pod, workloads).length === 0);
  return {
    ...snapshot,
    pods: merge(staying, podsOf(objects)),
    identities: withKind(snapshot.identities, 'AzureIdentity'),
    bindings: withKind(snapshot.bindings, 'AzureIdentityBinding'),
    exceptions: withKind(snapshot.exceptions, 'AzurePodIdentityException'),
    policies: withKind(snapshot.policies, 'NetworkPolicy'),
    accounts: withKind(snapshot.accounts, 'ServiceAccount'),
    grants: snapshot.grants && withKind(snapshot.grants, 'AzureIdentityGrant'),
    workloads: merge(snapshot.workloads, workloads),
  };
}

/** The pods of manifests: their own, and one of each workload. */
export function podsOf(objects: readonly RawObject[]): readonly RawObject[] {
  const own = objects.filter((each) => each['kind'] === 'Pod');
  return [...own, ...objects.filter(isWorkload).map(podOf)].map(asRunning);
}

/** About an object of the manifests, or about another one that had no such finding before them. */
export function findingsOfChange(
  before: readonly Finding[],
  after: readonly Finding[],
  objects: readonly RawObject[],
): readonly Finding[] {
  const own = new Set([...objects, ...podsOf(objects)].map(keyOf));
  const known = new Set(before.map(({ code, object }) => `${code} ${object}`));
  return after.filter(({ code, object }) => {
    // Without a container.
    const [key = ''] = /^\S+ \S+(?: \(\w+\))?/.exec(object) ?? [];
    return own.has(key) || !known.has(`${code} ${object}`);
  });
}

/** As findings name it. */
function keyOf(object: RawObject): string {
  return `${stringAt(object, 'kind')} ${titleOf(object)}`;
}

function podOf(workload: RawObject): RawObject {
  const template = templateOf(workload);
  const namespace = namespaceOf(workload);
  const name = `${nameOf(workload)} (${stringAt(workload, 'kind')})`;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      uid: `Pod/${namespace}/${name}`,
      ...asRecord(template?.['metadata']),
      name,
      namespace,
      ownerReferences: [{ kind: workload['kind'], name: nameOf(workload) }],
    },
    spec: asRecord(template?.['spec']) ?? {},
  };
}

/** With an address that no pod of a cluster has. */
function asRunning(pod: RawObject, index: number): RawObject {
  const ip = `0.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
  return {
    ...pod,
    spec: { serviceAccountName: 'default', ...specOf(pod) },
    status: { phase: 'Running', podIP: ip, podIPs: [{ ip }], ...statusOf(pod) },
  };
}
