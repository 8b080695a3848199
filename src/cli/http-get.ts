/** One GET with a short response, for verbs that call an agent or the metadata service. */
import {
  get,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import { parseRecord } from '../base/json-value.ts';
import { networkCode } from '../base/network-code.ts';
import { readBody } from '../base/read-body.ts';
import { parseRetryAfter } from '../base/retry-after.ts';

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

export type MetadataReply =
  | {
      readonly kind: 'answered';
      readonly status: number;
      /** Empty when the body is not a JSON object. */
      readonly body: Readonly<Record<string, unknown>>;
      readonly retryAfterS: number | undefined;
    }
  | { readonly kind: 'failed'; readonly code: string };

const metadataBounds = { timeoutMs: 80_000, maxBodyBytes: 1 << 20 };

/** From the metadata service, as a pod asks. Never rejects. */
export async function getJson(url: string): Promise<MetadataReply> {
  try {
    const { hostname, port, pathname, search } = new URL(url);
    const { status, headers, body } = await httpGet(
      { hostname, port, path: pathname + search, headers: { Metadata: 'true' } },
      metadataBounds,
    );
    const retryAfterS = parseRetryAfter(headers['retry-after'], Date.now());
    return { kind: 'answered', status, body: parseRecord(body) ?? {}, retryAfterS };
  } catch (error) {
    return { kind: 'failed', code: networkCode(error) };
  }
}
