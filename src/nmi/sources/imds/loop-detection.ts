/** Recognizes the agent's own calls, which may lead back to it, by the prefix of their ids. */
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
