/** Needed grants as YAML that kubectl applies and a person reviews. Pure. */
import type { NeededGrant, NeededId } from './needed-grants.ts';
import { printable } from '../../base/printable.ts';

const about = `# What the objects of this cluster give to pods today and no AzureIdentityGrant gives yet.
# Review it: each line gives an identity to all who may write an AzureIdentity in that namespace. Leave out
# what is not theirs, the identity of the kubelet above all. AzureIdentities without a binding are not here.
`;

export function renderGrants(grants: readonly NeededGrant[]): string {
  return about + grants.map(renderGrant).join('');
}

/** JSON strings are valid YAML. */
function renderGrant({ name, namespace, ...grant }: NeededGrant): string {
  const ids = (['clientIDs', 'resourceIDs'] as const).flatMap((field) =>
    grant[field].length === 0 ? [] : [`  ${field}:`, ...grant[field].map(renderId)],
  );
  return [
    '---',
    'apiVersion: aadpodidentity.k8s.io/v1',
    'kind: AzureIdentityGrant',
    'metadata:',
    `  name: ${JSON.stringify(name)}`,
    'spec:',
    `  namespaces: [${JSON.stringify(namespace)}]`,
    ...ids,
    ...(grant.nodeIdentities ? ['  nodeIdentities: true'] : []),
    '',
  ].join('\n');
}

function renderId({ id, usedBy, alsoIn }: NeededId): string {
  const others = alsoIn.length === 0 ? '' : `; ALSO NAMED IN namespace ${few(alsoIn)}`;
  return `    - ${JSON.stringify(id)}  # AzureIdentity ${few(usedBy)}${others}`;
}

function few(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => printable(name));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : '';
  return `${shown.join(', ')}${more}`;
}
