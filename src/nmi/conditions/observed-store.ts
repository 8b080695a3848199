/** Observed objects of one kind by namespace and name. A new version of an object is a change. */
import { objectKey } from '../../cache/index/object-name.ts';
import type { ObjectRef, ObjectStore } from '../../cache/index/objects.ts';
import type { Observed } from './observed.ts';

/** The object before and after; `after` is undefined for a deletion. */
export type OnChanged<T> = (
  before: Observed<T> | undefined,
  after: Observed<T> | undefined,
) => void;

export class ObservedStore<T> implements ObjectStore<Observed<T>> {
  readonly #onChanged: OnChanged<T>;
  #objects = new Map<string, Observed<T>>();

  constructor(onChanged: OnChanged<T>) {
    this.#onChanged = onChanged;
  }

  get size(): number {
    return this.#objects.size;
  }

  get(namespace: string, name: string): Observed<T> | undefined {
    return this.#objects.get(objectKey(namespace, name));
  }

  all(): Iterable<Observed<T>> {
    return this.#objects.values();
  }

  replace(items: readonly Observed<T>[]): void {
    const previous = this.#objects;
    this.#objects = new Map(items.map((item) => [objectKey(item.namespace, item.name), item]));
    for (const [key, before] of previous) {
      if (!this.#objects.has(key)) this.#onChanged(before, undefined);
    }
    for (const [key, after] of this.#objects) this.#compare(previous.get(key), after);
  }

  upsert(item: Observed<T>): void {
    const key = objectKey(item.namespace, item.name);
    const before = this.#objects.get(key);
    this.#objects.set(key, item);
    this.#compare(before, item);
  }

  remove({ namespace, name, uid }: ObjectRef): void {
    const key = objectKey(namespace, name);
    const before = this.#objects.get(key);
    if (before?.uid !== uid) return;
    this.#objects.delete(key);
    this.#onChanged(before, undefined);
  }

  #compare(before: Observed<T> | undefined, after: Observed<T>): void {
    if (before?.resourceVersion !== after.resourceVersion || before.uid !== after.uid) {
      this.#onChanged(before, after);
    }
  }
}
