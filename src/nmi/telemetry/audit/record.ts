/**
 * Audit records: who had access to what, by which objects, one JSON line each. Pure. What pods and
 * namespace users write is bounded and escaped; no field contains a token or a secret.
 */
import type { GrantIndex } from '../../../cache/index/grant-index.ts';
import { fullName } from '../../../cache/index/object-name.ts';
import type { Binding, Pod, StoredObject } from '../../../cache/index/objects.ts';
import { loggableId, loggablePath, loggableResource } from '../../../base/log.ts';
import type { Grant, Granted, RefusedPod } from '../../grants/grant.ts';
import type { NamedSelector } from '../../grants/choose-identity.ts';
import type { IdentityOwners } from '../../grants/identity-owners.ts';
import { identityOf, type RequestRecord } from '../../server/request-record.ts';
import { sourceNameOf, titlesBefore } from '../../sources/upstream-identity.ts';

type Value =
  string | number | boolean | undefined | readonly string[] | Readonly<Record<string, string>>;
export type AuditFields = Readonly<Record<string, Value>>;

export interface AuditState {
  readonly grants: Pick<GrantIndex, 'grantsOf'>;
  readonly owners: Pick<IdentityOwners, 'deciding'>;
}

/** Names of Kubernetes objects have at most 253 characters. */
const maxLength = 256;

export function whoseFields(record: RequestRecord, clusterState: AuditState): AuditFields {
  const { status, reason, route, identifiedBy, podIp, method, decision } = record;
  const pod = record.pod ?? record.callerPod;
  const grant = decision?.grant;
  return {
    outcome: outcomeOf(status, grant),
    status,
    reason,
    attestedBy: route.kind === 'host-token' ? 'host process' : (identifiedBy ?? 'nothing'),
    namespace: pod?.namespace,
    pod: pod?.name,
    uid: pod?.uid,
    serviceAccount: pod?.serviceAccount,
    ...identityFields(grant),
    versions: versionsOf(pod, grant, clusterState),
    podIp,
    method,
  };
}

export function detailFields({ route, decision }: RequestRecord) {
  const { resource = '', cache } = decision ?? {};
  return {
    path: route.kind === 'passthrough' ? loggablePath(route.path) : undefined,
    resource: resource === '' ? undefined : loggableResource(resource),
    cache,
  };
}

/** `denied` by the agent; `failed`: authorized without a token, or to be tried again. */
function outcomeOf(status: number, grant: Grant | undefined): 'granted' | 'denied' | 'failed' {
  if (status < 400) return 'granted';
  const isUndecided = status === 429 || status >= 500;
  const isGranted = grant !== undefined && grant.kind !== 'refused';
  return isUndecided || isGranted ? 'failed' : 'denied';
}

function identityFields(grant: Grant | undefined): AuditFields {
  switch (grant?.kind) {
    case undefined:
      return {};
    case 'granted':
      return grantedFields(grant);
    case 'by-object-id':
      return { requested: `object_id ${loggableId(grant.objectId)}` };
    case 'refused':
      return grant.pod === undefined ? {} : refusedFields(grant);
  }
}

/** `Kind/name` of the objects behind the decision, to the version of the fields that are read. */
function versionsOf(
  pod: Pod | undefined,
  grant: Grant | undefined,
  { grants, owners }: AuditState,
): Readonly<Record<string, string>> {
  if (pod === undefined) return {};
  const versions: Record<string, string> = {};
  const add = (kind: string, object: StoredObject | undefined): void => {
    if (object !== undefined) versions[`${kind}/${object.name}`] = object.resourceVersion;
  };
  add('Pod', pod);
  const ofPod = grants.grantsOf(pod.uid);
  if (ofPod?.kind === 'exception') {
    add('AzurePodIdentityException', ofPod.exception);
    add('AzureIdentityGrant', owners.deciding(pod.namespace));
  }
  const identity = identityOf(grant);
  if (identity === undefined) return versions;
  add('AzureIdentity', identity);
  if (ofPod?.kind === 'bound') {
    const isOfIdentity = ({ identityName }: Binding) => identityName === identity.name;
    add('AzureIdentityBinding', ofPod.bindings.find(isOfIdentity));
  }
  if (grant?.kind === 'granted') {
    add('AzureIdentityGrant', owners.deciding(identity.namespace, grant.upstream));
  }
  return versions;
}

export function renderRecord(wallMs: number, fields: AuditFields, message: string): string {
  const record: Record<string, Value> = {
    level: 'info',
    time: new Date(wallMs).toISOString(),
    component: 'audit',
  };
  for (const [name, value] of Object.entries(fields)) {
    const isEmpty =
      value === undefined || value === '' || (Array.isArray(value) && value.length === 0);
    if (!isEmpty) record[name] = bounded(value);
  }
  record['msg'] = message;
  // ASCII only: JSON does not escape the line ends of Unicode.
  return `${JSON.stringify(record).replaceAll(/[^\x20-\x7e]/g, '?')}\n`;
}

function bounded(value: Value): Value {
  return typeof value === 'string' ? value.slice(0, maxLength) : value;
}

function grantedFields({ identity, by, upstream, pod }: Granted): AuditFields {
  const source = sourceNameOf(upstream);
  if (identity !== undefined) {
    const { clientId, type } = identity;
    const before = titlesBefore(upstream);
    const chain = before.length === 0 ? {} : { chain: before };
    return { identity: fullName(identity), identityType: type, clientId, ...chain, by, source };
  }
  if (upstream.kind === 'entra') {
    const account = `${pod.namespace}/${pod.serviceAccount}`;
    return { identity: `service account ${account}`, clientId: upstream.clientId, by, source };
  }
  const requested = upstream.kind === 'unnamed' ? undefined : selectorText(upstream);
  return { identity: 'node', requested, by, source };
}

function refusedFields({ facts }: RefusedPod): AuditFields {
  switch (facts.about) {
    case 'resource':
    case 'unusable':
      return { identity: facts.identity && fullName(facts.identity) };
    case 'not-owned':
      return { requested: `${facts.unowned.kind} ${facts.unowned.name}` };
    case 'account-selector':
      return { requested: selectorText(facts.selector) };
    case 'object-id':
      return { requested: `object_id ${loggableId(facts.objectId)}` };
    case 'choice':
      return facts.choice.reason === 'selector_not_bound'
        ? { requested: selectorText(facts.choice.selector) }
        : {};
    default:
      return {};
  }
}

function selectorText({ kind, value }: NamedSelector): string {
  return `${kind} ${loggableId(value)}`;
}
