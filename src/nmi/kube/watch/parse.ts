/**
 * Raw Kubernetes JSON → the trimmed objects of the cache. Pure and total: nothing here throws. An
 * absent field is empty; a field of a custom resource with the wrong type makes the object
 * unusable, because guessing what its author meant would grant or hide an identity.
 *
 * The author of a pod or a custom resource decides its size, and the agent of every node stores it:
 * at most 16 KB per object (`textBytes`), many times the size of an ordinary one.
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
import { asRecord, stringAt, textOf, type JsonRecord } from '../../../base/json-value.ts';
import { stringBytes, textBytes } from './namespace-usage.ts';

export type Parsed<T> =
  /** `texts`: bytes of all its texts, if they were counted. */
  | { readonly ok: true; readonly value: T; readonly texts?: number }
  /** `ref` if at least the name is known, so that an older version can be dropped. */
  | { readonly ok: false; readonly reason: string; readonly ref: ObjectRef | undefined };

export type Parse<T> = (raw: unknown) => Parsed<T>;

const chainType = 4;
const maxKeptBytes = 16_384;
/** For a grant, which only an administrator writes: more than its schema allows. */
const maxGrantBytes = 65_536;

export const parsePod = parserOf<Pod>('namespace', (ref, metadata, object) => {
  const spec = asRecord(object['spec']);
  const status = asRecord(object['status']);
  return {
    ...ref,
    cgroupUid: staticHash(metadata) ?? ref.uid,
    ips: podIps(status),
    labels: stringMap(metadata['labels']),
    phase: podPhase(status?.['phase']),
    hostNetwork: spec?.['hostNetwork'] === true,
    serviceAccount: stringAt(spec, 'serviceAccountName'),
    terminating: stringAt(metadata, 'deletionTimestamp') !== '',
    createdAtWallMs: createdAtWallMs(metadata),
  };
});

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

export const parseIdentity = parserOf<Identity>('namespace', (ref, metadata, object) => {
  const spec = new Spec(object['spec']);
  // The Go type omits 0, so an absent type is user-assigned.
  const type = spec.read('type', 0, integerOf, 'is not an integer');
  // White space around these values comes from pasting; neither can contain any.
  const ids = {
    clientId: spec.text('clientID').trim(),
    resourceId: spec.text('resourceID').trim(),
  };
  return {
    ...ref,
    type,
    ...ids,
    entra: type === 0 ? undefined : entraSettings(spec),
    ...fieldsOfChain(spec, type, ids),
    // Absent allows everything; an empty list is a mistake, and does not allow everything.
    allowedResources: spec.read(
      'allowedResources',
      undefined,
      resourcesOf,
      'is no list of resources',
    ),
    notBeforeWallMs: spec.read('notBefore', undefined, timeOf, 'is no date as in RFC 3339'),
    createdAtWallMs: createdAtWallMs(metadata),
  };
});

export const parseBinding = parserOf<Binding>('namespace', (ref, metadata, object) => {
  const spec = new Spec(object['spec']);
  return {
    ...ref,
    identityName: spec.text('azureIdentity'),
    selector: spec.text('selector'),
    // A mistake in a restriction must not remove the restriction.
    serviceAccount: spec.text('serviceAccount'),
    createdAtWallMs: createdAtWallMs(metadata),
  };
});

export const parseException = parserOf<Exception>('namespace', (ref, _, object) => {
  const spec = new Spec(object['spec']);
  const podLabels = stringMap(spec.read('podLabels', {}, asRecord, 'is not an object'));
  return { ...ref, podLabels };
});

/** One wrong entry makes the whole grant unusable: an identity without a grant is refused. */
export const parseIdentityGrant = parserOf<IdentityGrant>('cluster', (ref, _, object) => {
  const spec = new Spec(object['spec']);
  const idsOf = (name: string) => spec.read(name, [], namesOf, 'is no list of ids');
  return {
    ...ref,
    namespaces: spec.read('namespaces', [], namesOf, 'is no list of names'),
    clientIds: idsOf('clientIDs').map(normaliseClientId),
    resourceIds: idsOf('resourceIDs').map(normaliseResourceId),
    nodeIdentities: spec.read('nodeIdentities', false, booleanOf, 'is neither true nor false'),
  };
});

function entraSettings(spec: Spec): EntraSettings {
  const problem = 'has the wrong type';
  return {
    tenantId: spec.text('tenantID', problem).trim(),
    adEndpoint: spec.text('adEndpoint', problem).trim(),
    federation: spec.text('federation', problem),
    ...spec.read('clientPassword', { secretNamespace: '', secretName: '' }, secretOf, problem),
    auxiliaryTenantIds: spec
      .read('auxiliaryTenantIDs', [], stringsOf, problem)
      .map((id) => id.trim()),
  };
}

/** Fields that another type has are refused: without them it would be another identity. */
function fieldsOfChain(spec: Spec, type: number, ids: Pick<Identity, 'clientId' | 'resourceId'>) {
  const problem = 'is no object with tenantID and clientID alone';
  const application = spec.read('application', undefined, applicationOf, problem);
  const agentIdentity = spec.text('agentIdentity').trim();
  if (type !== chainType) {
    if (application === undefined && agentIdentity === '') return undefined;
    throw new UnusableError(
      `spec.application and spec.agentIdentity are for type ${chainType} alone`,
    );
  }
  const { tenantId = '', applicationId = '' } = application ?? {};
  const chain = { ...ids, applicationId, agentIdentity };
  return {
    clientId: agentIdentity === '' ? applicationId : agentIdentity,
    resourceId: '',
    entra: { ...entraSettings(spec), tenantId, chain },
  };
}

/** Thrown by the first field of a spec that cannot be used. */
class UnusableError extends Error {}

/** Reads the fields of a spec. */
class Spec {
  readonly #fields: JsonRecord;

  constructor(spec: unknown) {
    const fields = asRecord(spec ?? {});
    if (fields === undefined) throw new UnusableError('spec is not an object');
    this.#fields = fields;
  }

  /** `absent` if the field is absent or null. `parse` returns undefined for an unusable value. */
  read<T>(name: string, absent: T, parse: (value: unknown) => T | undefined, problem: string): T {
    const value = this.#fields[name] ?? undefined;
    if (value === undefined) return absent;
    const parsed = parse(value);
    if (parsed === undefined) throw new UnusableError(`spec.${name} ${problem}`);
    return parsed;
  }

  text(name: string, problem = 'is not a string'): string {
    return this.read(name, '', textOf, problem);
  }
}

function parserOf<T>(
  scope: 'namespace' | 'cluster',
  parse: (ref: StoredObject, metadata: JsonRecord, object: JsonRecord) => T,
): Parse<T> {
  const maxBytes = scope === 'cluster' ? maxGrantBytes : maxKeptBytes;
  const unusable = (reason: string, ref?: ObjectRef): Parsed<T> => ({ ok: false, reason, ref });
  return (raw) => {
    const object = asRecord(raw);
    const metadata = asRecord(object?.['metadata']);
    if (object === undefined || metadata === undefined) return unusable('metadata is missing');
    const ref = {
      namespace: stringAt(metadata, 'namespace'),
      name: stringAt(metadata, 'name'),
      uid: stringAt(metadata, 'uid'),
    };
    const isNamed = (ref.namespace !== '') === (scope === 'namespace') && ref.name !== '';
    if (!isNamed || ref.uid === '') {
      const fields = scope === 'cluster' ? '' : 'metadata.namespace, ';
      return unusable(`${fields}metadata.name or metadata.uid is missing`);
    }
    const resourceVersion = stringAt(metadata, 'resourceVersion');
    try {
      const value = parse({ ...ref, resourceVersion }, metadata, object);
      const texts = textBytes(value);
      if (texts <= maxBytes) return { ok: true, value, texts };
      return unusable(`more than ${maxBytes} bytes of it would have to be kept`, ref);
    } catch (error) {
      if (error instanceof UnusableError) return unusable(error.message, ref);
      throw error;
    }
  };
}

function integerOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) ? value : undefined;
}

/** As the API server checks it: `2026-11-30T06:00:00Z`. */
function timeOf(value: unknown): number | undefined {
  const isTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/;
  const atMs = isTime.test(String(value)) ? Date.parse(String(value)) : Number.NaN;
  return Number.isNaN(atMs) ? undefined : atMs;
}

function booleanOf(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined;
}

function stringsOf(value: unknown): readonly string[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const texts = value.filter((each: unknown) => typeof each === 'string');
  return texts.length < value.length ? undefined : texts;
}

function namesOf(value: unknown): readonly string[] | undefined {
  const names = stringsOf(value)?.map((each) => each.trim());
  return names?.includes('') === true ? undefined : names;
}

function resourcesOf(value: unknown): readonly string[] | undefined {
  const names = namesOf(value) ?? [];
  return names.length === 0 ? undefined : stringsOf(value)?.map(normaliseResource);
}

function secretOf(
  value: unknown,
): Pick<EntraSettings, 'secretNamespace' | 'secretName'> | undefined {
  const secret = asRecord(value);
  const secretName = textOf(secret?.['name'] ?? '');
  const secretNamespace = textOf(secret?.['namespace'] ?? '');
  if (secret === undefined) return undefined;
  if (secretName === undefined || secretNamespace === undefined) return undefined;
  return { secretName, secretNamespace };
}

/** An application in it would be a chain of three, which Entra ID refuses. */
function applicationOf(value: unknown) {
  const fields = asRecord(value);
  const { tenantID = '', clientID = '', ...others } = fields ?? {};
  if (fields === undefined || Object.keys(others).length > 0) return undefined;
  if (typeof tenantID !== 'string' || typeof clientID !== 'string') return undefined;
  return { tenantId: tenantID.trim(), applicationId: clientID.trim() };
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
  let bytes = 0;
  for (const key of Object.keys(record)) {
    const entry = record[key];
    if (typeof entry !== 'string') continue;
    map[key] = entry;
    bytes += 2 * stringBytes + key.length + entry.length;
    if (bytes > maxKeptBytes) break;
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
