/**
 * WatchPods of the kubelet's Pods API (gRPC, `v1alpha1.Pods`), each call over a connection of its own. Messages
 * are uncompressed and have a limit, beyond which the call fails.
 */
import type { Socket } from 'node:net';
import { stringAt, type JsonRecord } from '../../../base/json-value.ts';
import { KubeError, kubeErrorOfFailure } from '../api/kube-error.ts';

/** Opens a connection to the kubelet's socket. The call closes it. */
export type ConnectKubelet = () => Promise<Socket>;

/** Five times the largest pod that etcd takes. */
export const maxMessageBytes = 8 * 1024 * 1024;
/** In front of each message: whether it is compressed, and its length. */
const prefixBytes = 5;
const request = Buffer.alloc(prefixBytes);
const headers = {
  ':method': 'POST',
  ':path': '/v1alpha1.Pods/WatchPods',
  'content-type': 'application/grpc',
  te: 'trailers',
};

/**
 * The messages of the kubelet. Leaving the loop closes the connection.
 * @throws KubeError
 */
export async function* watchKubelet(
  connect: ConnectKubelet,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void> {
  // Loaded here: agents that read pods from the API server need no HTTP/2.
  const http2 = await import('node:http2');
  const socket = await connect();
  const session = http2.connect('http://localhost', { createConnection: () => socket });
  // Its stream fails too.
  session.on('error', () => undefined);
  const close = (): void => session.destroy();
  signal.addEventListener('abort', close);
  try {
    signal.throwIfAborted();
    const stream = session.request(headers);
    // The status comes in the trailers, or in the headers of an answer without messages.
    let fields: JsonRecord = {};
    const keep = (more: object): void => void (fields = { ...fields, ...more });
    stream.on('response', keep);
    stream.on('trailers', keep);
    stream.end(request);
    const messages = new MessageReader();
    const chunks: AsyncIterable<Buffer> = stream;
    for await (const chunk of chunks) yield* messages.take(chunk);
    const code = stringAt(fields, 'grpc-status');
    const why = stringAt(fields, 'grpc-message') || 'the connection ended';
    // Until it has read all sources of pods it refuses (9), and it ends the stream of a slow reader (8).
    throw new KubeError('SERVER', `WatchPods of the kubelet ended: ${why} (gRPC ${code})`);
  } catch (error) {
    throw kubeErrorOfFailure(error);
  } finally {
    signal.removeEventListener('abort', close);
    close();
  }
}

/** Splits the bytes of an answer into messages. */
export class MessageReader {
  #parts: Buffer[] = [];
  #bytes = 0;
  /** To the end of the first message, as far as known. */
  #neededBytes = prefixBytes;

  /** @throws KubeError `MALFORMED` */
  *take(chunk: Buffer): Generator<Buffer, void> {
    this.#parts.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes < this.#neededBytes) return;
    let rest = Buffer.concat(this.#parts);
    for (;;) {
      this.#neededBytes = endOfMessage(rest);
      if (rest.length < this.#neededBytes) break;
      yield rest.subarray(prefixBytes, this.#neededBytes);
      rest = rest.subarray(this.#neededBytes);
    }
    this.#parts = [rest];
    this.#bytes = rest.length;
  }
}

function endOfMessage(bytes: Buffer): number {
  if (bytes.length < prefixBytes) return prefixBytes;
  const length = bytes.readUInt32BE(1);
  if (bytes[0] === 0 && length <= maxMessageBytes) return prefixBytes + length;
  throw new KubeError(
    'MALFORMED',
    `the kubelet sent a message of ${length} bytes, or a compressed one`,
  );
}
