/** Redacts a dump: removes secrets, tokens, and older versions that kubectl stores. Pure. */
import { asRecord } from '../../base/json-value.ts';
import { metadataOf, type RawObject } from './object.ts';

const removed = '(removed)';
const secretName = /secret|password|token|key|credential|connection.?string|sas/i;
/** After the name of a credential. */
const secretText =
  /(?<=(?:password|secret|token|sig|accountkey)["']?\s{0,40}[=:]\s{0,40}["']?)[^\s"',;&]{8,}/gi;

/** In linear time: namespace users write annotations of 256 kB. */
export function redactText(text: string): string {
  return text
    .replaceAll(secretText, removed)
    .replaceAll(/[\w.-]+/g, withoutToken)
    .replaceAll(/[^\s"']+/g, withoutUser);
}

/** A JSON web token. */
function withoutToken(word: string): string {
  const at = word.indexOf('eyJ');
  return at >= 0 && word.includes('.', at + 8) ? word.slice(0, at) + removed : word;
}

/** User and password of a URL, as of a proxy; the scheme may be left out. */
function withoutUser(word: string): string {
  const end = word.replaceAll('@sha256:', ' sha256:').lastIndexOf('@');
  const scheme = word.indexOf('://');
  const start = scheme < 0 ? word.indexOf('=') + 1 : scheme + 3;
  const isUser = scheme >= 0 || word.slice(start, end).includes(':');
  return isUser && start < end ? word.slice(0, start) + removed + word.slice(end) : word;
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
