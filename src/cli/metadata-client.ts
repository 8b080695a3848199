/** A plain GET on the metadata service with its header, for programs that act as a pod would. */
import { get } from 'node:http';
import { parseRecord } from '../nmi/base/json-value.ts';
import { parseRetryAfter } from '../nmi/base/retry-after.ts';

export type MetadataReply =
  | {
      readonly kind: 'answered';
      readonly status: number;
      /** Empty when the body is no JSON object. */
      readonly body: Readonly<Record<string, unknown>>;
      readonly retryAfterS: number | undefined;
    }
  | { readonly kind: 'failed'; readonly code: string };

const timeoutMs = 80_000;
const maxBodyBytes = 1 << 20;

/** Never rejects; no proxy is used. */
export function getJson(url: string): Promise<MetadataReply> {
  return new Promise((resolve) => {
    const fail = (error: NodeJS.ErrnoException) => {
      resolve({ kind: 'failed', code: error.code ?? error.name });
    };
    const signal = AbortSignal.timeout(timeoutMs);
    const request = get(
      url,
      { headers: { Metadata: 'true' }, agent: false, signal },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
          if (text.length > maxBodyBytes) response.destroy(new RangeError('body too large'));
        });
        response.on('error', fail);
        response.on('end', () => {
          resolve({
            kind: 'answered',
            status: response.statusCode ?? 0,
            body: parseRecord(text) ?? {},
            retryAfterS: parseRetryAfter(response.headers['retry-after'], Date.now()),
          });
        });
      },
    );
    request.on('error', fail);
  });
}
