/** Server-side apply without kubectl: discovery on the server gives the path of an object. */
import { parseAllDocuments } from 'yaml';
import type { Api, KubeBody } from './api.ts';

export interface ApplyOptions {
  /** Everything but the write: validation, admission, defaults. */
  readonly dryRun?: boolean;
}

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

interface ApiResource {
  readonly name: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

/**
 * Applies the documents one after another; those without a namespace go to `default`.
 * Rejects with the server's message at the first one refused.
 */
export async function applyObjects(
  api: Api,
  yaml: string,
  { dryRun = false }: ApplyOptions = {},
): Promise<readonly KubeBody[]> {
  const applied: KubeBody[] = [];
  const known = new Map<string, readonly ApiResource[]>();
  for (const manifest of manifestsOf(yaml)) {
    const query = `fieldManager=test&force=true&fieldValidation=Strict${dryRun ? '&dryRun=All' : ''}`;
    const path = `${await pathOf(api, manifest, known)}?${query}`;
    const contentType = 'application/apply-patch+yaml';
    applied.push(await api.expect('PATCH', path, manifest, { contentType }));
  }
  return applied;
}

function manifestsOf(yaml: string): readonly Manifest[] {
  return parseAllDocuments(yaml).flatMap((document) => {
    const [problem] = document.errors;
    if (problem !== undefined) throw problem;
    const manifest = document.toJS() as Manifest | null;
    return manifest === null ? [] : [manifest];
  });
}

async function pathOf(
  api: Api,
  { apiVersion, kind, metadata }: Manifest,
  known: Map<string, readonly ApiResource[]>,
): Promise<string> {
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const isKind = (each: ApiResource): boolean => each.kind === kind && !each.name.includes('/');
  let resource = known.get(root)?.find(isKind);
  // A definition among these objects may be the reason that there is one now.
  if (resource === undefined) {
    const { resources } = await api.expect('GET', root);
    known.set(root, resources as readonly ApiResource[]);
    resource = known.get(root)?.find(isKind);
  }
  if (resource === undefined) throw new Error(`the server has no ${kind} in ${apiVersion}`);
  const scope = resource.namespaced ? `/namespaces/${metadata.namespace ?? 'default'}` : '';
  return `${root}${scope}/${resource.name}/${metadata.name}`;
}
