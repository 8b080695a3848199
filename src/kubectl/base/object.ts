/** Fields of raw Kubernetes objects, read without trusting their shape. */
import { asRecord, stringAt, type JsonRecord } from '../../base/json-value.ts';

export type RawObject = JsonRecord;

export function metadataOf(object: RawObject): JsonRecord {
  return asRecord(object['metadata']) ?? {};
}

export function nameOf(object: RawObject): string {
  return stringAt(metadataOf(object), 'name');
}

export function namespaceOf(object: RawObject): string {
  return stringAt(metadataOf(object), 'namespace');
}

/** `namespace/name`, or only the name for an object without a namespace. */
export function titleOf(object: RawObject): string {
  const namespace = namespaceOf(object);
  return namespace === '' ? nameOf(object) : `${namespace}/${nameOf(object)}`;
}

export function specOf(object: RawObject): JsonRecord {
  return asRecord(object['spec']) ?? {};
}

export function statusOf(object: RawObject): JsonRecord {
  return asRecord(object['status']) ?? {};
}

export function conditionOf(object: RawObject, type: string): JsonRecord | undefined {
  return recordsAt(statusOf(object), 'conditions').find((each) => each['type'] === type);
}

export function templateOf(workload: RawObject): JsonRecord | undefined {
  const job = workload['kind'] === 'CronJob' ? asRecord(specOf(workload)['jobTemplate']) : workload;
  return asRecord(asRecord(job?.['spec'])?.['template']);
}

/** Entries that are strings; own properties only, so that `constructor` is a name like any other. */
export function stringsAt(
  record: JsonRecord | undefined,
  key: string,
): ReadonlyMap<string, string> {
  const entries = Object.entries(asRecord(record?.[key]) ?? {});
  return new Map(
    entries.flatMap(([name, value]) => (typeof value === 'string' ? [[name, value] as const] : [])),
  );
}

export function labelsOf(object: RawObject): ReadonlyMap<string, string> {
  return stringsAt(metadataOf(object), 'labels');
}

export function annotationsOf(object: RawObject): ReadonlyMap<string, string> {
  return stringsAt(metadataOf(object), 'annotations');
}

export function recordsAt(record: JsonRecord | undefined, key: string): readonly JsonRecord[] {
  const list: unknown = record?.[key];
  if (!Array.isArray(list)) return [];
  return list.map(asRecord).filter((each) => each !== undefined);
}

export function textsAt(record: JsonRecord | undefined, key: string): readonly string[] {
  const list: unknown = record?.[key];
  if (!Array.isArray(list)) return [];
  return list.filter((each: unknown): each is string => typeof each === 'string');
}

/** A server sends the kind once for a list, and who wrote which field, which nothing here reads. */
export function itemsOf(parsed: RawObject): readonly RawObject[] {
  if (!Array.isArray(parsed['items'])) return [parsed];
  const { apiVersion } = parsed;
  const kind = stringAt(parsed, 'kind').replace(/List$/, '');
  return recordsAt(parsed, 'items').map((item) => {
    const known = kind === '' ? item : { apiVersion, kind, ...item };
    const { managedFields, ...metadata } = metadataOf(item);
    return managedFields === undefined ? known : { ...known, metadata };
  });
}
