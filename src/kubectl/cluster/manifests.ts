/** Manifests in files as a snapshot: an empty cluster after they were applied to it. Pure. */
import { parseAllDocuments } from 'yaml';
import { asRecord, stringAt } from '../../base/json-value.ts';
import {
  itemsOf,
  metadataOf,
  nameOf,
  namespaceOf,
  templateOf,
  type RawObject,
} from '../base/object.ts';
import { usageError } from '../base/plugin-error.ts';
import type { Snapshot } from './snapshot.ts';

const workloadKinds = ['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob'];

/** @param namespace for objects without one. @throws PluginError for a text that is not YAML. */
export function parseManifests(
  name: string,
  text: string,
  namespace: string,
): readonly RawObject[] {
  return parseAllDocuments(text).flatMap((document) => {
    const [problem] = document.errors;
    if (problem !== undefined) {
      const [line = ''] = problem.message.split('\n');
      throw usageError(`${name} is no YAML: ${line}`, 'Correct the file.');
    }
    const object = asRecord(document.toJS());
    return object === undefined ? [] : itemsOf(object).map((each) => complete(each, namespace));
  });
}

export function snapshotOf(objects: readonly RawObject[]): Snapshot {
  const ofKind = (kind: string) => objects.filter((each) => each['kind'] === kind);
  const grants = ofKind('AzureIdentityGrant');
  const workloads = objects.filter((each) => workloadKinds.includes(stringAt(each, 'kind')));
  return {
    scope: undefined,
    pods: [...ofKind('Pod'), ...workloads.map(podOf)],
    identities: ofKind('AzureIdentity'),
    bindings: ofKind('AzureIdentityBinding'),
    exceptions: ofKind('AzurePodIdentityException'),
    policies: ofKind('NetworkPolicy'),
    accounts: ofKind('ServiceAccount'),
    // Files without grants do not show whether the cluster has grants.
    grants: grants.length === 0 ? undefined : grants,
    workloads,
    agents: undefined,
    unread: [],
  };
}

function complete(object: RawObject, namespace: string): RawObject {
  const kind = stringAt(object, 'kind');
  const own = kind === 'AzureIdentityGrant' ? '' : namespaceOf(object) || namespace;
  const uid = `${kind}/${own}/${nameOf(object)}`;
  return { ...object, metadata: { uid, ...metadataOf(object), namespace: own } };
}

function podOf(workload: RawObject, index: number): RawObject {
  const template = templateOf(workload);
  const ip = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
  return complete(
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        ...asRecord(template?.['metadata']),
        name: `${nameOf(workload)} (${stringAt(workload, 'kind')})`,
        namespace: namespaceOf(workload),
        ownerReferences: [{ kind: workload['kind'], name: nameOf(workload) }],
      },
      spec: { serviceAccountName: 'default', ...asRecord(template?.['spec']) },
      status: { phase: 'Running', podIP: ip, podIPs: [{ ip }] },
    },
    'default',
  );
}
