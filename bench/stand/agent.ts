/** The agent as its users run it: the executable, in a process of its own. */
import type { ChildProcess } from 'node:child_process';
import { open, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { onCore } from '../machine/cores.ts';
import { start, stop } from '../machine/child.ts';

const startLimitMs = 60_000;

export interface AgentOptions {
  readonly executable: string;
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly adminUrl: string;
  /** A file, as the runtime of a container has one behind the pipe. */
  readonly logFile: string;
}

export class BenchAgent implements AsyncDisposable {
  readonly #options: AgentOptions;
  #child: ChildProcess | undefined;
  #log: FileHandle | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** @throws TypeError while it does not run. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new TypeError('the agent does not run');
    return pid;
  }

  /** Returns at once. */
  async launch(): Promise<void> {
    const { executable, flags, env, logFile } = this.#options;
    this.#log ??= await open(logFile, 'a');
    this.#child = start(onCore('server', [executable, ...flags]), {
      stdio: ['ignore', this.#log.fd, 'inherit'],
      env: { ...process.env, ...env },
    });
  }

  async start(): Promise<void> {
    await this.launch();
    await this.untilReady();
  }

  /** @throws Error after a minute, or when it ends. */
  async untilReady(): Promise<void> {
    const deadlineMs = performance.now() + startLimitMs;
    while (performance.now() < deadlineMs && this.#child?.exitCode === null) {
      const response = await fetch(`${this.#options.adminUrl}/readyz`).catch(() => undefined);
      if (response?.status === 200) return;
      await delay(20);
    }
    throw new Error(`the agent did not become ready; see ${this.#options.logFile}`);
  }

  async stop(): Promise<void> {
    if (this.#child !== undefined) await stop(this.#child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.#log?.close();
  }
}
