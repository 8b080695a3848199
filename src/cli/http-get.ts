/** One GET with a short response, for verbs that call an agent or the metadata service. */
import {
  get,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import { readBody } from '../base/read-body.ts';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Uses no proxy and no kept connection. Rejects with Node's error, or if a bound is exceeded. */
export async function httpGet(
  options: RequestOptions,
  bounds: { readonly timeoutMs: number; readonly maxBodyBytes: number },
): Promise<Reply> {
  const request = get({ ...options, agent: false, signal: AbortSignal.timeout(bounds.timeoutMs) });
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  // If the body is cut off, the request emits an error too; the loop below throws it.
  request.once('response', resolve).on('error', reject);
  const response = await promise;
  const tooLong = () => new RangeError('the answer is too long');
  const body = String(await readBody(response, bounds.maxBodyBytes, tooLong));
  return { status: response.statusCode ?? 0, headers: response.headers, body };
}
