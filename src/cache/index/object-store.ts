import { isDeepStrictEqual } from 'node:util';
import { objectKey } from './object-name.ts';
import type { ObjectRef, ObjectStore, StoredObject } from './objects.ts';

/** Called for each difference of one step, then once when the step has ended. */
export interface StoreObserver<T> {
  changed(before: T | undefined, after: T | undefined): void;
  settled(): void;
}

/** Compares all stored fields except the resource version. */
export function isSameObject<T extends StoredObject>(one: T, other: T): boolean {
  return isDeepStrictEqual({ ...one, resourceVersion: other.resourceVersion }, other);
}

/**
 * Objects of one kind by namespace and name. An equal object is no change; the stored one is kept.
 */
export class MemoryObjectStore<T extends StoredObject> implements ObjectStore<T> {
  readonly #observer: StoreObserver<T>;
  #objects = new Map<string, T>();

  constructor(observer: StoreObserver<T>) {
    this.#observer = observer;
  }

  get size(): number {
    return this.#objects.size;
  }

  get(namespace: string, name: string): T | undefined {
    return this.#objects.get(objectKey(namespace, name));
  }

  all(): Iterable<T> {
    return this.#objects.values();
  }

  replace(items: readonly T[]): void {
    const previous = this.#objects;
    // The first list is the largest, and its look-ups would cost as much as its insertions.
    const before = previous.size === 0 ? () => undefined : (key: string) => previous.get(key);
    const next = new Map<string, T>();
    for (const item of items) {
      const key = objectKey(item.namespace, item.name);
      const stored = before(key);
      // No mutation: two objects are equal in either order.
      next.set(key, stored !== undefined && isSameObject(stored, item) ? stored : item);
    }
    this.#objects = next;
    for (const [key, stored] of previous) {
      if (!next.has(key)) this.#observer.changed(stored, undefined);
    }
    for (const [key, after] of next) {
      const stored = before(key);
      if (stored !== after) this.#observer.changed(stored, after);
    }
    this.#observer.settled();
  }

  upsert(item: T): void {
    const key = objectKey(item.namespace, item.name);
    const before = this.#objects.get(key);
    // No mutation: two objects are equal in either order.
    if (before !== undefined && isSameObject(before, item)) return;
    this.#objects.set(key, item);
    this.#observer.changed(before, item);
    this.#observer.settled();
  }

  remove(ref: ObjectRef): void {
    const key = objectKey(ref.namespace, ref.name);
    const before = this.#objects.get(key);
    if (before === undefined || before.uid !== ref.uid) return;
    this.#objects.delete(key);
    this.#observer.changed(before, undefined);
    this.#observer.settled();
  }
}
