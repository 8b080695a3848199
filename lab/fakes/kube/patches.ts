/** Patches as an API server applies them. */
import { isDeepStrictEqual } from 'node:util';
import { asRecord, stringAt } from '../../../src/base/json-value.ts';

/** A JSON merge patch (RFC 7396). */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const base =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? target : {};
  const merged = new Map<string, unknown>(Object.entries(base));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key);
    else merged.set(key, mergePatch(merged.get(key), value));
  }
  return Object.fromEntries(merged);
}

/**
 * The operations add, remove, replace and test of a JSON patch (RFC 6902).
 * @throws Error for one that the standard refuses; an API server then answers with 422.
 */
export function jsonPatch(target: unknown, patch: unknown): unknown {
  const copy: unknown = structuredClone(target);
  if (!Array.isArray(patch)) throw new Error('not a list of operations');
  for (const each of patch) {
    const operation = asRecord(each) ?? {};
    const steps = stringAt(operation, 'path').split('/').slice(1);
    const last = steps.pop() ?? '';
    const parent = steps.reduce<unknown>((at, step) => asMembers(at)[step], copy);
    const op = stringAt(operation, 'op');
    if (op === 'test') {
      if (isDeepStrictEqual(asMembers(parent)[last], operation['value'])) continue;
      throw new Error(`the value of ${stringAt(operation, 'path')} is another`);
    }
    if (!['add', 'remove', 'replace'].includes(op)) throw new Error(`unexpected operation ${op}`);
    apply(op, parent, last, operation['value']);
  }
  return copy;
}

function apply(op: string, parent: unknown, last: string, value: unknown): void {
  if (Array.isArray(parent)) {
    const index = last === '-' ? parent.length : Number(last);
    if (!(index < parent.length || (op === 'add' && index === parent.length))) {
      throw new Error(`no element ${last}`);
    }
    parent.splice(index, op === 'add' ? 0 : 1, ...(op === 'remove' ? [] : [value]));
    return;
  }
  const members = asMembers(parent);
  if (op !== 'add' && !(last in members)) throw new Error(`no member ${last}`);
  if (op === 'remove') delete members[last];
  else members[last] = value;
}

function asMembers(value: unknown): Record<string, unknown> {
  if (!isObject(value)) throw new Error('no parent');
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
