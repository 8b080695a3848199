/** Why the agent cannot run: the configuration's fault, or the machine's. */
import { CodedError } from './coded-error.ts';

export type StartErrorCode = 'CONFIG' | 'UNAVAILABLE';

export class StartError extends CodedError<StartErrorCode> {
  constructor(code: StartErrorCode, message: string, cause?: unknown) {
    super(code, cause instanceof Error ? `${message}: ${cause.message}` : message, cause);
  }
}
