/**
 * Decodes objects of the API server for a store: parses and trims each object on arrival, skips
 * unusable ones and those without room in the share of their namespace, and reports each of them
 * once per reason.
 */
import { fullName } from '../../../cache/index/object-name.ts';
import type { ObjectRef, ObjectStore } from '../../../cache/index/objects.ts';
import { KubeError } from '../api/kube-error.ts';
import type { JsonRecord } from '../../../base/json-value.ts';
import { maxNamespaceBytes, NamespaceUsage } from './namespace-usage.ts';
import type { Parse } from './parse.ts';

export interface DecoderOptions<T extends ObjectRef> {
  readonly parse: Parse<T>;
  readonly store: ObjectStore<T>;
  /** Most memory of the objects of one namespace. */
  readonly maxBytes?: number | undefined;
  /** An object was skipped, for the first time or for another reason than before. */
  readonly onSkip: (ref: ObjectRef | undefined, reason: string) => void;
}

/** Each throws errors of the store, and `KubeError` MALFORMED for a deletion without a name. */
interface Changes {
  changed(object: unknown): void;
  /** An object that cannot be parsed. If its name is known, its stored version is removed. */
  reject(ref: ObjectRef | undefined, reason: string): void;
  deleted(object: JsonRecord): void;
}

export interface Decoder extends Changes {
  /** Begins a replacement of the whole content. The store is unchanged until its `commit`. */
  gather(): Replacement;
  readonly objects: number;
  /** Estimated memory of the objects in the store. */
  readonly bytes: number;
  /** Number of skipped versions of objects. */
  readonly rejected: number;
}

export interface Replacement extends Changes {
  /** One atomic step: no reader sees an empty or half-filled store. */
  commit(): void;
}

export function createDecoder<T extends ObjectRef>(options: DecoderOptions<T>): Decoder {
  const { parse, store, maxBytes = maxNamespaceBytes, onSkip } = options;
  const noRoom =
    `the objects of its namespace already take ${maxBytes >> 20} MiB; ` +
    'delete some of this kind, then write this one again';
  let rejected = 0;
  let usage = new NamespaceUsage();
  /** Unusable objects by UID, with the last reported reason. */
  const skipped = new Map<string, string>();

  function refOf(object: JsonRecord): ObjectRef {
    const parsed = parse(object);
    const ref = parsed.ok ? parsed.value : parsed.ref;
    if (ref === undefined) throw new KubeError('MALFORMED', 'a deleted object has no name');
    return ref;
  }

  function changesOf(
    target: Pick<ObjectStore<T>, 'upsert' | 'remove'>,
    used: () => NamespaceUsage,
    unusable?: Set<string>,
  ): Changes {
    function reject(ref: ObjectRef | undefined, reason: string): void {
      rejected += 1;
      const uid = ref?.uid ?? '';
      unusable?.add(uid);
      if (skipped.get(uid) !== reason) {
        skipped.set(uid, reason);
        onSkip(ref, reason);
      }
      // The version before must not grant anything any more.
      if (ref !== undefined) drop(ref);
    }

    function drop(ref: ObjectRef): void {
      target.remove(ref);
      used().remove(ref);
    }

    return {
      changed(object) {
        const parsed = parse(object);
        if (!parsed.ok) return reject(parsed.ref, parsed.reason);
        if (!used().add(parsed.value, parsed.texts, maxBytes)) return reject(parsed.value, noRoom);
        target.upsert(parsed.value);
        skipped.delete(parsed.value.uid);
      },
      reject,
      deleted(object) {
        const ref = refOf(object);
        drop(ref);
        skipped.delete(ref.uid);
      },
    };
  }

  return {
    ...changesOf(store, () => usage),
    gather() {
      const items = new Map<string, T>();
      const gathered = {
        upsert: (item: T) => void items.set(fullName(item), item),
        remove: (ref: ObjectRef) => void items.delete(fullName(ref)),
      };
      const used = new NamespaceUsage();
      const unusable = new Set<string>();
      return {
        ...changesOf(gathered, () => used, unusable),
        commit() {
          store.replace([...items.values()]);
          usage = used;
          for (const uid of skipped.keys()) if (!unusable.has(uid)) skipped.delete(uid);
        },
      };
    },
    get objects() {
      return store.size;
    },
    get bytes() {
      return usage.total;
    },
    get rejected() {
      return rejected;
    },
  };
}
