/** If one leads back to this agent, all are closed: they would lead back when reused. */
import { Pool } from 'undici';

export interface ImdsConnectionsOptions {
  /** Base URL, for instance `http://169.254.169.254`. */
  readonly endpoint: string;
  readonly timeoutMs: number;
}

export type ImdsConnections = ReturnType<typeof openImdsConnections>;

/** Of the 5 requests that IMDS serves at once for a whole node. */
const maxConnections = 4;

export function openImdsConnections({ endpoint, timeoutMs }: ImdsConnectionsOptions) {
  const open = () =>
    new Pool(endpoint, {
      connections: maxConnections,
      pipelining: 1,
      connect: { timeout: Math.min(2_000, timeoutMs) },
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      maxHeaderSize: 16 * 1024,
    });
  let pool = open();
  return {
    /** Must be read again for each request. */
    get pool() {
      return pool;
    },
    /** Running requests fail. */
    reopen() {
      void pool.destroy();
      pool = open();
    },
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}
