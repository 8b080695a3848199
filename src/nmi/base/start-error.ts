/** Why the agent cannot run: an error in the configuration, or of the machine. */
import { CodedError } from './coded-error.ts';

export type StartErrorCode = 'CONFIG' | 'UNAVAILABLE';

export class StartError extends CodedError<StartErrorCode> {
  constructor(code: StartErrorCode, message: string, cause?: unknown) {
    super(code, cause instanceof Error ? `${message}: ${cause.message}` : message, cause);
  }
}
