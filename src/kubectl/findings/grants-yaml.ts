/** Needed grants as YAML that kubectl applies and a person reviews. Pure. */
import type { NeededGrant, NeededId } from './needed-grants.ts';
import { printable } from '../../base/printable.ts';

const about = `# What the objects of this cluster give to pods today and no AzureIdentityGrant gives yet.
# Review it: each line gives an identity to all who may write an AzureIdentity in that namespace. Leave out
# what is not theirs, the identity of the kubelet above all.
`;

export function renderGrants(grants: readonly NeededGrant[]): string {
  return about + grants.map(renderGrant).join('');
}

function renderGrant({ name, namespace, ...grant }: NeededGrant): string {
  return [
    '---',
    'apiVersion: aadpodidentity.k8s.io/v1',
    'kind: AzureIdentityGrant',
    'metadata:',
    `  name: ${quote(name)}`,
    'spec:',
    `  namespaces: [${quote(namespace)}]`,
    ...renderIds('clientIDs', grant.clientIds),
    ...renderIds('resourceIDs', grant.resourceIds),
    ...(grant.nodeIdentities ? ['  nodeIdentities: true'] : []),
    '',
  ].join('\n');
}

function renderIds(field: string, ids: readonly NeededId[]): readonly string[] {
  if (ids.length === 0) return [];
  return [`  ${field}:`, ...ids.map((each) => `    - ${quote(each.id)}${renderUse(each)}`)];
}

function renderUse({ usedBy, alsoIn }: NeededId): string {
  const parts = [
    ...(usedBy.length === 0 ? [] : [`AzureIdentity ${few(usedBy)}`]),
    ...(alsoIn.length === 0 ? [] : [`ALSO NAMED IN namespace ${few(alsoIn)}`]),
  ];
  return parts.length === 0 ? '' : `  # ${parts.join('; ')}`;
}

function few(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => printable(name));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : '';
  return `${shown.join(', ')}${more}`;
}

/** JSON strings are valid YAML. */
function quote(text: string): string {
  return JSON.stringify(text);
}
