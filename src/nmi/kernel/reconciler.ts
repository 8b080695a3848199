/**
 * Reconciles the redirect: installs it, checks it at each interval, and repairs drift. A failure is a
 * reported state and is retried with back-off; it never ends the process, since an agent that exits
 * because of a busy lock serves no pod.
 */
import type { Clock } from '../../base/time/clock.ts';
import { kernelAccountOf } from '../../redirect/native/addon.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../../redirect/redirect.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import { LastCheck } from './last-check.ts';

export type CheckOutcome = 'unchanged' | 'installed' | 'repaired' | 'failed';

export interface ReconcilerOptions {
  readonly redirect: Redirect;
  readonly intervalMs: number;
  /** Longest wait after a failure; default: the interval. */
  readonly longestRetryMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly onCheck: (outcome: CheckOutcome) => void;
}

/**
 * Afterwards no connection is older than the redirect. At a boot, an upgrade or the switch from another agent, one
 * can reach the agent without a record of its caller: its SYN waited, or netfilter remembers its port from before.
 */
export const settlingMs = {
  /** After an installation: as long as SDKs and the kernel repeat what began before it. */
  installed: 60_000,
  /** After a repair, and after the start of a process: another one may have just changed the redirect. */
  repaired: 5_000,
} as const;

const firstRetryMs = 250;
/** While another process that maintains the redirect has not installed it. */
const absentRetryMs = 1_000;
/** Installations within one check before it counts as failed. */
const maxInstalls = 3;

export class Reconciler implements AsyncDisposable {
  readonly #options: ReconcilerOptions;
  readonly #lastCheck: LastCheck;
  #status: RedirectStatus = { state: 'absent', detail: 'not installed yet', problems: [] };
  #settledAtMs: number | undefined;
  #lastProblem = '';
  #failures = 0;
  #running: Promise<void> | undefined;
  #job: Disposable | undefined;
  #isDisposed = false;
  #isPaused = false;
  /** The pause is over, and what the other process left is not repaired yet. */
  #isReturned = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#lastCheck = new LastCheck(options.intervalMs);
  }

  /** Status at the last check. */
  get status(): RedirectStatus {
    return this.#status;
  }

  /** Monotonic time from which no connection is older than the redirect; undefined before the first success. */
  get settledAtMs(): number | undefined {
    return this.#settledAtMs;
  }

  /** Why pods are not redirected; undefined if they are, or if no redirect is configured. */
  problem(): string | undefined {
    if (this.#status.state === 'active' || this.#status.state === 'off') return undefined;
    return problemOf(this.#status);
  }

  /** Runs the first check and schedules the others. */
  async start(): Promise<void> {
    const firstMs = await this.#checkNow();
    if (!this.#isDisposed) this.#schedule(firstMs);
  }

  #schedule(firstMs: number): void {
    this.#job?.[Symbol.dispose]();
    this.#job = startPeriodicJob(this.#options.clock, firstMs, () => this.#checkNow());
  }

  /**
   * Until `resume`, the redirect is only read, since another process maintains it: the only problem is then that
   * there is none. Programs, settings and exempt cgroups of another version or pod were drift, so an agent
   * beside a new one that did not get ready was not ready itself, and Kubernetes deleted it.
   * Resolves when no check is running.
   */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#running;
  }

  /** Checks at once. What the other process left was in order until now, so it is no problem while its repair runs. */
  resume(): void {
    this.#isPaused = false;
    this.#isReturned = true;
    // A first check that still runs is followed by another one at once.
    if (this.#job !== undefined && !this.#isDisposed) this.#schedule(0);
  }

  /** Stops the checks. The redirect stays: without an agent the node must be closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    this.#job?.[Symbol.dispose]();
    await this.#running;
  }

  /** Milliseconds until the next check. */
  async #checkNow(): Promise<number> {
    const run = (): Promise<void> => (this.#isPaused ? this.#read() : this.#check());
    const running = this.#running?.then(run) ?? run();
    this.#running = running;
    await running;
    const { intervalMs, longestRetryMs = intervalMs } = this.#options;
    if (this.#isReturned && !this.#isPaused) return 0;
    if (this.#isPaused) {
      return this.problem() === undefined ? intervalMs : Math.min(absentRetryMs, intervalMs);
    }
    if (this.#failures === 0) return intervalMs;
    return Math.min(longestRetryMs, firstRetryMs * 2 ** (this.#failures - 1));
  }

  /** A pause may begin before the first success, and the agent of this pod waits for one. */
  async #read(): Promise<void> {
    const { redirect, clock } = this.#options;
    try {
      const { state, detail, problems } = await this.#lastCheck.read(redirect);
      this.#status =
        state === 'broken'
          ? { state: 'active', detail: `maintained by another agent; ${detail}`, problems: [] }
          : { state, detail, problems };
      if (this.problem() !== undefined) return;
      this.#settledAtMs ??= clock.monotonicMs() + settlingMs.repaired;
      this.#failures = 0;
    } catch {
      // The process that maintains the redirect reports this.
    }
  }

  async #check(): Promise<void> {
    const { redirect, log, onCheck } = this.#options;
    const isReturned = this.#isReturned;
    this.#isReturned = false;
    try {
      const before = await this.#lastCheck.read(redirect);
      // Until it is repaired: that takes seconds where tools wait for a lock.
      if (!isReturned || before.state === 'absent') this.#status = before;
      let status = before;
      // Another process may break the redirect again during the repair; retry immediately.
      for (let tries = 0; tries < maxInstalls && isWanting(status); tries++) {
        status = await redirect.install();
      }
      this.#status = status;
      if (isWanting(status)) {
        this.#fail(problemOf(status));
        return;
      }
      this.#succeed(before, status);
      onCheck(this.#outcome(before));
    } catch (error) {
      this.#status = { state: 'broken', detail: 'the check failed', problems: [messageOf(error)] };
      this.#fail(messageOf(error));
      const kernelLog = kernelAccountOf(error);
      log.debug(
        { err: messageOf(error), ...(kernelLog === undefined ? {} : { kernelLog }) },
        'redirect check failed',
      );
    }
  }

  #outcome(before: RedirectStatus): CheckOutcome {
    if (!isWanting(before)) return 'unchanged';
    return before.state === 'absent' ? 'installed' : 'repaired';
  }

  #succeed(before: RedirectStatus, status: RedirectStatus): void {
    const { redirect, log, clock } = this.#options;
    const { mode } = redirect;
    if (status.state === 'off') {
      if (this.#failures > 0) log.info({ mode }, 'no redirect is left behind');
    } else if (this.#settledAtMs === undefined || this.#failures > 0) {
      log.info({ mode, detail: status.detail }, 'redirect installed');
    } else if (before.problems.length > 0) {
      log.warn({ mode, problems: before.problems }, 'redirect drift detected and repaired');
    }
    const nowMs = clock.monotonicMs();
    const outcome = this.#outcome(before);
    if (outcome === 'installed') this.#settledAtMs = nowMs + settlingMs.installed;
    else if (outcome === 'repaired' || this.#settledAtMs === undefined) {
      this.#settledAtMs = Math.max(this.#settledAtMs ?? nowMs, nowMs + settlingMs.repaired);
    }
    this.#failures = 0;
    this.#lastProblem = '';
  }

  #fail(problem: string): void {
    this.#failures = Math.min(this.#failures + 1, 30);
    this.#options.onCheck('failed');
    if (problem === this.#lastProblem) return;
    this.#lastProblem = problem;
    this.#options.log.error(
      { mode: this.#options.redirect.mode, problem },
      'redirect not in place, retrying',
    );
  }
}

function isWanting(status: RedirectStatus): boolean {
  return status.state === 'broken' || status.state === 'absent' || status.problems.length > 0;
}

function problemOf({ problems, detail }: RedirectStatus): string {
  return problems.join('; ') || detail;
}

function messageOf(error: unknown): string {
  if (error instanceof RedirectError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : 'unknown error';
}
