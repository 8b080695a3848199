/**
 * Telling the agent's own calls to the metadata service from everybody else's: a `--metadata-ip`
 * or a redirect that leads back to this agent would otherwise let it ask itself. Each call carries
 * a correlation id, as the clients of Microsoft do, that begins with digits of this process.
 */
import { randomBytes, randomUUID } from 'node:crypto';

/** The header in which clients of IMDS send their correlation id, a GUID. */
export const correlationHeader = 'x-ms-client-request-id';

export class LoopDetection {
  readonly #prefix = randomBytes(4).toString('hex');

  /** A fresh correlation id. */
  next(): string {
    return this.#prefix + randomUUID().slice(this.#prefix.length);
  }

  /** By chance one in four billion of others' ids looks like an own one. */
  isOwn(correlationId: string): boolean {
    return correlationId.startsWith(this.#prefix);
  }
}
