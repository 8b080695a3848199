/**
 * Reconciles the redirect: installs it, checks it at each interval, and repairs drift. A failure is a
 * reported state and is retried with back-off; it never ends the process, since an agent that exits
 * because of a busy lock serves no pod.
 */
import { sleep, type Clock } from '../../base/time/clock.ts';
import { kernelAccountOf } from '../../redirect/native/addon.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../../redirect/redirect.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import { LastCheck } from './last-check.ts';
import { portToMaintain, type Neighbor, type Side, type Slot } from './slots.ts';

export type CheckOutcome = 'unchanged' | 'installed' | 'repaired' | 'failed';

export interface ReconcilerOptions {
  readonly redirect: Redirect;
  /** Undefined for a redirect that points at no port. */
  readonly slot?: () => Pick<Slot, 'port' | 'own' | 'other' | 'turn'> | undefined;
  readonly intervalMs: number;
  /** Longest wait after a failure; default: the interval. */
  readonly longestRetryMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly onCheck: (outcome: CheckOutcome) => void;
  /** Called after each check and each look at the other agent. */
  readonly onStatus?: () => void;
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
/** Interval of looks at the other agent of an update. */
const lookMs = 250;
/** An agent starts within a second or two. */
const mostWaitMs = 5_000;
const waitPollMs = 50;
const slowRepairMs = 1_000;
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
  #disarmLook: (() => void) | undefined;
  #isDisposed = false;
  #isLeaving = false;
  #isWaiting = false;
  /** At the last check, another agent maintained the redirect. */
  #isOthers = false;
  /** What the last look found of the other agent. */
  #neighbor = '';

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

  /** The last check found that this process maintains the redirect. */
  get isOwner(): boolean {
    return this.#settledAtMs !== undefined && !this.#isOthers;
  }

  /** Why pods are not redirected; undefined if they are, or if no redirect is configured. */
  problem(): string | undefined {
    if (this.#status.state === 'active' || this.#status.state === 'off') return undefined;
    return problemOf(this.#status);
  }

  /** Nothing is installed yet, until the own agent listens. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /** Runs the first check and schedules the others. */
  async start(): Promise<void> {
    if (this.#options.slot?.() !== undefined) await this.#untilListening();
    const firstMs = await this.#checkNow();
    if (!this.#isDisposed) this.#schedule(firstMs);
  }

  /**
   * Gives the redirect to the other agent if that one takes connections. These are the last checks.
   * @returns whether the other one has it.
   */
  async leave(): Promise<boolean> {
    const slot = this.#options.slot?.();
    this.#isLeaving = true;
    this.#job?.[Symbol.dispose]();
    this.#disarmLook?.();
    if (slot === undefined) return false;
    for (let tries = 0; tries < maxInstalls; tries++) {
      await this.#checkNow();
      if (this.#failures === 0) break;
    }
    const { port } = this.#status;
    return port !== undefined && port !== slot.port;
  }

  /** Stops the checks. The redirect stays: without an agent the node must be closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    this.#job?.[Symbol.dispose]();
    this.#disarmLook?.();
    await this.#running;
  }

  /**
   * On a node without a redirect, until the own agent listens: connections would be refused until then, also those
   * that the agent of another system answers meanwhile.
   */
  async #untilListening(): Promise<void> {
    const { redirect, clock, onStatus } = this.#options;
    const slot = this.#options.slot?.();
    if (slot === undefined) return;
    const endMs = clock.monotonicMs() + mostWaitMs;
    try {
      const isServed = (): boolean => slot.own().listens || slot.other()?.listens === true;
      if (isServed() || (await redirect.verify()).state !== 'absent') return;
      this.#isWaiting = true;
      onStatus?.();
      while (!isServed() && !this.#isDisposed && clock.monotonicMs() < endMs) {
        await sleep(clock, waitPollMs);
      }
    } catch {
      // The first check meets the same error, and reports it.
    } finally {
      this.#isWaiting = false;
    }
  }

  #schedule(firstMs: number): void {
    this.#job?.[Symbol.dispose]();
    this.#job = startPeriodicJob(this.#options.clock, firstMs, () => this.#checkNow());
  }

  /** Milliseconds until the next check. */
  async #checkNow(): Promise<number> {
    const running = this.#running?.then(() => this.#check()) ?? this.#check();
    this.#running = running;
    await running;
    this.#scheduleLook();
    this.#options.onStatus?.();
    const { intervalMs, longestRetryMs = intervalMs } = this.#options;
    if (this.#failures === 0) return intervalMs;
    return Math.min(longestRetryMs, firstRetryMs * 2 ** (this.#failures - 1));
  }

  /** As long as there is another agent: it begins to take connections, or ends, between two checks. */
  #scheduleLook(): void {
    this.#disarmLook?.();
    if (this.#isDisposed || this.#isLeaving || this.#neighbor === '') return;
    this.#disarmLook = this.#options.clock.schedule(lookMs, () => {
      if (this.#hasChanged() && this.#job !== undefined) this.#schedule(0);
      this.#options.onStatus?.();
      this.#scheduleLook();
    });
  }

  /** Whether a check has something to do, as far as the ports show. */
  #hasChanged(): boolean {
    const { port } = this.#status;
    const before = this.#neighbor;
    try {
      const wanted = this.#portToMaintain(port);
      if (this.#neighbor !== before) return true;
      return this.#failures === 0 && wanted !== undefined && wanted !== port;
    } catch {
      // The next check meets the same error, and reports it.
      return false;
    }
  }

  /** Undefined if another agent maintains the redirect, and without slots. */
  #portToMaintain(target: number | undefined): number | undefined {
    const slot = this.#options.slot?.();
    if (slot === undefined) return undefined;
    const other = slot.other();
    const own = slot.own();
    this.#neighbor = describeNeighbor(own, other);
    return portToMaintain(target, { ...own, listens: own.listens && !this.#isLeaving }, other);
  }

  async #check(): Promise<void> {
    const { redirect, log, clock, onCheck } = this.#options;
    const slot = this.#options.slot?.();
    let disarm = (): void => undefined;
    try {
      using _ = await slot?.turn();
      const before = await this.#lastCheck.read(redirect);
      const port = this.#portToMaintain(before.port);
      if (slot !== undefined && port === undefined) {
        this.#observe(before);
        return;
      }
      const wasOthers = this.#isOthers;
      this.#isOthers = false;
      // A repair takes milliseconds. It takes seconds where tools wait for a lock, and then it is a problem.
      if (this.#settledAtMs === undefined || before.state === 'absent') this.#status = before;
      else disarm = clock.schedule(slowRepairMs, () => (this.#status = before));
      let status = before;
      const isDone = (): boolean =>
        !isWanting(status) && (port === undefined || status.port === port);
      // Another process may break the redirect again during the repair; retry immediately.
      for (let tries = 0; tries < maxInstalls && !isDone(); tries++) {
        status = await redirect.install(port);
      }
      this.#status = status;
      if (!isDone()) {
        this.#fail(problemOf(status));
        return;
      }
      this.#succeed(before, status, wasOthers);
      onCheck(this.#outcome(before));
    } catch (error) {
      this.#status = { state: 'broken', detail: 'the check failed', problems: [messageOf(error)] };
      this.#fail(messageOf(error));
      const kernelLog = kernelAccountOf(error);
      log.debug(
        { err: messageOf(error), ...(kernelLog === undefined ? {} : { kernelLog }) },
        'redirect check failed',
      );
    } finally {
      disarm();
    }
  }

  /**
   * Another agent maintains the redirect: the only problem is then that there is none. Programs and settings of
   * another version were drift, so an agent beside a new one that did not get ready was not ready itself, and
   * Kubernetes deleted it.
   */
  #observe(found: RedirectStatus): void {
    const { clock, log } = this.#options;
    if (!this.#isOthers) log.info({ detail: found.detail }, 'another agent maintains the redirect');
    this.#isOthers = true;
    this.#status =
      found.state === 'broken'
        ? { ...found, state: 'active', detail: `of another agent; ${found.detail}`, problems: [] }
        : found;
    if (this.problem() !== undefined) return;
    this.#settledAtMs ??= clock.monotonicMs() + settlingMs.repaired;
    this.#failures = 0;
    this.#lastProblem = '';
  }

  #outcome(before: RedirectStatus): CheckOutcome {
    if (!isWanting(before)) return 'unchanged';
    return before.state === 'absent' ? 'installed' : 'repaired';
  }

  #succeed(before: RedirectStatus, status: RedirectStatus, wasOthers: boolean): void {
    const { redirect, log, clock } = this.#options;
    const { mode } = redirect;
    if (status.state === 'off') {
      if (this.#failures > 0) log.info({ mode }, 'no redirect is left behind');
    } else if (wasOthers || (before.port !== undefined && before.port !== status.port)) {
      log.info({ mode, detail: status.detail }, 'redirect points at another agent now');
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

/** Empty if there is none. */
function describeNeighbor(own: Side, other: Neighbor | undefined): string {
  if (other === undefined || !(other.isHeld || other.listens)) return '';
  return [own.listens, other.isHeld, other.listens].join();
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
