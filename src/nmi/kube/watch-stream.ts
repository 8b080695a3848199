/** The body of a watch, made JSON values. */
import { createJsonLines } from './json-lines.ts';
import { KubeError } from './kube-error.ts';

/** Longest watch event. An object is at most about 1.5 MiB in etcd. */
const maxLineBytes = 8 * 1024 * 1024;

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
  for await (const chunk of body) {
    onBytes();
    yield* lines.push(chunk);
  }
  if (lines.pendingBytes > 0) throw new KubeError('NETWORK', 'the stream was cut in an event');
}
