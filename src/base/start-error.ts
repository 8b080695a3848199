/** Why the agent cannot run: an error in the configuration, or of the machine. */
import { CodedError } from './coded-error.ts';

export type StartErrorCode = 'CONFIG' | 'UNAVAILABLE';

/** The message has the order problem, cause, remedy. */
export class StartError extends CodedError<StartErrorCode> {
  /**
   * @param problem the failure and its object, as a clause.
   * @param remedy what an operator can do, as a clause that names a flag, a file, a command or an
   * object.
   */
  constructor(code: StartErrorCode, problem: string, remedy: string, cause?: unknown) {
    const reason = cause instanceof Error ? `: ${cause.message}` : '';
    super(code, `${problem}${reason}; ${remedy}`, cause);
  }
}
