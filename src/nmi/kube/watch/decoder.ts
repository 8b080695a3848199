/**
 * Between the API server's objects and a store: parses and trims each as it comes, keeps what is
 * unusable out, and says so once for each object and reason.
 */
import { fullName } from '../../../cache/index/object-name.ts';
import type { ObjectRef, ObjectStore } from '../../../cache/index/objects.ts';
import { KubeError } from '../api/kube-error.ts';
import type { JsonRecord } from '../../base/json-value.ts';
import type { Parse } from './parse.ts';

export interface DecoderOptions<T extends ObjectRef> {
  readonly parse: Parse<T>;
  readonly store: ObjectStore<T>;
  /** An object, or one whose reason has changed, was skipped. */
  readonly onSkip: (ref: ObjectRef | undefined, reason: string) => void;
}

/** Each throws what the store throws, and `KubeError` MALFORMED for a deletion of nothing known. */
interface Changes {
  changed(object: unknown): void;
  /** An object that cannot be read; with its name, what it was before is taken away. */
  reject(ref: ObjectRef | undefined, reason: string): void;
  deleted(object: JsonRecord): void;
}

export interface Decoder extends Changes {
  /** Begins a whole new content. Nothing of it is in the store before its `commit`. */
  gather(): Replacement;
  /** Objects in the store. */
  readonly objects: number;
  /** Versions of objects that were skipped. */
  readonly rejected: number;
}

export interface Replacement extends Changes {
  /** One step for the store: no reader sees it empty or half-filled. */
  commit(): void;
}

export function createDecoder<T extends ObjectRef>(options: DecoderOptions<T>): Decoder {
  const { parse, store, onSkip } = options;
  let rejected = 0;
  /** Unusable objects by UID, with the last reported reason. */
  const skipped = new Map<string, string>();

  /** The uid it is remembered under. */
  function skip(ref: ObjectRef | undefined, reason: string): string {
    rejected += 1;
    const uid = ref?.uid ?? '';
    if (skipped.get(uid) !== reason) {
      skipped.set(uid, reason);
      onSkip(ref, reason);
    }
    return uid;
  }

  function refOf(object: JsonRecord): ObjectRef {
    const parsed = parse(object);
    const ref = parsed.ok ? parsed.value : parsed.ref;
    if (ref === undefined) throw new KubeError('MALFORMED', 'a deleted object has no name');
    return ref;
  }

  function reject(ref: ObjectRef | undefined, reason: string): void {
    skip(ref, reason);
    // What it was before must not go on granting.
    if (ref !== undefined) store.remove(ref);
  }

  return {
    changed(object) {
      const parsed = parse(object);
      if (parsed.ok) {
        store.upsert(parsed.value);
        skipped.delete(parsed.value.uid);
      } else {
        reject(parsed.ref, parsed.reason);
      }
    },
    reject,
    deleted(object) {
      const ref = refOf(object);
      store.remove(ref);
      skipped.delete(ref.uid);
    },
    gather() {
      // A list of 30,000 objects names each once, so no table is made of the names.
      const items: T[] = [];
      /** Objects that were taken back, with how many had come until then. */
      const gone = new Map<string, number>();
      const unusable = new Set<string>();

      function rejectOne(ref: ObjectRef | undefined, reason: string): void {
        unusable.add(skip(ref, reason));
        if (ref !== undefined) gone.set(fullName(ref), items.length);
      }

      return {
        changed(object) {
          const parsed = parse(object);
          if (parsed.ok) items.push(parsed.value);
          else rejectOne(parsed.ref, parsed.reason);
        },
        reject: rejectOne,
        deleted(object) {
          gone.set(fullName(refOf(object)), items.length);
        },
        commit() {
          const isLeft = (item: T, index: number) => index >= (gone.get(fullName(item)) ?? 0);
          store.replace(gone.size === 0 ? items : items.filter(isLeft));
          for (const uid of skipped.keys()) if (!unusable.has(uid)) skipped.delete(uid);
        },
      };
    },
    get objects() {
      return store.size;
    },
    get rejected() {
      return rejected;
    },
  };
}
