/**
 * Connections to the metadata service. Where one turns out to lead back to this agent, all of them
 * end: they were opened while the redirect did not know the agent, and would lead back for as long
 * as they are kept.
 */
import { Pool } from 'undici';

export interface ImdsConnectionsOptions {
  /** Base URL, for instance `http://169.254.169.254`. */
  readonly endpoint: string;
  readonly maxConnections: number;
  /** For one request. */
  readonly timeoutMs: number;
}

export class ImdsConnections implements AsyncDisposable {
  readonly #options: ImdsConnectionsOptions;
  #pool: Pool;

  constructor(options: ImdsConnectionsOptions) {
    this.#options = options;
    this.#pool = openPool(options);
  }

  /** To be asked for anew for each request. */
  get pool(): Pool {
    return this.#pool;
  }

  /** Requests under way fail. */
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
