/** The objects of manifests in files. Pure. */
import { parseAllDocuments } from 'yaml';
import { asRecord, stringAt } from '../../base/json-value.ts';
import { itemsOf, metadataOf, nameOf, namespaceOf, type RawObject } from '../base/object.ts';
import { usageError } from '../base/plugin-error.ts';

const workloadKinds = ['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob'];
const kinds: ReadonlySet<string> = new Set([
  ...workloadKinds,
  ...['Pod', 'ServiceAccount', 'NetworkPolicy', 'AzureIdentity', 'AzureIdentityBinding'],
  ...['AzurePodIdentityException', 'AzureIdentityGrant'],
]);

export function isWorkload(object: RawObject): boolean {
  return workloadKinds.includes(stringAt(object, 'kind'));
}

/** Those of the kinds that decide about identities. @param namespace for objects without one. @throws PluginError for a text that is not YAML. */
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
    const items = object === undefined ? [] : itemsOf(object);
    const known = items.filter((each) => kinds.has(stringAt(each, 'kind')));
    return known.map((each) => complete(each, namespace));
  });
}

function complete(object: RawObject, namespace: string): RawObject {
  const kind = stringAt(object, 'kind');
  const own = kind === 'AzureIdentityGrant' ? '' : namespaceOf(object) || namespace;
  const uid = `${kind}/${own}/${nameOf(object)}`;
  return { ...object, metadata: { uid, ...metadataOf(object), namespace: own } };
}
