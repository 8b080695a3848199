/**
 * Recognizes the agent's own calls to the metadata service: a `--metadata-ip` or a redirect may
 * lead back to this agent. Each call carries a correlation id, like the calls of Microsoft's
 * clients, that begins with a random prefix of this process.
 */
import { randomBytes, randomUUID } from 'node:crypto';

/** The header in which clients of IMDS send their correlation id, a GUID. */
export const correlationHeader = 'x-ms-client-request-id';

export class LoopDetection {
  readonly #prefix = randomBytes(4).toString('hex');

  next(): string {
    return this.#prefix + randomUUID().slice(this.#prefix.length);
  }

  /** One in four billion ids of other clients matches by chance. */
  isOwn(correlationId: string): boolean {
    return correlationId.startsWith(this.#prefix);
  }
}
