/**
 * `kubectl nmi migrate to-federation`: identities of type 0 become type 3, with a federated credential for
 * each service account that uses them. Nothing has to be assigned to nodes then.
 */
import { isGuid } from '../../cache/index/identifiers.ts';
import { stringAt } from '../../base/json-value.ts';
import { readIds, type AzureIds } from '../azure/az.ts';
import { planFederation, subjectOf, type Subject } from '../azure/federation.ts';
import { parseIdentityId } from '../azure/identity-id.ts';
import { nameOf, specOf, type RawObject } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, type ExitCode } from '../base/plugin-error.ts';
import { verifiedOf } from '../cluster/agents.ts';
import { podsByBinding, readBound, type Bound } from '../cluster/bound.ts';
import { readCredentialTarget } from '../cluster/issuer.ts';
import { identityResources } from '../cluster/resources.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import {
  kubectlCommand,
  nmiCommand,
  pin,
  type PinnedContext,
  type VerbContext,
} from './context.ts';
import { asOurselves, carryOut, checkName, emptyPlan } from './plan.ts';

interface FederationFlags {
  readonly apply: boolean;
  /** Read from Azure what objects lack. */
  readonly run: boolean;
  readonly tenantId: string;
}

/** @param name of one identity; default: all of type 0. */
export async function toFederation(
  unpinned: VerbContext,
  name: string | undefined,
  flags: FederationFlags,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, namespace } = context;
  const [bound, read] = await Promise.all([readBound(kubectl, namespace), readAgents(context)]);
  const chosen = bound.identities.filter(
    (each) => (specOf(each)['type'] ?? 0) === 0 && [nameOf(each), undefined].includes(name),
  );
  if (chosen.length === 0) {
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name === undefined ? '' : `${name} `}of type 0`,
      `See ${kubectlCommand(context)} -n ${namespace} get ${identityResources.identities}`,
    );
  }
  const target = await readCredentialTarget(kubectl, verifiedOf(read.ok ? read.value : []));
  const subjectsOf = subjectsIn(bound, namespace);
  const moves: Move[] = [];
  const obstacles: string[] = [];
  for (const identity of chosen) {
    const ids = await idsOf(context, identity, flags);
    const move = { identity, ids, subjects: subjectsOf(identity) };
    const obstacle = obstacleOf(move, context);
    if (obstacle === undefined) moves.push(move);
    else obstacles.push(`AzureIdentity ${nameOf(identity)} is left out: ${obstacle}`);
  }
  const plans = moves.map(({ identity, ids, subjects }) =>
    planFederation(
      { ...target, clientId: ids.clientId, resourceId: stringAt(specOf(identity), 'resourceID') },
      subjects,
    ),
  );
  const notes = [
    ...obstacles,
    ...moves.flatMap(({ identity, subjects }) =>
      subjects.map((each) => `AzureIdentity ${nameOf(identity)}: subject ${subjectOf(each)}`),
    ),
    ...target.notes,
    ...plans.flatMap((plan) => plan.notes),
    'The agents need the right to get tokens of service accounts: rbac.allowFederation=true of the chart.',
    'Create the credentials first; a new one takes effect after a few minutes. Then change the objects, also in the files that a tool applies them from.',
  ];
  const az = plans.flatMap((plan) => plan.az);
  const plan = { ...emptyPlan, changes: moves.map(patchWords(namespace)), az, notes };
  const code = await carryOut(context, plan, flags.apply);
  return obstacles.length > 0 && flags.apply ? exitCodes.findings : code;
}

interface Move {
  readonly identity: RawObject;
  readonly ids: AzureIds;
  readonly subjects: readonly Subject[];
}

/** The service accounts of the pods of an identity, ended ones too, and those that its bindings name. */
function subjectsIn(
  { bindings, pods }: Bound,
  namespace: string,
): (identity: RawObject) => readonly Subject[] {
  const podsOf = podsByBinding(pods);
  return (identity) => {
    const own = bindings.filter(
      (each) => stringAt(specOf(each), 'azureIdentity') === nameOf(identity),
    );
    const names = [
      ...podsOf(own).map((pod) => stringAt(specOf(pod), 'serviceAccountName') || 'default'),
      ...own.map((binding) => stringAt(specOf(binding), 'serviceAccount')),
    ].filter((each) => each !== '');
    return [...new Set(names)].map((each) => ({ namespace, serviceAccount: checkName(each) }));
  };
}

async function idsOf(
  { io }: VerbContext,
  identity: RawObject,
  { run, tenantId: given }: FederationFlags,
): Promise<AzureIds> {
  const read = (key: string) => stringAt(specOf(identity), key).trim();
  const clientId = read('clientID');
  const tenantId = read('tenantID') || given;
  const isKnown = clientId !== '' && tenantId !== '';
  if (!run || isKnown || parseIdentityId(read('resourceID')) === undefined) {
    return { clientId, tenantId };
  }
  const shown = await readIds(io, read('resourceID'));
  return { clientId: clientId || shown.clientId, tenantId: tenantId || shown.tenantId };
}

/** Why the identity stays as it is; undefined if it need not. */
function obstacleOf({ identity, ids, subjects }: Move, context: PinnedContext): string | undefined {
  const resourceId = stringAt(specOf(identity), 'resourceID').trim();
  if (resourceId !== '' && parseIdentityId(resourceId) === undefined) {
    return 'its spec.resourceID is no id of a user-assigned identity. Correct it.';
  }
  const orRun = resourceId === '' ? '' : ', or add --run to read it from Azure';
  if (!isGuid(ids.clientId)) {
    return `it has no client id that is a GUID. Set spec.clientID${orRun}.`;
  }
  if (ids.tenantId === '') return `no tenant is known. Give --tenant-id${orRun}.`;
  if (subjects.length > 0) return undefined;
  const federate = nmiCommand(context, 'identity', 'federate', nameOf(identity));
  return `no pod and no binding names a service account. Bind a pod first; for others: ${federate} --service-account NAME`;
}

/** A JSON patch: the owner of the object keeps all else, and a type that changed meanwhile refuses it. */
const patchWords =
  (namespace: string) =>
  ({ identity, ids }: Move): readonly string[] => {
    const spec = specOf(identity);
    const add = (key: string, value: unknown) => ({ op: 'add', path: `/spec/${key}`, value });
    const patch = [
      ...(spec['type'] === undefined ? [] : [{ op: 'test', path: '/spec/type', value: 0 }]),
      add('type', 3),
      ...(stringAt(spec, 'clientID').trim() === '' ? [add('clientID', ids.clientId)] : []),
      ...(stringAt(spec, 'tenantID').trim() === '' ? [add('tenantID', ids.tenantId)] : []),
    ];
    return [
      ...['patch', identityResources.identities, checkName(nameOf(identity))],
      ...[`--namespace=${namespace}`, '--type=json', asOurselves],
      `--patch=${JSON.stringify(patch)}`,
    ];
  };
