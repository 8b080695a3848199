/** The parts of its machine that the plugin may use: `main.ts` provides them, tests their own. */

export interface ProgramRun {
  /** Undefined if the program does not exist. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string;
  /** It is not ended when the user interrupts: what it does must not stay half done. */
  readonly outlivesStop?: boolean;
  /** Done twice, it is the same as once. */
  readonly mayRepeat?: boolean;
}

export interface Io {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Whole lines, newline included. */
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Never rejects. Nothing passes through a shell. */
  readonly run: (
    program: string,
    args: readonly string[],
    options?: RunOptions,
  ) => Promise<ProgramRun>;
  /** Undefined if the file does not exist. `-` is standard input. */
  readonly readText: (path: string) => Promise<string | undefined>;
  /** Every file below a folder, by its path; undefined for what is no folder. */
  readonly listFolder: (path: string) => Promise<readonly string[] | undefined>;
  readonly wallMs: () => number;
  /** Ends early, without an error, when the user interrupts. */
  readonly sleep: (ms: number) => Promise<void>;
  readonly stop: AbortSignal;
}

export const exitCodes = {
  ok: 0,
  findings: 1,
  usage: 2,
  /** The API server, or a program that is needed, cannot be reached. */
  unavailable: 69,
  bug: 70,
  /** Its output could not be written: the disk is full, or nobody reads it. */
  outputLost: 74,
  noRight: 77,
} as const;
