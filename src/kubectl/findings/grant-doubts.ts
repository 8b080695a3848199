/**
 * Why an entry of a grant is left to a person: who names an identity may not be its owner. Pure.
 */
import { printableList } from '../../base/printable.ts';
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { normaliseClientId, normaliseResourceId } from '../../cache/index/identifiers.ts';
import type { Identity, IdentityGrant } from '../../cache/index/objects.ts';
import { computesOf } from '../azure/node-pools.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import {
  annotationsOf,
  labelsOf,
  namespaceOf,
  templateOf,
  type RawObject,
} from '../base/object.ts';

export type Surroundings = Pick<Snapshot, 'pods' | 'workloads' | 'accounts'> & {
  readonly nodes: readonly RawObject[];
};

export interface IdEntry {
  readonly namespace: string;
  readonly field: 'clientIDs' | 'resourceIDs';
  /** In its normal form. */
  readonly id: string;
}

/** Namespaces that name an id; the time is that of the first AzureIdentity, or endless without one. */
type Namings = ReadonlyMap<string, number>;

export function createDoubts(
  identities: readonly Identity[],
  grants: readonly IdentityGrant[],
  { pods, workloads, accounts, nodes }: Surroundings,
) {
  const namings = namingsOf(identities, accounts);
  const namingsOfId = (id: string): Namings => namings.get(id) ?? new Map();
  /** Id to the name of a grant that gives it. */
  const granted = new Map(
    grants
      .filter(({ namespaces }) => namespaces.length > 0)
      .flatMap(({ name, clientIds, resourceIds }) =>
        [...clientIds, ...resourceIds].map((id) => [id, name] as const),
      ),
  );
  const used = new Set(
    [...pods, ...workloads].flatMap((each) => {
      const label = labelsOf(templateOf(each) ?? each).get(bindingLabel);
      return label === undefined ? [] : [usedKey(namespaceOf(each), label)];
    }),
  );
  const kubelets = nodes.map((node) => labelsOf(node).get(kubeletLabel) ?? '');
  const kubeletIds = new Set(kubelets.map(normaliseClientId).filter((id) => id !== ''));
  const nodeGroups = computesOf(nodes).map(({ subscription, resourceGroup }) =>
    normaliseResourceId(`subscriptions/${subscription}/resourcegroups/${resourceGroup}`),
  );

  function foreign({ field, id }: IdEntry): readonly string[] {
    const isOfKubelet = field === 'clientIDs' && kubeletIds.has(id);
    const isOfNodes =
      field === 'resourceIDs' && nodeGroups.some((group) => id.startsWith(`${group}/`));
    const grant = granted.get(id);
    return [
      ...(isOfKubelet ? ['the identity of the kubelet'] : []),
      ...(isOfNodes ? ['in the resource group of the nodes, as those of kubelet and add-ons'] : []),
      ...(grant === undefined ? [] : [`AzureIdentityGrant ${grant} gives it to others`]),
    ];
  }
  return {
    /** Whether the nodes show the client id of the kubelet, as those of AKS do. */
    knowsKubelet: kubeletIds.size > 0,
    /** Of an entry that no grant gives. @param selectors of the bindings by which it is used. */
    about(entry: IdEntry, selectors: readonly string[]): readonly string[] {
      const { namespace, id } = entry;
      const others = [...namingsOfId(id).keys()].filter((each) => each !== namespace).toSorted();
      const isUsed = selectors.some((each) => used.has(usedKey(namespace, each)));
      return [
        ...foreign(entry),
        ...(others.length > 0 ? [`named in namespace ${printableList(others, 3)} too`] : []),
        ...(isUsed ? [] : ['no pod of the namespace uses it']),
      ];
    },
    /** Whether the namespace reaches for an identity of others, or for one that another one named before. */
    isOdd(entry: IdEntry): boolean {
      const byNamespace = namingsOfId(entry.id);
      const own = byNamespace.get(entry.namespace) ?? Infinity;
      const isLater = [...byNamespace.values()].some((since) => since < own);
      return isLater || foreign(entry).length > 0;
    },
  };
}

/** AKS sets it on every node. */
const kubeletLabel = 'kubernetes.azure.com/kubelet-identity-client-id';

function usedKey(namespace: string, label: string): string {
  return `${namespace}/${label}`;
}

/** By AzureIdentities of every type, bound or not, and by service accounts of Workload Identity. */
function namingsOf(
  identities: readonly Identity[],
  accounts: readonly RawObject[],
): ReadonlyMap<string, Namings> {
  const namings = new Map<string, Map<string, number>>();
  const add = (id: string, namespace: string, since = Infinity): void => {
    const byNamespace = namings.get(id) ?? new Map<string, number>();
    namings.set(id, byNamespace);
    byNamespace.set(namespace, Math.min(since, byNamespace.get(namespace) ?? Infinity));
  };
  for (const { namespace, clientId, resourceId, createdAtWallMs } of identities) {
    add(normaliseClientId(clientId), namespace, createdAtWallMs);
    add(normaliseResourceId(resourceId), namespace, createdAtWallMs);
  }
  for (const account of accounts) {
    const clientId = annotationsOf(account).get('azure.workload.identity/client-id') ?? '';
    add(normaliseClientId(clientId), namespaceOf(account));
  }
  return namings;
}
