/**
 * Everything that the undici HTTP clients of this process send, including bodies, which a fake does
 * not keep.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';

export interface SentRequest {
  readonly method: string;
  readonly path: string;
  /** Empty for a request without a body, and for a stream. */
  readonly body: string;
}

const channel = 'undici:request:create';

export class WireTap implements Disposable {
  readonly #sent: SentRequest[] = [];
  readonly #listen = (message: unknown): void => {
    const { request } = message as { readonly request: Record<string, unknown> };
    const { method, path, body } = request;
    const text = typeof body === 'string' || Buffer.isBuffer(body) ? String(body) : '';
    this.#sent.push({ method: String(method), path: String(path), body: text });
  };

  constructor() {
    subscribe(channel, this.#listen);
  }

  /** The `spec` of each TokenRequest, oldest first. */
  tokenRequests(): readonly Readonly<Record<string, unknown>>[] {
    return this.#sent
      .filter(({ path }) => /\/serviceaccounts\/[^/]+\/token$/.test(path))
      .map(({ body }) => (JSON.parse(body) as { spec: Record<string, unknown> }).spec);
  }

  /** Forms that were sent to Entra ID, oldest first. */
  forms(): readonly URLSearchParams[] {
    return this.#sent
      .filter(({ path }) => path.includes('/oauth2/v2.0/token'))
      .map(({ body }) => new URLSearchParams(body));
  }

  /** Every read of a Secret of this name. */
  secretReads(name: string): number {
    return this.#sent.filter(({ path }) => path.endsWith(`/secrets/${name}`)).length;
  }

  clear(): void {
    this.#sent.length = 0;
  }

  [Symbol.dispose](): void {
    unsubscribe(channel, this.#listen);
  }
}
