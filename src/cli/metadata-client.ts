/** A plain GET to the metadata service with its header, for programs that act like a pod. */
import { parseRecord } from '../base/json-value.ts';
import { networkCode } from '../base/network-code.ts';
import { parseRetryAfter } from '../base/retry-after.ts';
import { httpGet } from './http-get.ts';

export type MetadataReply =
  | {
      readonly kind: 'answered';
      readonly status: number;
      /** Empty when the body is not a JSON object. */
      readonly body: Readonly<Record<string, unknown>>;
      readonly retryAfterS: number | undefined;
    }
  | { readonly kind: 'failed'; readonly code: string };

const timeoutMs = 80_000;
const maxBodyBytes = 1 << 20;

/** Never rejects; no proxy is used. */
export async function getJson(url: string): Promise<MetadataReply> {
  try {
    const { hostname, port, pathname, search } = new URL(url);
    const { status, headers, body } = await httpGet(
      { hostname, port, path: pathname + search, headers: { Metadata: 'true' } },
      { timeoutMs, maxBodyBytes },
    );
    const retryAfterS = parseRetryAfter(headers['retry-after'], Date.now());
    return { kind: 'answered', status, body: parseRecord(body) ?? {}, retryAfterS };
  } catch (error) {
    return { kind: 'failed', code: networkCode(error) };
  }
}
