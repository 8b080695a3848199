/**
 * Lines to a pipe that another program reads. While it does not read, Node keeps what was written, without
 * a limit: a stopped container runtime and requests at debug level took 207 MB. Beyond a limit, lines are
 * dropped, and their number is reported when the pipe is read again.
 */
export interface LogOutputOptions {
  readonly write: (line: string) => void;
  /** Bytes that were written and not yet taken; undefined if nothing ever waits. */
  readonly waitingBytes: (() => number) | undefined;
  /** May write a line. */
  readonly onDropped: (count: number) => void;
}

/** Some seconds of a busy node. */
const maxWaitingBytes = 2 * 1024 * 1024;

export class LogOutput {
  readonly #options: LogOutputOptions;
  #isFull = false;
  #dropped = 0;

  constructor(options: LogOutputOptions) {
    this.#options = options;
  }

  /** Returns false if the line was dropped. */
  write(line: string): boolean {
    const { write, waitingBytes, onDropped } = this.#options;
    // With one limit, a slow reader would get a report of dropped lines with every line.
    const limit = this.#isFull ? maxWaitingBytes / 2 : maxWaitingBytes;
    this.#isFull = waitingBytes !== undefined && waitingBytes() > limit;
    if (this.#isFull) {
      this.#dropped += 1;
      return false;
    }
    const dropped = this.#dropped;
    this.#dropped = 0;
    if (dropped > 0) onDropped(dropped);
    write(line);
    return true;
  }
}
