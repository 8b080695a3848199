/** The body of a watch, made JSON values. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createJsonLines } from './json-lines.ts';
import { KubeError } from './kube-error.ts';

/** Longest watch event. An object is at most about 1.5 MiB in etcd. */
const maxLineBytes = 8 * 1024 * 1024;

/**
 * A list of 20,000 objects comes as fast as it is read. Without a pause the requests of pods would
 * stand still for 120 ms and more meanwhile (measured); with one, for as long as a page of 500.
 */
const maxBusyMs = 5;

/**
 * The values in order, each as soon as its line is whole. `onBytes` is called for every chunk,
 * before its values. Throws what the body throws, and `KubeError` NETWORK when it ends in good
 * order but inside an event.
 */
export async function* readWatchStream(
  body: AsyncIterable<Uint8Array>,
  onBytes: () => void = () => undefined,
): AsyncGenerator<unknown, void> {
  const lines = createJsonLines(maxLineBytes);
  let busyMs = 0;
  for await (const chunk of body) {
    onBytes();
    const startMs = performance.now();
    yield* lines.push(chunk);
    busyMs += performance.now() - startMs;
    if (busyMs < maxBusyMs) continue;
    busyMs = 0;
    await nextTurn();
  }
  if (lines.pendingBytes > 0) throw new KubeError('NETWORK', 'the stream was cut in an event');
}
