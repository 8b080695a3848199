export type LabErrorCode =
  /** A program the lab needs (ip, nsenter, setpriv) is not on the PATH. */
  | 'TOOL_MISSING'
  /** A program ran and refused; the message carries what it printed. */
  | 'TOOL_FAILED'
  /** A name that cannot become a namespace's name, or one already in use. */
  | 'NAME_REFUSED'
  /** The pod range is used up, or the address wanted belongs to another pod. */
  | 'ADDRESS_TAKEN'
  /** A process in a lab namespace outlived SIGKILL. */
  | 'PROCESS_STUCK'
  /** A namespace that should exist does not, or the other way round. */
  | 'NAMESPACE_WRONG'
  /** The agent under examination did not start, or ended by itself. */
  | 'AGENT_FAILED'
  /** A pod's agent ended, or said something that is not its protocol. */
  | 'POD_GONE';

/** A failure of the lab's own machinery, never of what the lab examines. */
export class LabError extends Error {
  readonly code: LabErrorCode;
  constructor(code: LabErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'LabError';
    this.code = code;
  }
}
