/** One line of a watch, made a tagged union. Pure. */
import { asRecord, stringAt, type JsonRecord } from '../../base/json-value.ts';
import { KubeError, kubeErrorOfStatus } from './kube-error.ts';

export type WatchEvent =
  | { readonly kind: 'changed'; readonly object: JsonRecord; readonly version: string }
  | { readonly kind: 'deleted'; readonly object: JsonRecord; readonly version: string }
  /** Everything up to this version was told; `endsList` when that was all of a streaming list. */
  | { readonly kind: 'bookmark'; readonly version: string; readonly endsList: boolean }
  /** The server ends the watch, or the line makes no sense. */
  | { readonly kind: 'error'; readonly error: KubeError };

export function readWatchEvent(raw: unknown): WatchEvent {
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

/** A `Status` object carries the HTTP status the request would have had. */
function statusObjectError(status: JsonRecord): KubeError {
  const code = status['code'];
  const retryAfterSec = asRecord(status['details'])?.['retryAfterSeconds'];
  return kubeErrorOfStatus(
    typeof code === 'number' ? code : 500,
    stringAt(status, 'message') || stringAt(status, 'reason') || 'the server ended the watch',
    typeof retryAfterSec === 'number' ? retryAfterSec * 1000 : undefined,
  );
}
