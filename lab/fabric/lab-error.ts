export type LabErrorCode =
  /** A program that the lab needs (ip, nsenter, setpriv) is not on the PATH. */
  | 'TOOL_MISSING'
  /** A program ran and failed; the message carries its output. */
  | 'TOOL_FAILED'
  /** A string that cannot be part of a namespace's name, or a name already in use. */
  | 'NAME_REFUSED'
  /** The pod range is used up, or the requested address belongs to another pod. */
  | 'ADDRESS_TAKEN'
  /** A process in a lab namespace outlived SIGKILL. */
  | 'PROCESS_STUCK'
  /** A namespace that should exist does not, or the other way round. */
  | 'NAMESPACE_WRONG'
  /** The agent under test did not start, or ended by itself. */
  | 'AGENT_FAILED'
  /** A pod's agent ended, or sent a line that is not of its protocol. */
  | 'POD_GONE';

/** A failure of the lab's own machinery, never of the tested agent. */
export class LabError extends Error {
  readonly code: LabErrorCode;
  constructor(code: LabErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'LabError';
    this.code = code;
  }
}
