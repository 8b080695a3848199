/**
 * Distinguishes the agent's own calls to the metadata service from all others: a `--metadata-ip` or
 * a redirect that leads back to this agent would otherwise make the agent send requests to itself.
 * Each call carries a correlation id, like the calls of Microsoft's clients, that begins with a
 * random prefix of this process.
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

  /** One in four billion ids of other clients matches by chance. */
  isOwn(correlationId: string): boolean {
    return correlationId.startsWith(this.#prefix);
  }
}
