/**
 * Status conditions of an object: the wanted ones, the existing ones, and whether the two differ.
 * Only a digest of the existing ones is kept, and when each last changed: the Lease holder stores
 * tens of thousands of objects. Pure.
 */
import { hash } from 'node:crypto';
import type { Reason } from '../base/answers.ts';
import { asRecord, stringAt } from '../base/json-value.ts';

const types = ['IdentityFound', 'SelectorUsable', 'Valid', 'CredentialReadable', 'Ready'] as const;
const statuses = ['True', 'False', 'Unknown'] as const;

export type ConditionType = (typeof types)[number];
export type ConditionStatus = (typeof statuses)[number];

export interface Condition {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  /** The reason of the answer that a pod gets because of it. */
  readonly reason: Reason;
  /** What is wrong and how to fix it; empty if nothing is. */
  readonly message: string;
}

/** A condition that the object has now. */
interface ExistingCondition {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  /** As written in the object. */
  readonly since: string;
}

export interface ExistingConditions {
  /** Digest of the conditions of our types, including the generation that they are about. */
  readonly digest: string;
  readonly each: readonly ExistingCondition[];
}

export function isTrue(type: ConditionType): Condition {
  return { type, status: 'True', reason: 'ok', message: '' };
}

export function isFalse(type: ConditionType, reason: Reason, message: string): Condition {
  return { type, status: 'False', reason, message };
}

export function isUnknown(type: ConditionType, reason: Reason, message: string): Condition {
  return { type, status: 'Unknown', reason, message };
}

/** Conditions have the same digest exactly when a write would change nothing. */
export function digestOf(conditions: readonly Condition[], generation: number): string {
  const parts = conditions.map(({ type, status, reason, message }) => {
    return { type, status, reason, message, generation };
  });
  return digestOfParts(parts);
}

interface Part {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly generation: unknown;
}

function digestOfParts(parts: readonly Part[]): string {
  const sorted = parts.toSorted((one, other) => (one.type < other.type ? -1 : 1));
  const texts = sorted.map(({ type, status, reason, message, generation }) =>
    JSON.stringify([type, status, reason, message, generation]),
  );
  return hash('sha1', texts.join('\n'), 'base64');
}

/** Further entries of a list are ignored: ours are at most three. */
const maxEntries = 16;
/** Kubernetes' format of a time. */
const timePattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

/** @param status of an object; not trusted, since other programs may write it. */
export function parseConditions(status: unknown): ExistingConditions {
  const list: unknown = asRecord(status)?.['conditions'];
  const entries: readonly unknown[] = Array.isArray(list) ? list.slice(0, maxEntries) : [];
  const parts: Part[] = [];
  const each: ExistingCondition[] = [];
  for (const entry of entries) {
    const record = asRecord(entry);
    // The table's own strings, so that none of the object's is kept in memory.
    const type = types.find((known) => known === record?.['type']);
    if (type === undefined) continue;
    const text = stringAt(record, 'status');
    parts.push({
      type,
      status: text,
      reason: stringAt(record, 'reason'),
      message: stringAt(record, 'message'),
      generation: record?.['observedGeneration'],
    });
    const known = statuses.find((word) => word === text);
    const since = stringAt(record, 'lastTransitionTime');
    if (known !== undefined && timePattern.test(since)) each.push({ type, status: known, since });
  }
  return { digest: digestOfParts(parts), each };
}

/** The list to write. A condition with an unchanged status keeps its time. */
export function renderConditions(
  conditions: readonly Condition[],
  generation: number,
  existing: ExistingConditions,
  nowWallMs: number,
): readonly object[] {
  const now = new Date(nowWallMs).toISOString().replace(/\.\d+/, '');
  return conditions.map(({ type, status, reason, message }) => {
    const same = existing.each.find((known) => known.type === type && known.status === status);
    return {
      type,
      status,
      reason,
      message,
      observedGeneration: generation,
      lastTransitionTime: same?.since ?? now,
    };
  });
}
