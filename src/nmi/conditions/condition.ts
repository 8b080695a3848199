/** Wanted and existing status conditions of one of tens of thousands of objects. Pure. */
import { hash } from 'node:crypto';
import type { Code } from '../diagnosis/codes.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';

const types = ['IdentityFound', 'SelectorUsable', 'Valid', 'CredentialReadable', 'Ready'] as const;
const statuses = ['True', 'False', 'Unknown'] as const;

export type ConditionType = (typeof types)[number];
export type ConditionStatus = (typeof statuses)[number];

export interface Condition {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  readonly reason: Code | 'ok';
  /** What is wrong and how to fix it; empty if nothing is. */
  readonly message: string;
}

interface ExistingCondition {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  readonly since: string;
}

export interface ExistingConditions {
  /** Digest of the conditions of our types, including the generation that they are about. */
  readonly digest: string;
  readonly each: readonly ExistingCondition[];
  /** Indexes of the conditions of our types in the object's list, or what there is no list in. */
  readonly places: readonly number[] | 'no status' | 'no list';
}

/** Conditions have the same digest exactly when a write would change nothing. */
export function digestOf(conditions: readonly Condition[], generation: number): string {
  return digestOfParts(
    conditions.map(({ type, status, reason, message }) =>
      partOf(type, status, reason, message, generation),
    ),
  );
}

function partOf(...parts: readonly unknown[]): string {
  return JSON.stringify(parts);
}

function digestOfParts(parts: readonly string[]): string {
  return hash('sha1', parts.toSorted().join('\n'), 'base64');
}

/** Further conditions of our types are removed by a later write: ours are at most three. */
const maxOwn = 16;
const timePattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

/** @param status of an object; not trusted, since other programs may write it. */
export function parseConditions(status: unknown): ExistingConditions {
  const parts: string[] = [];
  const each: ExistingCondition[] = [];
  const places: number[] = [];
  const list: unknown = asRecord(status)?.['conditions'];
  const entries: readonly unknown[] = Array.isArray(list) ? list : [];
  for (const [index, entry] of entries.entries()) {
    const record = asRecord(entry);
    // The table's own strings, so that none of the object's is kept in memory.
    const type = types.find((known) => known === record?.['type']);
    if (type === undefined) continue;
    if (places.length === maxOwn) break;
    places.push(index);
    const text = stringAt(record, 'status');
    const [reason, message] = [stringAt(record, 'reason'), stringAt(record, 'message')];
    parts.push(partOf(type, text, reason, message, record?.['observedGeneration']));
    const known = statuses.find((word) => word === text);
    const since = stringAt(record, 'lastTransitionTime');
    if (known !== undefined && timePattern.test(since)) each.push({ type, status: known, since });
  }
  const digest = digestOfParts(parts);
  if (Array.isArray(list)) return { digest, each, places };
  return { digest, each, places: asRecord(status) === undefined ? 'no status' : 'no list' };
}

/** Our part of the list to write. A condition with an unchanged status keeps its time. */
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

/**
 * A JSON patch that leaves the conditions of other programs as they are. It names places, so it is
 * for one version: the server refuses it for another one. A merge patch would replace the whole
 * list, and so would an apply under a definition whose list is no map.
 */
export function patchOf(
  resourceVersion: string,
  { places }: ExistingConditions,
  conditions: readonly object[],
): readonly object[] {
  const version = { op: 'replace', path: '/metadata/resourceVersion', value: resourceVersion };
  if (places === 'no status') {
    return [version, { op: 'add', path: '/status', value: { conditions } }];
  }
  const path = '/status/conditions';
  if (places === 'no list') return [version, { op: 'add', path, value: conditions }];
  return [
    version,
    // From the end: a removal changes the places after it.
    ...places.toReversed().map((index) => ({ op: 'remove', path: `${path}/${index}` })),
    ...conditions.map((value) => ({ op: 'add', path: `${path}/-`, value })),
  ];
}
