/**
 * Connections to the metadata service. If one leads back to this agent, all are closed: they were
 * opened while the redirect did not recognize the agent, and would lead back as long as they are
 * reused.
 */
import { Pool } from 'undici';

export interface ImdsConnectionsOptions {
  /** Base URL, for instance `http://169.254.169.254`. */
  readonly endpoint: string;
  readonly maxConnections: number;
  readonly timeoutMs: number;
}

export class ImdsConnections implements AsyncDisposable {
  readonly #options: ImdsConnectionsOptions;
  #pool: Pool;

  constructor(options: ImdsConnectionsOptions) {
    this.#options = options;
    this.#pool = openPool(options);
  }

  /** Must be read again for each request. */
  get pool(): Pool {
    return this.#pool;
  }

  /** Running requests fail. */
  reopen(): void {
    const old = this.#pool;
    this.#pool = openPool(this.#options);
    void old.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#pool.destroy();
  }
}

function openPool({ endpoint, maxConnections, timeoutMs }: ImdsConnectionsOptions): Pool {
  return new Pool(endpoint, {
    connections: maxConnections,
    pipelining: 1,
    connect: { timeout: Math.min(2_000, timeoutMs) },
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    maxHeaderSize: 16 * 1024,
  });
}
