/** An object with its status: how the agent parses it, and its current conditions. Pure. */
import type { ObjectRef, StoredObject } from '../../cache/index/objects.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import type { Parse, Parsed } from '../kube/watch/parse.ts';
import { parseConditions, type ExistingConditions } from './condition.ts';

export interface Observed<T> extends StoredObject {
  /** Of the latest event: a write applies to this version or fails. A new version is a change. */
  readonly version: string;
  /** Generation of the spec; 0 if the server counts none. */
  readonly generation: number;
  readonly parsed: Parsed<T>;
  readonly conditions: ExistingConditions;
}

/** Objects that an agent ignores are observed too. */
export function observing<T extends ObjectRef>(parse: Parse<T>): Parse<Observed<T>> {
  return (raw) => {
    const parsed = parse(raw);
    const ref = parsed.ok ? parsed.value : parsed.ref;
    if (ref === undefined) return { ok: false, reason: 'it has no name', ref };
    const object = asRecord(raw);
    const metadata = asRecord(object?.['metadata']);
    const version = stringAt(metadata, 'resourceVersion');
    const generation = metadata?.['generation'];
    return {
      ok: true,
      value: {
        namespace: ref.namespace,
        name: ref.name,
        uid: ref.uid,
        resourceVersion: version,
        version,
        generation: typeof generation === 'number' ? generation : 0,
        parsed,
        conditions: parseConditions(object?.['status']),
      },
    };
  };
}
