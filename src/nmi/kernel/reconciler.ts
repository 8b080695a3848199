/**
 * Reconciles the redirect: installs it, checks it at each interval, and repairs drift. A failure is a
 * reported state and is retried with back-off; it never ends the process, since an agent that exits
 * because of a busy lock serves no pod.
 */
import { sleep } from '../../base/time/clock.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import type { EbpfRedirect } from '../../redirect/ebpf/ebpf.ts';
import { kernelAccountOf } from '../../redirect/native/addon.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../../redirect/redirect.ts';
import { samplesBy, type Sample } from '../base/part.ts';
import { NodeRedirect, problemOf, settlingMs, type NodeRedirectOptions } from './node-redirect.ts';
import { portToMaintain, takesOver, type Neighbor, type Side, type Slot } from './slots.ts';

type CheckOutcome = 'unchanged' | 'installed' | 'repaired' | 'failed';

/** What a redirect by programs in the kernel can do, too. */
type Programs = Pick<EbpfRedirect, 'letThrough' | 'counters'>;

type OwnSlot = Pick<Slot, 'port' | 'own' | 'other' | 'isAlone' | 'watch' | 'leave' | 'turn'> &
  Disposable;

export interface ReconcilerOptions extends NodeRedirectOptions {
  readonly redirect: Redirect;
  readonly programs?: Programs;
  /** Absent for a redirect that points at no port. */
  readonly takeSlot?: ((signal?: AbortSignal) => Promise<OwnSlot>) | undefined;
  readonly intervalMs: number;
}

const firstRetryMs = 250;
/** Interval of looks at the other agent of an update. */
const lookMs = 250;
/** An agent starts within a second or two. */
const mostWaitMs = 5_000;
/** Another agent takes the redirect of one that leaves after a look and an installation. */
const takeoverMs = 5_000;
const leavePollMs = 100;
const waitPollMs = 50;
const slowRepairMs = 1_000;
/** Installations within one check before it counts as failed. */
const maxInstalls = 3;
/**
 * What stands in front of the agent is read by each check. What lies behind it takes tools (15 ms of processor time),
 * so it is read about once a minute, and after a problem.
 */
const behindMs = 60_000;
const mostFronts = 5;

export class Reconciler extends NodeRedirect {
  readonly #options: ReconcilerOptions;
  readonly checks: Record<CheckOutcome, number> = {
    unchanged: 0,
    installed: 0,
    repaired: 0,
    failed: 0,
  };
  #slot: OwnSlot | undefined;
  #status: RedirectStatus = { state: 'absent', detail: 'not installed yet', problems: [] };
  /** The last check, if it found no problem. */
  #whole: RedirectStatus | undefined;
  /** Checks of the front alone that may follow. */
  #frontsLeft = 0;
  #nodePods: readonly bigint[] | undefined;
  #lastProblem = '';
  #failures = 0;
  #running: Promise<void> | undefined;
  #job: Disposable | undefined;
  #disarmLook: (() => void) | undefined;
  #watching: Disposable | undefined;
  #isDisposed = false;
  #isLeaving = false;
  /** At the last check, another agent maintained the redirect. */
  #isOthers = false;
  /** What the last look found of the other agent. */
  #neighbor = '';

  constructor(options: ReconcilerOptions) {
    super(options);
    this.#options = options;
  }

  get mode() {
    return this.#options.redirect.mode;
  }

  get port(): number {
    return this.#slot?.port ?? this.#options.listenPort;
  }

  /** Status at the last check. */
  status(): RedirectStatus {
    return this.#status;
  }

  isAlone(): boolean {
    return this.#slot?.isAlone() ?? true;
  }

  /** Of two agents, this one maintains the redirect: it alone lets pods of the host network through. */
  get isOwner(): boolean {
    return this.settledAtMs !== undefined && !this.#isOthers;
  }

  async letThrough(cgroupIds: readonly bigint[]): Promise<void> {
    this.#nodePods = cgroupIds;
    await this.#letNodePodsThrough();
  }

  override samples(): readonly Sample[] {
    const own = super.samples();
    const checks =
      own.length === 0 ? [] : samplesBy('nmi_redirect_reconciles_total', 'outcome', this.checks);
    return [...own, ...checks, ...this.#programSamples()];
  }

  protected async bringUp(signal?: AbortSignal): Promise<void> {
    // First: a third agent of the node must not change what the kernel has of the other two.
    this.#slot = await this.#options.takeSlot?.(signal);
    await this.#options.redirect.prepare();
  }

  protected obstacle(): undefined {
    return undefined;
  }

  /** Runs the first check and schedules the others. */
  async start(): Promise<void> {
    if (this.#slot !== undefined) await this.#untilListening();
    const firstMs = await this.#checkNow();
    if (this.#isDisposed || this.#isLeaving) return;
    this.#schedule(firstMs);
    this.#watching = this.#slot?.watch(() => this.#look());
  }

  /** These are the last checks. Another agent that takes connections takes the redirect, with programs of its own. */
  async leave(): Promise<boolean> {
    const { clock, log, redirect } = this.#options;
    const slot = this.#slot;
    this.#isLeaving = true;
    this.#endLooks();
    if (slot === undefined) return false;
    const endMs = clock.monotonicMs() + takeoverMs;
    try {
      slot.leave();
      await this.#checkNow();
      for (;;) {
        const other = slot.other();
        if (this.#pointsElsewhere(slot) || other === undefined || !takesOver(other)) break;
        if (clock.monotonicMs() > endMs) return await this.#give(slot, other.port);
        await sleep(clock, leavePollMs);
        // Not in turn: the other agent waits for its turn. The port is the last thing that an installation changes.
        this.#status = await redirect.verify();
      }
    } catch (error) {
      log.warn({ err: messageOf(error) }, 'failed to leave the redirect to the other agent');
    }
    return this.#pointsElsewhere(slot);
  }

  #pointsElsewhere(slot: OwnSlot): boolean {
    const { port } = this.#status;
    return port !== undefined && port !== slot.port;
  }

  /** To an agent that does not take it: one of a release that does not look for this, or one that hangs. */
  async #give(slot: OwnSlot, port: number): Promise<boolean> {
    using _ = await slot.turn();
    this.#status = await this.#options.redirect.install(port);
    return this.#pointsElsewhere(slot);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    this.#endLooks();
    await this.#running;
    this.#slot?.[Symbol.dispose]();
    this.#slot = undefined;
  }

  /**
   * On a node without a redirect, until the own agent listens: connections would be refused until then, also those
   * that the agent of another system answers meanwhile.
   */
  async #untilListening(): Promise<void> {
    const { redirect, clock, onStatus } = this.#options;
    const slot = this.#slot;
    if (slot === undefined) return;
    const endMs = clock.monotonicMs() + mostWaitMs;
    try {
      const isServed = (): boolean => slot.own().listens || slot.other()?.listens === true;
      if (isServed() || (await redirect.verify()).state !== 'absent') return;
      this.isWaiting = true;
      onStatus?.();
      while (!isServed() && !this.#isDisposed && clock.monotonicMs() < endMs) {
        await sleep(clock, waitPollMs);
      }
    } catch {
      // The first check meets the same error, and reports it.
    } finally {
      this.isWaiting = false;
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
    const { intervalMs } = this.#options;
    if (this.#failures === 0) return intervalMs;
    return Math.min(intervalMs, firstRetryMs * 2 ** (this.#failures - 1));
  }

  #endLooks(): void {
    this.#job?.[Symbol.dispose]();
    this.#disarmLook?.();
    this.#watching?.[Symbol.dispose]();
  }

  /** As long as there is another agent: it begins to take connections, or ends, between two checks. */
  #scheduleLook(): void {
    this.#disarmLook?.();
    if (this.#isDisposed || this.#isLeaving || this.#neighbor === '') return;
    this.#disarmLook = this.#options.clock.schedule(lookMs, () => this.#look());
  }

  #look(): void {
    if (this.#hasChanged() && this.#job !== undefined) this.#schedule(0);
    this.#options.onStatus?.();
    this.#scheduleLook();
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
    const slot = this.#slot;
    if (slot === undefined) return undefined;
    const other = slot.other();
    const own = slot.own();
    this.#neighbor = describeNeighbor(own, other);
    return portToMaintain(target, { ...own, listens: own.listens && !this.#isLeaving }, other);
  }

  async #check(): Promise<void> {
    const { redirect, log, clock } = this.#options;
    const slot = this.#slot;
    let disarm = (): void => undefined;
    try {
      using _ = await slot?.turn();
      const before = await this.#read();
      const port = this.#portToMaintain(before.port);
      if (slot !== undefined && port === undefined) {
        // The programs that answer this agent may have been removed, or not be there yet.
        await redirect.prepare();
        this.#observe(before);
        return;
      }
      const wasOthers = this.#isOthers;
      this.#isOthers = false;
      // A repair takes milliseconds. It takes seconds where tools wait for a lock, and then it is a problem.
      if (this.settledAtMs === undefined || before.state === 'absent') this.#status = before;
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
      this.#count(this.#outcome(before));
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
    if (this.#status.state !== 'active') return;
    this.settledAtMs ??= clock.monotonicMs() + settlingMs.repaired;
    this.#failures = 0;
    this.#lastProblem = '';
  }

  async #read(): Promise<RedirectStatus> {
    const { redirect, intervalMs } = this.#options;
    const whole = this.#frontsLeft-- > 0 ? this.#whole : undefined;
    this.#whole = undefined;
    if (whole !== undefined && (await redirect.isFrontWhole(whole.port))) {
      return (this.#whole = whole);
    }
    const status = await redirect.verify();
    this.#frontsLeft = Math.min(mostFronts, Math.floor(behindMs / intervalMs) - 1);
    if (status.problems.length === 0) this.#whole = status;
    return status;
  }

  #count(outcome: CheckOutcome): void {
    this.checks[outcome]++;
    // The programs may have been another agent's until this check.
    void this.#letNodePodsThrough();
  }

  async #letNodePodsThrough(): Promise<void> {
    const { programs, log } = this.#options;
    if (this.#nodePods === undefined || !this.isOwner) return;
    await programs?.letThrough(this.#nodePods).catch((error: unknown) => {
      log.warn({ err: messageOf(error) }, 'failed to let pods of the host network through');
    });
  }

  #programSamples(): readonly Sample[] {
    const { programs } = this.#options;
    let totals: ReturnType<Programs['counters']>;
    try {
      totals = programs?.counters();
    } catch {
      // It must not fail the scrape.
    }
    if (totals === undefined) return [];
    const connects = {
      redirected: totals.redirected,
      direct: totals.direct,
      exempt: totals.exempt,
      limit: totals.refused,
      rate: totals.tooFast,
      full: totals.unrecorded,
    };
    return samplesBy('nmi_ebpf_connects_total', 'outcome', connects);
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
    } else if (this.settledAtMs === undefined || this.#failures > 0) {
      log.info({ mode, detail: status.detail }, 'redirect installed');
    } else if (before.problems.length > 0) {
      log.warn({ mode, problems: before.problems }, 'redirect drift detected and repaired');
    }
    const nowMs = clock.monotonicMs();
    const outcome = this.#outcome(before);
    if (outcome === 'installed') this.settledAtMs = nowMs + settlingMs.installed;
    else if (outcome === 'repaired' || this.settledAtMs === undefined) {
      this.settledAtMs = Math.max(this.settledAtMs ?? nowMs, nowMs + settlingMs.repaired);
    }
    this.#failures = 0;
    this.#lastProblem = '';
  }

  #fail(problem: string): void {
    this.#failures = Math.min(this.#failures + 1, 30);
    this.#count('failed');
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
  return [own.listens, other.isHeld, other.listens, other.order < 0].join();
}

function isWanting(status: RedirectStatus): boolean {
  return status.state === 'broken' || status.state === 'absent' || status.problems.length > 0;
}

function messageOf(error: unknown): string {
  if (error instanceof RedirectError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : 'unknown error';
}
