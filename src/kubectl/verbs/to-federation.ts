/** `kubectl nmi migrate to-federation`: identities of type 0 become type 3, with credentials. */
import { stringAt } from '../../base/json-value.ts';
import { idsOf, planFederation } from '../azure/federation.ts';
import { nameOf, specOf, type RawObject } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, type ExitCode } from '../base/plugin-error.ts';
import { trustedOf } from '../cluster/agents.ts';
import { readBound, usesIn, type Uses } from '../cluster/bound.ts';
import { readCredentialTarget } from '../cluster/issuer.ts';
import { identityResources } from '../cluster/resources.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import { askAgentRight } from './agent-right.ts';
import { kubectlCommand, nmiCommand, pin, type VerbContext } from './context.ts';
import { asOurselves, carryOut, checkName, emptyPlan } from './plan.ts';
import { problemOfIds } from './to-workload-identity.ts';

export async function toFederation(
  unpinned: VerbContext,
  name: string | undefined,
  { apply, tenantId }: { readonly apply: boolean; readonly tenantId: string },
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, namespace } = context;
  const [bound, read] = await Promise.all([readBound(kubectl, namespace), readAgents(context)]);
  const chosen = bound.identities.filter(
    (each) => (specOf(each)['type'] ?? 0) === 0 && [nameOf(each), undefined].includes(name),
  );
  const program = kubectlCommand(context);
  const usesOf = usesIn(bound);
  if (chosen.length === 0) {
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name === undefined ? '' : `${name} `}of type 0`,
      `See ${program} -n ${namespace} get ${identityResources.identities}`,
    );
  }
  const target = await readCredentialTarget(kubectl, trustedOf(read.ok ? read.value : []));
  const moves = chosen.map((identity) => {
    const title = `AzureIdentity ${nameOf(identity)}`;
    const accounts = accountsOf(usesOf(identity));
    const patch = patchOf(identity, tenantId);
    const federate = nmiCommand(context, 'identity', 'federate', nameOf(identity));
    const problem =
      problemOfIds(identity, program) ??
      (patch === undefined ? `${title} has no tenant. Give --tenant-id.` : undefined) ??
      (accounts.length === 0
        ? `No pod and no binding of ${title} names a service account. Bind a pod first; for others: ${federate} --service-account NAME`
        : undefined);
    return { identity, accounts, patch, problem };
  });
  const ready = moves.filter(({ problem }) => problem === undefined);
  // In one namespace, all need the same right when they have type 3.
  const moved = ready
    .slice(0, 1)
    .map(({ identity }) => ({ ...identity, spec: { ...specOf(identity), type: 3 } }));
  const agents = read.ok ? read.value : undefined;
  const rights = await Promise.all(moved.map((each) => askAgentRight(kubectl, each, agents)));
  const [lacking] = rights.flatMap(({ findings }) => findings);
  const [unknown] = rights.flatMap(({ unread }) => unread);
  if (apply && lacking !== undefined) {
    const { text, fix } = lacking;
    throw failedError(`the agents lack a right, and pods would be refused: ${text}`, fix);
  }
  const state =
    lacking === undefined
      ? unknown && `Whether they have it was not checked: ${unknown.why}. kubectl nmi doctor does.`
      : 'They lack it, so --apply refuses.';
  const plans = ready.map(({ identity, accounts }) => {
    const subjects = accounts.map((serviceAccount) => ({ namespace, serviceAccount }));
    return planFederation({ ...target, ...idsOf(identity) }, subjects);
  });
  const changes = ready.map(({ identity, patch }) => [
    ...['patch', identityResources.identities, checkName(nameOf(identity))],
    ...[`--namespace=${namespace}`, '--type=json', asOurselves, `--patch=${JSON.stringify(patch)}`],
  ]);
  const notes = [
    ...moves.flatMap(({ problem }) => (problem === undefined ? [] : [`Left out: ${problem}`])),
    ...target.notes,
    ...plans.flatMap((plan) => plan.notes),
    ...(state === undefined ? [] : [`${needed} ${state}`]),
    'Create the credentials first; a new one takes effect after a few minutes. Then change the objects, and the files that a tool applies them from.',
  ];
  const az = plans.flatMap((plan) => plan.az);
  const code = await carryOut(context, { ...emptyPlan, changes, az, notes }, apply);
  return ready.length < moves.length && apply ? exitCodes.findings : code;
}

const needed =
  'The agents need the right to get tokens of service accounts: rbac.allowFederation=true of the chart, before Kubernetes 1.36 with rbac.federationNamespaces.';

/** Those of its pods, ended ones too, and those that its bindings name. */
function accountsOf({ bindings, pods }: Uses): readonly string[] {
  const names = [
    ...pods.map((pod) => stringAt(specOf(pod), 'serviceAccountName') || 'default'),
    ...bindings.map((binding) => stringAt(specOf(binding), 'serviceAccount')),
  ];
  return [...new Set(names)].filter((each) => each !== '').map(checkName);
}

/** A JSON patch: it fails if the type is another meanwhile. Undefined if no tenant is known. */
function patchOf(identity: RawObject, tenantId: string): readonly object[] | undefined {
  const { type, tenantID } = specOf(identity);
  const isNew = typeof tenantID !== 'string' || tenantID.trim() === '';
  if (isNew && tenantId === '') return undefined;
  return [
    ...(type === undefined ? [] : [{ op: 'test', path: '/spec/type', value: 0 }]),
    { op: 'add', path: '/spec/type', value: 3 },
    ...(isNew ? [{ op: 'add', path: '/spec/tenantID', value: tenantId }] : []),
  ];
}
