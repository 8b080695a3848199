/**
 * The agent under examination: `nmi run` in a process of its own that can be
 * stopped, killed and started again. Its log lines are kept, so that scenarios can read them.
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { LabError } from '../fabric/lab-error.ts';
import { OwnTime } from '../pods/own-time.ts';

export interface AgentProcessOptions {
  /** Starts `nmi run` with these further flags. */
  readonly spawn: (flags: readonly string[]) => ChildProcess;
  /** Base URL of the probe port. */
  readonly adminUrl: string;
}

/** For waits on a metric: the agent keeps a rendering that took long for five seconds. */
export const metricsLimitMs = 20_000;

/** For waits on a new process. */
export const startLimitMs = 20_000;
/** As the kubelet waits for a probe. */
const probeTimeoutMs = 2_000;
/** Without a page every metric is 0: a machine that stands still must not look like that. */
const metricsTimeoutMs = 10_000;
const maxLines = 20_000;

export class AgentProcess implements AsyncDisposable {
  readonly #options: AgentProcessOptions;
  readonly #lines: string[] = [];
  #lineCount = 0;
  #child: ChildProcess | undefined;
  #isDisposed = false;
  #exited: Promise<number | NodeJS.Signals> | undefined;

  constructor(options: AgentProcessOptions) {
    this.#options = options;
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** What it printed, of all its lives, newest last. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** How many lines it printed, those that are no longer kept included. */
  get lineCount(): number {
    return this.#lineCount;
  }

  /**
   * Starts it and returns at once; no error if it runs already.
   * @throws LabError `AGENT_FAILED` once disposed: a scenario that was stopped must not leave one.
   */
  launch(flags: readonly string[] = []): void {
    if (this.#child !== undefined) return;
    if (this.#isDisposed) throw new LabError('AGENT_FAILED', 'the lab is being taken down');
    const child = this.#options.spawn(flags);
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => {
        this.#lineCount += 1;
        this.#lines.push(line);
        if (this.#lines.length > maxLines) this.#lines.shift();
      });
    }
    this.#exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#child = undefined;
        resolve(signal ?? code ?? 1);
      });
    });
  }

  /** @throws LabError `AGENT_FAILED` with its last lines when it does not become ready. */
  async start(flags: readonly string[] = []): Promise<void> {
    this.launch(flags);
    await this.untilReady();
  }

  async untilReady(): Promise<void> {
    const deadlineMs = performance.now() + startLimitMs;
    while (this.#child !== undefined && performance.now() < deadlineMs) {
      if ((await this.page('readyz'))?.status === 200) return;
      await delay(20);
    }
    const state = this.#child === undefined ? 'ended' : 'did not become ready';
    throw new LabError('AGENT_FAILED', `the agent ${state}: ${this.#lines.slice(-5).join('\n')}`);
  }

  /** SIGTERM, and its exit code. */
  stop(): Promise<number | NodeJS.Signals | undefined> {
    return this.#end('SIGTERM');
  }

  /** SIGKILL. */
  kill(): Promise<number | NodeJS.Signals | undefined> {
    return this.#end('SIGKILL');
  }

  /** A page of its probe port, or undefined while nothing answers. */
  async page(
    path: string,
    timeoutMs = probeTimeoutMs,
  ): Promise<{ status: number; text: string } | undefined> {
    using time = new OwnTime();
    const late = new AbortController();
    const cancelTimeout = time.after(timeoutMs, () => {
      late.abort();
    });
    try {
      const { signal } = late;
      const response = await fetch(`${this.#options.adminUrl}/${path}`, { signal });
      return { status: response.status, text: await response.text() };
    } catch {
      return undefined;
    } finally {
      cancelTimeout();
    }
  }

  /** The value of one series of `/metrics`, 0 when it is not there. */
  async metric(series: string): Promise<number> {
    return (await this.metrics())(series);
  }

  /** The values of one page. */
  async metrics(): Promise<(series: string) => number> {
    const page = await this.page('metrics', metricsTimeoutMs);
    const lines = page?.text.split('\n') ?? [];
    return (series) => {
      const line = lines.find((text) => text.startsWith(`${series} `));
      return line === undefined ? 0 : Number(line.slice(series.length + 1));
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    await this.kill();
  }

  async #end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | undefined> {
    const exited = this.#exited;
    if (this.#child === undefined || exited === undefined) return undefined;
    this.#child.kill(signal);
    const patience = delay(20_000, undefined, { ref: false });
    const outcome = await Promise.race([exited, patience.then(() => undefined)]);
    if (outcome !== undefined) return outcome;
    throw new LabError('PROCESS_STUCK', `the agent outlived ${signal}`);
  }
}
