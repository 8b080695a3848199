/**
 * An error with a code from a closed list, for the code that catches it. The message names the
 * object and, if a user can act, the remedy. The cause is for the log.
 */
export class CodedError<Code extends string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
  }
}
