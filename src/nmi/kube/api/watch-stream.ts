/** Reads the body of a watch as JSON values. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createJsonLines } from './json-lines.ts';
import { KubeError } from './kube-error.ts';

/**
 * Longest watch event that is parsed. An object is at most about 1.5 MiB in etcd, but six times
 * that as JSON if its author fills a pod with `<`. Parsing 4 MiB blocks the event loop for 10 to 20
 * ms.
 */
const maxLineBytes = 4 * 1024 * 1024;

/**
 * A list of 20,000 objects arrives as fast as it is read. Without pauses it blocks requests of pods
 * for 120 ms and more (measured); with pauses, for as long as a page of 500 objects.
 */
const maxBusyMs = 5;

/**
 * The values of the body, chunk by chunk, each as soon as its line is complete. `onBytes` is called
 * for every chunk, before its values. Throws the errors of the body, and `KubeError` NETWORK if the
 * body ends cleanly but inside an event.
 */
export async function* readWatchChunks(
  body: AsyncIterable<Uint8Array>,
  onBytes: () => void,
): AsyncGenerator<Generator<unknown, void>, void> {
  const lines = createJsonLines(maxLineBytes);
  let busyMs = 0;
  for await (const chunk of body) {
    onBytes();
    const startMs = performance.now();
    yield lines.push(chunk);
    busyMs += performance.now() - startMs;
    if (busyMs < maxBusyMs) continue;
    busyMs = 0;
    await nextTurn();
  }
  if (lines.pendingBytes > 0) throw new KubeError('NETWORK', 'the stream was cut in an event');
}

/**
 * Yields the values of successive iterators one by one. Generators that delegate to generators cost
 * a dozen promises a value: with 30,000 objects 23 of the 430 ms of CPU that the main thread took
 * from its start to the first token (Node 26.10, November 2026).
 */
export function flatten<T>(
  batches: AsyncGenerator<Generator<T, void>, void>,
): AsyncIterableIterator<T, void> {
  let batch: Generator<T, void> | undefined;

  async function fromNextBatch(): Promise<IteratorResult<T, void>> {
    for (;;) {
      const next = await batches.next();
      if (next.done === true) return next;
      batch = next.value;
      const result = batch.next();
      if (result.done !== true) return result;
    }
  }

  async function close(): Promise<IteratorResult<T, void>> {
    batch = undefined;
    await batches.return();
    return { done: true, value: undefined };
  }

  return {
    next() {
      try {
        const result = batch?.next();
        return result === undefined || result.done === true
          ? fromNextBatch()
          : Promise.resolve(result);
      } catch (error) {
        return batches.throw(error).then(() => close());
      }
    },
    return: close,
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
