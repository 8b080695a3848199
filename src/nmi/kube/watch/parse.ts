/**
 * Raw Kubernetes JSON → the trimmed objects of the cache. Pure and total: nothing here throws. An
 * absent field is empty; a field of a custom resource with the wrong type makes the object
 * unusable, because guessing what its author meant would grant or hide an identity.
 *
 * The author of a pod or a custom resource decides its size, and the agent of every node stores it:
 * at most 16 KB of text per object, many times the size of an ordinary one.
 */
import type {
  Binding,
  EntraSettings,
  Exception,
  Identity,
  IdentityGrant,
  ObjectRef,
  Pod,
  PodPhase,
  StoredObject,
} from '../../../cache/index/objects.ts';
import {
  normaliseClientId,
  normaliseResource,
  normaliseResourceId,
} from '../../../cache/index/identifiers.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../base/json-value.ts';
import { textLength } from './namespace-usage.ts';

export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  /** `ref` if at least the name is known, so that an older version can be dropped. */
  | { readonly ok: false; readonly reason: string; readonly ref: ObjectRef | undefined };

export type Parse<T> = (raw: unknown) => Parsed<T>;

const maxKeptLength = 16_384;
/** For a grant, which only an administrator writes: more than its schema allows. */
const maxGrantLength = 65_536;

export function parsePod(raw: unknown): Parsed<Pod> {
  return withMetadata(raw, (ref, metadata, object) => {
    const spec = asRecord(object['spec']);
    const status = asRecord(object['status']);
    return usable({
      ...ref,
      cgroupUid: staticHash(metadata) ?? ref.uid,
      ips: podIps(status),
      labels: stringMap(metadata['labels']),
      phase: podPhase(status?.['phase']),
      hostNetwork: spec?.['hostNetwork'] === true,
      serviceAccount: stringAt(spec, 'serviceAccountName'),
      terminating: stringAt(metadata, 'deletionTimestamp') !== '',
      createdAtWallMs: createdAtWallMs(metadata),
    });
  });
}

/**
 * The kubelet's UID of a static pod, from the mirror pod that it creates in the API. Any author of
 * a pod can set the hash annotation; the mirror annotation beside it cannot be added later, and the
 * kubelet does not run a pod that is created with it.
 */
function staticHash(metadata: JsonRecord): string | undefined {
  const annotations = asRecord(metadata['annotations']);
  const hash = stringAt(annotations, 'kubernetes.io/config.hash');
  const isCopy = hash !== '' && stringAt(annotations, 'kubernetes.io/config.mirror') === hash;
  return isCopy ? hash : undefined;
}

export function parseIdentity(raw: unknown): Parsed<Identity> {
  return withMetadata(raw, (ref, metadata, object) => {
    const spec = specOf(object);
    if (spec === undefined) return unusable(ref, 'spec is not an object');
    // The Go type omits 0, so an absent type is user-assigned.
    const type = spec['type'] ?? 0;
    if (typeof type !== 'number' || !Number.isInteger(type)) {
      return unusable(ref, 'spec.type is not an integer');
    }
    const clientId = optionalString(spec['clientID']);
    if (clientId === undefined) return unusable(ref, 'spec.clientID is not a string');
    const resourceId = optionalString(spec['resourceID']);
    if (resourceId === undefined) return unusable(ref, 'spec.resourceID is not a string');
    const entra = type === 0 ? undefined : entraSettings(spec);
    if (typeof entra === 'string') return unusable(ref, `${entra} has the wrong type`);
    const allowedResources = allowedResourcesOf(spec);
    if (allowedResources === 'unusable') {
      return unusable(ref, 'spec.allowedResources is no list of resources');
    }
    return usable({
      ...ref,
      type,
      // White space around these values comes from pasting; neither can contain any.
      clientId: clientId.trim(),
      resourceId: resourceId.trim(),
      entra,
      allowedResources,
      createdAtWallMs: createdAtWallMs(metadata),
    });
  });
}

export function parseBinding(raw: unknown): Parsed<Binding> {
  return withMetadata(raw, (ref, metadata, object) => {
    const spec = specOf(object);
    if (spec === undefined) return unusable(ref, 'spec is not an object');
    const identityName = optionalString(spec['azureIdentity']);
    if (identityName === undefined) return unusable(ref, 'spec.azureIdentity is not a string');
    const selector = optionalString(spec['selector']);
    if (selector === undefined) return unusable(ref, 'spec.selector is not a string');
    // A mistake in a restriction must not remove the restriction.
    const serviceAccount = optionalString(spec['serviceAccount']);
    if (serviceAccount === undefined) return unusable(ref, 'spec.serviceAccount is not a string');
    return usable({
      ...ref,
      identityName,
      selector,
      serviceAccount,
      createdAtWallMs: createdAtWallMs(metadata),
    });
  });
}

export function parseException(raw: unknown): Parsed<Exception> {
  return withMetadata(raw, (ref, _metadata, object) => {
    const spec = specOf(object);
    if (spec === undefined) return unusable(ref, 'spec is not an object');
    const podLabels = spec['podLabels'] ?? {};
    if (asRecord(podLabels) === undefined) return unusable(ref, 'spec.podLabels is not an object');
    return usable({ ...ref, podLabels: stringMap(podLabels) });
  });
}

/** One wrong entry makes the whole grant unusable: an identity without a grant is refused. */
export function parseIdentityGrant(raw: unknown): Parsed<IdentityGrant> {
  return withMetadata(
    raw,
    (ref, _metadata, object) => {
      const spec = specOf(object);
      if (spec === undefined) return unusable(ref, 'spec is not an object');
      const namespaces = optionalStrings(spec['namespaces']);
      if (namespaces === undefined) return unusable(ref, 'spec.namespaces is no list of names');
      const clientIds = optionalStrings(spec['clientIDs']);
      if (clientIds === undefined) return unusable(ref, 'spec.clientIDs is no list of ids');
      const resourceIds = optionalStrings(spec['resourceIDs']);
      if (resourceIds === undefined) return unusable(ref, 'spec.resourceIDs is no list of ids');
      const nodeIdentities = spec['nodeIdentities'] ?? false;
      if (typeof nodeIdentities !== 'boolean') {
        return unusable(ref, 'spec.nodeIdentities is neither true nor false');
      }
      return usable({
        ...ref,
        namespaces,
        clientIds: clientIds.map(normaliseClientId),
        resourceIds: resourceIds.map(normaliseResourceId),
        nodeIdentities,
      });
    },
    'cluster',
  );
}

/** A string is the name of the field with the wrong type. */
function entraSettings(spec: JsonRecord): EntraSettings | string {
  const tenantId = optionalString(spec['tenantID']);
  if (tenantId === undefined) return 'spec.tenantID';
  const adEndpoint = optionalString(spec['adEndpoint']);
  if (adEndpoint === undefined) return 'spec.adEndpoint';
  const federation = optionalString(spec['federation']);
  if (federation === undefined) return 'spec.federation';
  const password = asRecord(spec['clientPassword'] ?? {});
  const secretName = optionalString(password?.['name']);
  const secretNamespace = optionalString(password?.['namespace']);
  if (password === undefined || secretName === undefined || secretNamespace === undefined) {
    return 'spec.clientPassword';
  }
  const auxiliary: unknown = spec['auxiliaryTenantIDs'] ?? [];
  if (!Array.isArray(auxiliary)) return 'spec.auxiliaryTenantIDs';
  const auxiliaryTenantIds = auxiliary.flatMap((id: unknown) =>
    typeof id === 'string' ? [id.trim()] : [],
  );
  if (auxiliaryTenantIds.length < auxiliary.length) return 'spec.auxiliaryTenantIDs';
  return {
    tenantId: tenantId.trim(),
    auxiliaryTenantIds,
    adEndpoint: adEndpoint.trim(),
    secretNamespace,
    secretName,
    federation,
  };
}

/**
 * Absent (or null) allows everything; an empty list is a mistake, and does not allow everything.
 */
function allowedResourcesOf(spec: JsonRecord): readonly string[] | 'unusable' | undefined {
  const listed: unknown = spec['allowedResources'] ?? undefined;
  if (listed === undefined) return undefined;
  if (!Array.isArray(listed) || listed.length === 0) return 'unusable';
  const resources = listed.flatMap((each: unknown) =>
    typeof each === 'string' && each.trim() !== '' ? [normaliseResource(each)] : [],
  );
  return resources.length < listed.length ? 'unusable' : resources;
}

function withMetadata<T>(
  raw: unknown,
  parse: (ref: StoredObject, metadata: JsonRecord, object: JsonRecord) => Parsed<T>,
  scope: 'namespace' | 'cluster' = 'namespace',
): Parsed<T> {
  const object = asRecord(raw);
  const metadata = asRecord(object?.['metadata']);
  if (object === undefined || metadata === undefined) {
    return { ok: false, reason: 'metadata is missing', ref: undefined };
  }
  const ref = {
    namespace: stringAt(metadata, 'namespace'),
    name: stringAt(metadata, 'name'),
    uid: stringAt(metadata, 'uid'),
  };
  const isNamed = (ref.namespace !== '') === (scope === 'namespace') && ref.name !== '';
  if (!isNamed || ref.uid === '') {
    const fields = scope === 'cluster' ? '' : 'metadata.namespace, ';
    const reason = `${fields}metadata.name or metadata.uid is missing`;
    return { ok: false, reason, ref: undefined };
  }
  const resourceVersion = stringAt(metadata, 'resourceVersion');
  const parsed = parse({ ...ref, resourceVersion }, metadata, object);
  const maxLength = scope === 'cluster' ? maxGrantLength : maxKeptLength;
  if (!parsed.ok || textLength(parsed.value) <= maxLength) return parsed;
  return unusable(ref, `more than ${maxLength} characters of it would have to be kept`);
}

function usable<T>(value: T): Parsed<T> {
  return { ok: true, value };
}

function unusable<T>({ namespace, name, uid }: ObjectRef, reason: string): Parsed<T> {
  return { ok: false, reason, ref: { namespace, name, uid } };
}

/** An absent spec is empty; any other value that is not an object is `undefined`. */
function specOf(object: JsonRecord): JsonRecord | undefined {
  return asRecord(object['spec'] ?? {});
}

/** Absent (or null) is empty; a wrong type is `undefined`. */
function optionalString(value: unknown): string | undefined {
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? value : undefined;
}

/** Absent (or null) is empty; anything but a list of non-blank strings is `undefined`. */
function optionalStrings(value: unknown): readonly string[] | undefined {
  const listed: unknown = value ?? [];
  if (!Array.isArray(listed)) return undefined;
  const texts = listed.flatMap((each: unknown) =>
    typeof each === 'string' && each.trim() !== '' ? [each.trim()] : [],
  );
  return texts.length < listed.length ? undefined : texts;
}

/**
 * The entries that are strings, on an object without prototype: `constructor` is a valid label
 * name, and a lookup of it must not find JavaScript's own. A map that is too large to be kept is
 * copied only until that is certain: 25,000 labels would block the event loop for 30 ms (measured).
 */
function stringMap(value: unknown): Readonly<Record<string, string>> {
  const map: Record<string, string> = {};
  Object.setPrototypeOf(map, null);
  const record = asRecord(value) ?? {};
  let length = 0;
  for (const key of Object.keys(record)) {
    const entry = record[key];
    if (typeof entry !== 'string') continue;
    map[key] = entry;
    length += key.length + entry.length;
    if (length > maxKeptLength) break;
  }
  return map;
}

function podIps(status: JsonRecord | undefined): readonly string[] {
  const entries: unknown = status?.['podIPs'];
  const ips = Array.isArray(entries)
    ? entries.map((entry) => stringAt(asRecord(entry), 'ip')).filter((ip) => ip !== '')
    : [];
  if (ips.length > 0) return [...new Set(ips)];
  const only = stringAt(status, 'podIP');
  return only === '' ? [] : [only];
}

const podPhases: readonly PodPhase[] = ['Pending', 'Running', 'Succeeded', 'Failed'];

function podPhase(value: unknown): PodPhase {
  return podPhases.find((phase) => phase === value) ?? 'Unknown';
}

/** 0 when absent or unreadable: old enough to be past every grace period. */
function createdAtWallMs(metadata: JsonRecord): number {
  const at = Date.parse(stringAt(metadata, 'creationTimestamp'));
  return Number.isNaN(at) ? 0 : at;
}
