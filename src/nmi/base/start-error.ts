/** Why the agent cannot run: the configuration's fault, or the machine's. */
export type StartErrorCode = 'CONFIG' | 'UNAVAILABLE';

export class StartError extends Error {
  readonly code: StartErrorCode;

  constructor(code: StartErrorCode, message: string, cause?: unknown) {
    const why = cause instanceof Error ? `${message}: ${cause.message}` : message;
    super(why, cause === undefined ? undefined : { cause });
    this.name = 'StartError';
    this.code = code;
  }
}
