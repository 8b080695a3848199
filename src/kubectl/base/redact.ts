/** Redacts a dump: removes secrets, tokens, and older versions that kubectl stores. Pure. */
import { asRecord } from '../../base/json-value.ts';
import { metadataOf, type RawObject } from './object.ts';

const removed = '(removed)';
const secretName = /secret|password|token|key|credential|connection.?string|sas/i;
/** JSON web tokens, and texts after the name of a credential. */
const secretText =
  /eyJ[\w-]{5,}(?:\.[\w-]+){1,2}|(?<=(?:password|secret|token|sig|accountkey)["']?\s*[=:]\s*["']?)[^\s"',;&]{8,}/gi;

export function redactText(text: string): string {
  return text.replaceAll(secretText, removed);
}

/** Keeps values of environment variables only if name and value are harmless. */
export function redactObject(object: RawObject): RawObject {
  const { managedFields: _fields, ...metadata } = metadataOf(object);
  const { 'kubectl.kubernetes.io/last-applied-configuration': _applied, ...annotations } =
    asRecord(metadata['annotations']) ?? {};
  const clean = { ...object, metadata: { ...metadata, annotations } };
  return asRecord(redactValue(clean)) ?? {};
}

function redactValue(value: unknown): unknown {
  if (typeof value === 'string') return redactText(value);
  if (Array.isArray(value)) return value.map(redactValue);
  const record = asRecord(value);
  if (record === undefined) return value;
  const isSecret = typeof record['name'] === 'string' && secretName.test(record['name']);
  const entries = Object.entries(record).map(([key, each]) =>
    key === 'value' && isSecret ? [key, removed] : [key, redactValue(each)],
  );
  const clean: unknown = Object.fromEntries(entries);
  return clean;
}
