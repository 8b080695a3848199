/** The operations of a JSON patch (RFC 6902) that the writer uses, as an API server applies them. */
import { asRecord, stringAt } from '../../../src/nmi/base/json-value.ts';

/** @throws Error for an operation that the standard refuses, which an API server answers with 422. */
export function applyJsonPatch(document: unknown, patch: readonly unknown[]): unknown {
  const copy: unknown = structuredClone(document);
  for (const each of patch) {
    const operation = asRecord(each) ?? {};
    const steps = stringAt(operation, 'path').split('/').slice(1);
    const last = steps.pop() ?? '';
    const parent = steps.reduce<unknown>((at, step) => asMembers(at)[step], copy);
    apply(stringAt(operation, 'op'), parent, last, operation['value']);
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
  if (typeof value !== 'object' || value === null) throw new Error('no parent');
  return value as Record<string, unknown>;
}
