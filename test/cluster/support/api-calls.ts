/** Every call of an API server, from its own discovery documents, and who may make it. */
import type { KubeObject } from '../../deploy/chart-render.ts';
import type { Api } from './api.ts';

/** A call as the authorizer sees it. */
export interface ApiCall {
  readonly group: string;
  /** With a subresource after a slash. */
  readonly resource: string;
  readonly verb: string;
  /** Undefined: in all namespaces, or without one. */
  readonly namespace: string | undefined;
  readonly method: string;
  readonly path: string;
}

interface ApiResource {
  readonly name: string;
  readonly namespaced: boolean;
  readonly verbs: readonly string[];
}

const methods: Readonly<Record<string, string>> = {
  create: 'POST',
  get: 'GET',
  list: 'GET',
  watch: 'GET',
  update: 'PUT',
  patch: 'PATCH',
  delete: 'DELETE',
  deletecollection: 'DELETE',
};

/** For objects called `name`; in each of the namespaces, and where possible in all at once. */
export async function listApiCalls(
  api: Api,
  namespaces: readonly string[],
  name: string,
): Promise<readonly ApiCall[]> {
  const calls: ApiCall[] = [];
  for (const { group, root } of await listVersions(api)) {
    const { resources } = await api.expect('GET', root);
    for (const { name: resource, namespaced, verbs } of resources as readonly ApiResource[]) {
      for (const verb of verbs) {
        const everywhere = verb === 'list' || verb === 'watch' ? [undefined] : [];
        for (const namespace of namespaced ? [...namespaces, ...everywhere] : [undefined]) {
          const path = pathOf(root, resource, verb, namespace, name);
          const method = methods[verb];
          if (method === undefined) throw new TypeError(`no method for ${verb}`);
          calls.push({ group, resource, verb, namespace, method, path });
        }
      }
    }
  }
  return calls;
}

/** Every version of a group: permissions do not distinguish them, but each has its own paths. */
async function listVersions(api: Api): Promise<readonly { group: string; root: string }[]> {
  const { groups } = await api.expect('GET', '/apis');
  type Group = { readonly name: string; readonly versions: readonly { groupVersion: string }[] };
  const named = (groups as readonly Group[]).flatMap(({ name, versions }) =>
    versions.map(({ groupVersion }) => ({ group: name, root: `/apis/${groupVersion}` })),
  );
  return [{ group: '', root: '/api/v1' }, ...named];
}

function pathOf(
  root: string,
  resource: string,
  verb: string,
  namespace: string | undefined,
  name: string,
): string {
  const [plural = '', subresource] = resource.split('/');
  const collection = `${root}${namespace === undefined ? '' : `/namespaces/${namespace}`}/${plural}`;
  if (subresource !== undefined) return `${collection}/${name}/${subresource}`;
  switch (verb) {
    case 'create':
    case 'deletecollection':
      return collection;
    case 'list':
      return `${collection}?limit=1`;
    case 'watch':
      return `${collection}?watch=true&timeoutSeconds=1`;
    default:
      return `${collection}/${name}`;
  }
}

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

interface RoleBinding {
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects: readonly { readonly name: string; readonly namespace?: string }[];
}

/** What bindings to roles among the objects allow a service account, with objects of any name. */
export function createOracle(
  objects: readonly KubeObject[],
  account: { readonly namespace: string; readonly name: string },
): (call: Pick<ApiCall, 'group' | 'resource' | 'verb' | 'namespace'>) => boolean {
  const granted = objects.flatMap((object) => {
    const { kind, metadata } = object;
    if (!kind.endsWith('RoleBinding')) return [];
    const { roleRef, subjects } = object as unknown as RoleBinding;
    const isOurs = subjects.some(
      (each) => each.name === account.name && each.namespace === account.namespace,
    );
    if (!isOurs) return [];
    const role = objects.find(
      (each) => each.kind === roleRef.kind && each.metadata.name === roleRef.name,
    );
    return ((role?.['rules'] ?? []) as readonly Rule[]).map((rule) => ({
      rule,
      namespace: kind === 'RoleBinding' ? metadata.namespace : undefined,
    }));
  });
  for (const { rule } of granted) {
    const words = [...rule.apiGroups, ...rule.resources, ...rule.verbs];
    if (words.includes('*')) {
      throw new TypeError('a rule that is more than a list of words');
    }
  }
  return (call) =>
    granted.some(
      ({ rule, namespace }) =>
        // For objects with other names than that in the calls.
        rule.resourceNames === undefined &&
        rule.apiGroups.includes(call.group) &&
        rule.resources.includes(call.resource) &&
        rule.verbs.includes(call.verb) &&
        (namespace === undefined || namespace === call.namespace),
    );
}
