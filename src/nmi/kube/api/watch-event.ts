/** Parses one line of a watch into a tagged union. Pure. */
import type { ObjectRef } from '../../../cache/index/objects.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../base/json-value.ts';
import { OverlongLine } from './json-lines.ts';
import { KubeError, kubeErrorOfStatus } from './kube-error.ts';

export type WatchEvent =
  | { readonly kind: 'changed'; readonly object: JsonRecord; readonly version: string }
  | { readonly kind: 'deleted'; readonly object: JsonRecord; readonly version: string }
  /** All changes up to this version were sent; `endsList` at the end of a streaming list. */
  | { readonly kind: 'bookmark'; readonly version: string; readonly endsList: boolean }
  /** A change that is too long to be parsed; `ref` and `version` if its beginning contains them. */
  | { readonly kind: 'overlong'; readonly ref: ObjectRef | undefined; readonly version: string }
  /** The server ended the watch, or the line is invalid. */
  | { readonly kind: 'error'; readonly error: KubeError };

export function readWatchEvent(raw: unknown): WatchEvent {
  if (raw instanceof OverlongLine) return readBeginning(raw.beginning);
  const event = asRecord(raw);
  const type = stringAt(event, 'type');
  const object = asRecord(event?.['object']);
  if (object === undefined) return malformed(`a watch event of type "${type}" has no object`);
  if (type === 'ERROR') return { kind: 'error', error: statusObjectError(object) };
  const version = versionOf(object);
  if (version === '') return malformed(`a watch event of type "${type}" has no resourceVersion`);
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
      return { kind: 'changed', object, version };
    case 'DELETED':
      return { kind: 'deleted', object, version };
    case 'BOOKMARK':
      return { kind: 'bookmark', version, endsList: endsList(object) };
    default:
      return malformed(`unknown watch event type "${type.slice(0, 32)}"`);
  }
}

/**
 * The beginning of a pod as an API server writes it, before any text that the pod's author chose
 * freely. No other text is read as a name: no word of an annotation, and no metadata further down.
 */
const beginning =
  /^\{"type":"(?<type>[A-Z]+)","object":\{(?:"(?:kind|apiVersion)":"[\w./-]+",){0,2}"metadata":\{(?<fields>(?:"[a-zA-Z]+":"[^"\\]*"[,}])+)/;

function readBeginning(text: string): WatchEvent {
  const { type, fields = '' } = beginning.exec(text)?.groups ?? {};
  const metadata: Record<string, unknown> = {};
  for (const [, name = '', value] of fields.matchAll(/"([a-zA-Z]+)":"([^"\\]*)"[,}]/g)) {
    metadata[name] = value;
  }
  const version = stringAt(metadata, 'resourceVersion');
  const ref = {
    namespace: stringAt(metadata, 'namespace'),
    name: stringAt(metadata, 'name'),
    uid: stringAt(metadata, 'uid'),
  };
  if ([version, ref.namespace, ref.name, ref.uid].includes('')) {
    return { kind: 'overlong', ref: undefined, version: '' };
  }
  if (type === 'DELETED') return { kind: 'deleted', object: { metadata }, version };
  return { kind: 'overlong', ref, version };
}

/** `metadata.resourceVersion` of an object or a list; empty when it has none. */
export function versionOf(object: JsonRecord | undefined): string {
  return stringAt(asRecord(object?.['metadata']), 'resourceVersion');
}

function endsList(bookmark: JsonRecord): boolean {
  const annotations = asRecord(asRecord(bookmark['metadata'])?.['annotations']);
  return stringAt(annotations, 'k8s.io/initial-events-end') === 'true';
}

function malformed(message: string): WatchEvent {
  return { kind: 'error', error: new KubeError('MALFORMED', message) };
}

/** A `Status` object contains the HTTP status that the request would have had. */
function statusObjectError(status: JsonRecord): KubeError {
  const code = status['code'];
  const retryAfterSec = asRecord(status['details'])?.['retryAfterSeconds'];
  return kubeErrorOfStatus(
    typeof code === 'number' ? code : 500,
    stringAt(status, 'message') || stringAt(status, 'reason') || 'the server ended the watch',
    typeof retryAfterSec === 'number' ? retryAfterSec * 1000 : undefined,
  );
}
