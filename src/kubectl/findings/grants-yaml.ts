/** Needed grants as YAML that kubectl applies and a person reviews. Pure. */
import type { NeededGrant, NeededGrants, NeededId } from './needed-grants.ts';
import { printable, printableList } from '../../base/printable.ts';

const about = `# What the objects of this cluster give to pods today and no AzureIdentityGrant gives yet. Review it: each line gives
# an identity to all who may write an AzureIdentity in that namespace. A line that may give them somebody else's is
# commented out, with the reason. AzureIdentities without a binding are not here.
`;
const kubelet = `# No node shows which identity is the kubelet's. Leave that one out:
# az aks show --query identityProfile.kubeletidentity.clientId
`;

export function renderGrants({ grants, knowsKubelet }: NeededGrants): string {
  return about + (knowsKubelet ? '' : kubelet) + grants.map(renderGrant).join('');
}

interface Line {
  readonly text: string;
  readonly isLive: boolean;
}

/** JSON strings are valid YAML. */
function renderGrant({ name, namespace, nodeIdentities, ...grant }: NeededGrant): string {
  const ids = (['clientIDs', 'resourceIDs'] as const).flatMap((field): readonly Line[] => {
    const lines = grant[field].map(lineOf);
    if (lines.length === 0) return [];
    return [{ text: `  ${field}:`, isLive: lines.some(({ isLive }) => isLive) }, ...lines];
  });
  // An exception gives every identity of the node, by its id.
  const reason = 'gives exceptions of the namespace every identity of the nodes';
  const node = nodeIdentities
    ? [{ text: `  nodeIdentities: true  # ${reason}`, isLive: false }]
    : [];
  const isLive = ids.some((each) => each.isLive);
  const head = [
    'apiVersion: aadpodidentity.k8s.io/v1',
    'kind: AzureIdentityGrant',
    'metadata:',
    `  name: ${JSON.stringify(name)}`,
    'spec:',
    `  namespaces: [${JSON.stringify(namespace)}]`,
  ].map((text) => ({ text, isLive }));
  const lines = [...head, ...ids, ...node].map((each) =>
    each.isLive ? each.text : `# ${each.text}`,
  );
  return ['---', ...lines, ''].join('\n');
}

function lineOf({ id, usedBy, doubts }: NeededId): Line {
  const why =
    doubts.length === 0 ? '' : `; CHECK: ${doubts.map((each) => printable(each)).join('; ')}`;
  const names = printableList(usedBy, 3);
  return {
    text: `    - ${JSON.stringify(id)}  # AzureIdentity ${names}${why}`,
    isLive: doubts.length === 0,
  };
}
