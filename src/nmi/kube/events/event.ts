/**
 * An Event in the format of `events.k8s.io/v1`. The API server refuses notes that are longer than
 * 1,024 bytes, times without six decimals, and instances that are longer than 128 characters. Pure.
 */
import { createHash } from 'node:crypto';

export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  /** The Event is written there. */
  readonly namespace: string;
  readonly name: string;
  /** `kubectl describe` shows Events of the same uid only. */
  readonly uid: string;
}

export interface EventDraft {
  readonly regarding: ObjectReference;
  readonly related: ObjectReference | undefined;
  readonly type: 'Normal' | 'Warning';
  /** In upper camel case, as usual in Kubernetes. */
  readonly reason: string;
  /** The attempted action, in upper camel case. */
  readonly action: string;
  readonly note: string;
  /**
   * Milliseconds in which all agents together write it once, by its name: a cluster has thousands, and
   * one identity for all. Undefined for an Event that no other agent writes.
   */
  readonly sharedForMs?: number;
}

export interface EventOrigin {
  readonly name: string;
  readonly atWallMs: number;
  /** Identifies the reporting agent. */
  readonly instance: string;
}

export const reportingController = 'entra-pod-identity/nmi';

const maxNoteBytes = 1_024;
const maxInstance = 128;
/** With a dot and the id appended, a name has less than its limit of 253 characters. */
const maxNamePrefix = 220;

/** `binding_missing` → `BindingMissing`. */
export function eventReasonOf(reason: string): string {
  return reason
    .split('_')
    .map((word) => `${word[0]?.toUpperCase() ?? ''}${word.slice(1)}`)
    .join('');
}

/** One line of at most 1,024 bytes: the text is shortened, the fix and what is before it are not. */
export function noteOf(text: string, fix: string, beforeFix = ''): string {
  const end = toLine(`${beforeFix}${fix === '' ? '' : ` Fix: ${fix}`}`);
  return `${clip(toLine(text), maxNoteBytes - Buffer.byteLength(end))}${end}`;
}

/** @param id unique among the Events of the object; lower case letters and digits. */
export function eventNameOf({ name }: ObjectReference, id: string): string {
  // A dot must follow a letter or a digit.
  const [prefix = ''] = /^.*[a-z0-9]/.exec(name.slice(0, maxNamePrefix)) ?? [];
  return `${prefix}.${id}`;
}

/** The same on every node, for an Event of this kind in the same period. */
export function sharedId(kind: string, { uid }: ObjectReference, period: number): string {
  return createHash('sha256').update(`${uid} ${kind} ${period}`).digest('hex').slice(0, 16);
}

export function eventPath({ namespace }: ObjectReference): string {
  return `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`;
}

export function renderEvent(draft: EventDraft, origin: EventOrigin): Record<string, unknown> {
  const { regarding, related, type, reason, action, note } = draft;
  return {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: origin.name, namespace: regarding.namespace },
    eventTime: new Date(origin.atWallMs).toISOString().replace('Z', '000Z'),
    reportingController,
    reportingInstance: origin.instance.slice(0, maxInstance),
    type,
    reason,
    action,
    note,
    regarding,
    ...(related === undefined ? {} : { related }),
  };
}

/** Object names and upstream texts may contain any character, and a terminal shows the note. */
function toLine(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '?');
}

function clip(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.byteLength <= maxBytes) return text;
  let end = Math.max(0, maxBytes - 3);
  // Does not cut within a character: all its bytes but the first begin with the bits 10.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return `${bytes.subarray(0, end).toString('utf8')}...`;
}
