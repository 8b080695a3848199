/** `kubectl nmi migrate to-workload-identity`. Service accounts have other owners too. */
import { oldest } from '../../cache/index/grant-index.ts';
import { isGuid, normaliseClientId } from '../../cache/index/identifiers.ts';
import { fullName } from '../../cache/index/object-name.ts';
import type { Identity } from '../../cache/index/objects.ts';
import { stringAt } from '../../base/json-value.ts';
import type { Config } from '../../nmi/config/config.ts';
import { cloudOf } from '../../nmi/sources/entra/clouds.ts';
import { renderAz } from '../azure/az.ts';
import { idsOf, isChain, planFederation, subjectOf, type Subject } from '../azure/federation.ts';
import { parseIdentityId, showClientIdLine } from '../azure/identity-id.ts';
import {
  annotationsOf,
  metadataOf,
  nameOf,
  namespaceOf,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { shellWord } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, type ExitCode } from '../base/plugin-error.ts';
import { commonConfig, defaultConfig, trustedOf } from '../cluster/agents.ts';
import { createClusterState } from '../cluster/cluster-state.ts';
import { readIssuer } from '../cluster/issuer.ts';
import { identityResources } from '../cluster/resources.ts';
import { readSnapshot, type Snapshot } from '../cluster/snapshot.ts';
import { labelPatch, ownersOf } from '../findings/owners.ts';
import { kubectlCommand, pin, type VerbContext } from './context.ts';
import { asOurselves, carryOut, checkName, emptyPlan } from './plan.ts';

export async function toWorkloadIdentity(unpinned: VerbContext, apply: boolean): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { namespace, kubectl } = context;
  const snapshot = await readSnapshot(context, namespace);
  const config = commonConfig(trustedOf(snapshot.agents)) ?? defaultConfig;
  const all = usesOf(snapshot, config, context.io.wallMs());
  if (all.length === 0) {
    throw failedError(
      `no pod of namespace ${namespace} is bound to an identity`,
      `See kubectl -n ${namespace} get azureidentitybindings`,
    );
  }
  const issuer = await readIssuer(kubectl);
  const program = kubectlCommand(context);
  const obstacles = all.flatMap((use) => obstacleOf(use, program) ?? []);
  const uses = all.filter((use) => obstacleOf(use, program) === undefined);
  const changes = uses.flatMap(annotateWords);
  const { audience } = cloudOf(config.cloud);
  const plans = [...Map.groupBy(uses, ({ identity }) => titleOf(identity)).values()].map((same) =>
    planFederation({ ...idsOf(same[0]?.identity ?? {}), issuer, audience }, same),
  );
  const notes = [
    ...obstacles,
    ...useNotes(uses),
    ...new Set(plans.flatMap((each) => each.notes)),
    'Pods need an SDK that knows Workload Identity: docs/migrate-to-workload-identity.md has the versions, and how to see those in use.',
    'When the credentials exist, label the pod templates; the binding label may stay until all is well:',
    ...[...templatePatches(uses, snapshot)].map((line) => line.replace(/^kubectl\b/, program)),
  ];
  const plan = { ...emptyPlan, changes, az: plans.flatMap((each) => each.az), notes };
  const code = await carryOut(context, plan, apply);
  return obstacles.length > 0 && apply ? exitCodes.findings : code;
}

interface Use extends Subject {
  /** What the account has, as far as the user may read it. */
  readonly annotations: ReadonlyMap<string, string>;
  /** A service account names one. */
  readonly identity: RawObject;
  readonly pods: readonly RawObject[];
  /** Identities that pods of the account get only by name. */
  readonly others: readonly string[];
  /** Pods that get another identity today when they name none, by its name. */
  readonly strays: ReadonlyMap<string, readonly RawObject[]>;
}

interface BoundPod {
  readonly pod: RawObject;
  readonly account: string;
  /** As the agent sorts them: a request that names none gets the first. */
  readonly identities: readonly [Identity, ...(readonly Identity[])];
}

function usesOf(snapshot: Snapshot, config: Config, nowWallMs: number): readonly Use[] {
  const { grants } = createClusterState(snapshot, config, nowWallMs).clusterState;
  const bound = snapshot.pods.flatMap((pod): readonly BoundPod[] => {
    const found = grants.grantsOf(stringAt(metadataOf(pod), 'uid'));
    if (found?.kind !== 'bound') return [];
    const [first, ...rest] = found.identities;
    const account = stringAt(specOf(pod), 'serviceAccountName') || 'default';
    return first === undefined ? [] : [{ pod, account, identities: [first, ...rest] }];
  });
  const byAccount = Map.groupBy(bound, ({ account }) => account);
  return [...byAccount].flatMap(([account, pods]) => useOf(account, pods, snapshot) ?? []);
}

function useOf(
  account: string,
  bound: readonly BoundPod[],
  { accounts, identities }: Snapshot,
): Use | undefined {
  const byDefault = Map.groupBy(bound, (each) => each.identities[0].name);
  const [chosen] = oldest(
    bound.map((each) => each.identities[0]),
    1,
  );
  const title = chosen && fullName(chosen);
  const identity = identities.find((each) => titleOf(each) === title);
  if (identity === undefined) return undefined;
  const namespace = namespaceOf(identity);
  const object = accounts.find((each) => titleOf(each) === `${namespace}/${account}`);
  const names = new Set(bound.flatMap((each) => each.identities.map(({ name }) => name)));
  return {
    namespace,
    serviceAccount: account,
    annotations: object === undefined ? new Map() : annotationsOf(object),
    identity,
    pods: bound.map(({ pod }) => pod),
    others: [...names].filter((name) => !byDefault.has(name)).toSorted(),
    strays: new Map(
      [...byDefault]
        .filter(([name]) => name !== nameOf(identity))
        .map(([name, each]) => [name, each.map(({ pod }) => pod)]),
    ),
  };
}

/** Undefined if the service account can name the identity. @param program with its flags. */
function obstacleOf(
  { namespace, serviceAccount, annotations, identity }: Use,
  program: string,
): string | undefined {
  const title = `Service account ${namespace}/${serviceAccount} is left out:`;
  if (isChain(identity)) {
    return `${title} AzureIdentity ${nameOf(identity)} is a chain, which cannot begin with a token that came by federation (AADSTS700231).`;
  }
  const problem = problemOfIds(identity, program);
  if (problem !== undefined) return `${title} ${problem}`;
  const name = nameOf(identity);
  for (const [key, value] of annotationsFor(identity)) {
    const present = annotations.get(key) ?? value;
    // Letter case and blanks have no meaning in ids and names of tenants.
    if (normaliseClientId(present) === normaliseClientId(value)) continue;
    const command = `${program} -n ${namespace} annotate serviceaccount ${serviceAccount} ${shellWord(`${key}=${value}`)} --overwrite`;
    return `${title} its annotation ${key} is "${present}", and AzureIdentity ${name} has ${value}. If nothing needs the old value: ${command}`;
  }
  return undefined;
}

/** Undefined if Azure could have the ids of the identity. */
export function problemOfIds(identity: RawObject, program: string): string | undefined {
  const { clientId, resourceId } = idsOf(identity);
  const title = `AzureIdentity ${nameOf(identity)}`;
  const edit = `${program} -n ${namespaceOf(identity)} edit ${identityResources.identities} ${nameOf(identity)}`;
  if (resourceId !== '' && parseIdentityId(resourceId) === undefined) {
    return `${title} has a spec.resourceID that is no id of a user-assigned identity. Correct it: ${edit}`;
  }
  if (isGuid(clientId)) return undefined;
  const problem = clientId === '' ? 'no client id' : 'a client id that is no GUID';
  const find = renderAz(showClientIdLine(resourceId));
  return `${title} has ${problem}. Find it: ${find}. Then set spec.clientID: ${edit}`;
}

function annotationsFor(identity: RawObject): readonly (readonly [key: string, value: string])[] {
  const tenantId = stringAt(specOf(identity), 'tenantID').trim();
  return [
    ['azure.workload.identity/client-id', idsOf(identity).clientId],
    ...(tenantId === '' ? [] : [['azure.workload.identity/tenant-id', tenantId] as const]),
  ];
}

/**
 * Not `kubectl apply`, with or without --server-side: both remove what the owner of the object
 * applied and we do not. `annotate` patches the annotations only, and refuses to replace one.
 */
function annotateWords(use: Use): readonly (readonly string[])[] {
  const entries = annotationsFor(use.identity)
    .filter(([key]) => !use.annotations.has(key))
    .map(([key, value]) => `${key}=${value}`);
  if (entries.length === 0) return [];
  const where = [checkName(use.serviceAccount), `--namespace=${use.namespace}`];
  return [['annotate', 'serviceaccount', ...where, asOurselves, ...entries]];
}

function useNotes(uses: readonly Use[]): readonly string[] {
  const strays = uses.flatMap((use) => [...use.strays]);
  return [
    ...strays.map(
      ([name, pods]) =>
        `Pods ${pods.slice(0, 10).map(nameOf).join(', ')} get ${name} today: set AZURE_CLIENT_ID to the client id of ${name} in them before you label them.`,
    ),
    ...uses
      .filter(({ others }) => others.length > 0)
      .map(
        ({ serviceAccount, others }) =>
          `Service account ${serviceAccount} is used with ${others.join(', ')} too: set AZURE_CLIENT_ID in those pods.`,
      ),
    ...uses.map((use) => `${subjectOf(use)} becomes ${nameOf(use.identity)}`),
  ];
}

function templatePatches(uses: readonly Use[], { workloads }: Snapshot): ReadonlySet<string> {
  const owners = uses.flatMap(({ pods }) => pods.flatMap((pod) => ownersOf(pod, workloads)));
  return new Set(owners.map((each) => labelPatch(each, 'azure.workload.identity/use', 'true')));
}
