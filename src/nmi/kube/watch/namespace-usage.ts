/**
 * How much memory the stored objects of one kind take, by namespace. A user who may create objects in one
 * namespace decides their number, and the agent of every node stores all of them: without a limit, 30,000
 * objects of the largest size would exceed the memory limit of every agent.
 */
import { asRecord } from '../../../base/json-value.ts';
import type { ObjectRef } from '../../../cache/index/objects.ts';

/**
 * Of one kind: some 33,000 objects of the usual size, 1,500 of the largest. `nmi conditions` also keeps
 * each object's conditions: 20,000 bindings have room there.
 */
export const maxNamespaceBytes = 24 * 1024 * 1024;
/** Of exceptions: some 1,000. A pod is compared with all that have one of its labels. */
export const maxExceptionBytes = 1024 * 1024;
/** Of an object without its texts: its fields and its entries in indexes (measured: 325 to 460). */
const objectBytes = 512;
/**
 * Of each string beside its characters, in lists and maps, whose author decides how many there are: with
 * the place that V8 keeps for it (measured: 33 to 50 in a list, 40 to 150 for both strings of a label).
 */
export const stringBytes = 48;

export class NamespaceUsage {
  readonly #byNamespace = new Map<string, number>();
  readonly #byUid = new Map<string, number>();
  #total = 0;

  /** Bytes of all namespaces. */
  get total(): number {
    return this.#total;
  }

  /**
   * Counts an object, or its new version. Returns false, and counts neither, if there is no room for it.
   * @param texts what `textBytes` returns for it.
   */
  add(object: ObjectRef, texts = textBytes(object), maxBytes = maxNamespaceBytes): boolean {
    this.remove(object);
    const bytes = objectBytes + texts;
    const used = (this.#byNamespace.get(object.namespace) ?? 0) + bytes;
    if (used > maxBytes) return false;
    this.#byNamespace.set(object.namespace, used);
    this.#byUid.set(object.uid, bytes);
    this.#total += bytes;
    return true;
  }

  remove({ namespace, uid }: ObjectRef): void {
    const bytes = this.#byUid.get(uid);
    if (bytes === undefined) return;
    this.#byUid.delete(uid);
    this.#total -= bytes;
    const left = (this.#byNamespace.get(namespace) ?? 0) - bytes;
    if (left > 0) this.#byNamespace.set(namespace, left);
    else this.#byNamespace.delete(namespace);
  }
}

const beyondLatin1 = /[\u0100-\uffff]/;

/**
 * Of all texts and keys in a value. One character beyond Latin-1 makes V8 store two bytes for each of a text.
 * Without lists of keys or entries: with 30,000 objects these took a tenth of the start.
 */
export function textBytes(value: unknown): number {
  if (typeof value === 'string') return beyondLatin1.test(value) ? 2 * value.length : value.length;
  let bytes = 0;
  if (Array.isArray(value)) {
    for (const each of value) bytes += stringBytes + textBytes(each);
    return bytes;
  }
  const record = asRecord(value) ?? {};
  // A map: its author chose the keys.
  const entryBytes = Object.getPrototypeOf(record) === null ? 2 * stringBytes : 0;
  for (const key in record) bytes += entryBytes + textBytes(key) + textBytes(record[key]);
  return bytes;
}
