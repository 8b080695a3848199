/**
 * The redirect of an agent without privileges: `nmi redirect run` in another container of the pod
 * maintains the redirect, and reports its state in a file.
 *
 * The agent uses the first reported mode. Identification by address and by record differ in other parts
 * of the agent too, so a change of the mode needs a restart of the pod.
 */
import { sleep } from '../../base/time/clock.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import {
  RedirectError,
  type RedirectStatus,
  type RedirectTarget,
} from '../../redirect/redirect.ts';
import { describeTarget, reachableTarget } from '../../redirect/target.ts';
import { NodeRedirect, settlingMs, type NodeRedirectOptions } from './node-redirect.ts';
import {
  readState,
  statePath,
  writeNodePods,
  type MaintainedMode,
  type RedirectState,
} from './redirect-state.ts';
import { inKernel } from '../../redirect/native/addon.ts';
import { watchShared } from './shared-file.ts';

export interface ExternalRedirectOptions extends NodeRedirectOptions {
  /** In which it and `nmi redirect run` exchange files. */
  readonly folder: string;
  /** The expected target of the redirect. */
  readonly target: RedirectTarget;
  readonly intervalMs: number;
}

/** The two containers start at the same time. */
const patienceMs = 30_000;
const pollMs = 200;
/** Its file is written at each check of the redirect, at least. */
const silenceMs = 30_000;
/** An installation that has begun may take seconds, and its end be followed by another one. */
const leaveMs = 10_000;
const leavePollMs = 20;
/** Pause after a look that found a problem: an update replaces an agent that is not ready before the next one serves. */
const retryMs = 1_000;

export class ExternalRedirect extends NodeRedirect {
  readonly #options: ExternalRedirectOptions;
  readonly #target: RedirectTarget;
  readonly #watching: Disposable;
  #job: Disposable | undefined;
  #last: RedirectState | undefined;
  #lastChangeMs: number;
  /** While it is defined, no caller is known, in any mode. */
  #mismatch: string | undefined;
  #mode: MaintainedMode | undefined;
  #port: number;
  #lastProblem: string | undefined;

  constructor(options: ExternalRedirectOptions) {
    super(options);
    const { folder, clock, target } = options;
    this.#options = options;
    this.#target = reachableTarget(target);
    this.#port = target.listenPort;
    this.#lastChangeMs = clock.monotonicMs();
    this.#watching = watchShared(statePath(folder), () => {
      if (this.#job !== undefined) this.#look();
    });
  }

  get mode() {
    return this.#mode ?? 'pinned';
  }

  get port(): number {
    return this.#port;
  }

  async start(): Promise<void> {
    this.#job = startPeriodicJob(this.#options.clock, this.#look(), () => this.#look());
  }

  isAlone(): boolean {
    return this.#read()?.isAlone ?? false;
  }

  /** Waits until the other process has given new connections to another agent, if there is one that takes them. */
  async leave(): Promise<boolean> {
    const { clock } = this.#options;
    const endMs = clock.monotonicMs() + leaveMs;
    for (;;) {
      const state = this.#read();
      if (state === undefined) return false;
      // Before that, an installation may be under way that moves it here.
      if (state.isLeaving || clock.monotonicMs() > endMs) {
        return state.redirectedTo !== null && state.redirectedTo !== state.port;
      }
      await sleep(clock, leavePollMs);
    }
  }

  async letThrough(cgroupIds: readonly bigint[]): Promise<void> {
    writeNodePods(this.#options.folder, cgroupIds);
  }

  status(): RedirectStatus {
    const found = this.#problems();
    const isInstalled = found.length > 0 || this.#last?.redirectedTo !== null;
    const problems = isInstalled ? found : ['nmi redirect run has not installed the redirect yet'];
    const detail = `kept by nmi redirect run; ${describeTarget(this.#target, this.#port)}`;
    if (problems.length === 0) return { state: 'active', detail, problems };
    // The mode is known once it was active.
    return { state: this.#mode === undefined ? 'absent' : 'broken', detail, problems };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#job?.[Symbol.dispose]();
    this.#watching[Symbol.dispose]();
  }

  protected async bringUp(signal?: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const deadlineMs = clock.monotonicMs() + patienceMs;
    for (;;) {
      const missing = this.#findMissing();
      if (missing === undefined || signal?.aborted === true) return;
      if (clock.monotonicMs() > deadlineMs) {
        throw new RedirectError('TIMEOUT', 'wait for nmi redirect run', missing);
      }
      await sleep(clock, pollMs);
    }
  }

  protected obstacle(): string | undefined {
    if (this.#mismatch !== undefined || this.#mode !== undefined) return this.#mismatch;
    return '`nmi redirect run` has not brought the redirect up';
  }

  /** The part that is still missing, or undefined. The redirect may wait for this agent to listen. */
  #findMissing(): string | undefined {
    const [problem] = this.#problems();
    if (problem !== undefined) return problem;
    const { listenIp } = this.#target;
    return inKernel((native) => native.isLocal(listenIp)) ? undefined : `${listenIp} is on no link`;
  }

  /** Milliseconds until the next look, unless the kernel reports a change of the file before. */
  #look(): number {
    const { log, clock, intervalMs, onStatus } = this.#options;
    const { state, problems, detail } = this.status();
    const { mode } = this;
    const isUp = state === 'active';
    const problem = problems.join('; ');
    if (isUp) this.settledAtMs ??= clock.monotonicMs() + settlingMs.repaired;
    if (problem !== this.#lastProblem && isUp) log.info({ mode, detail }, 'redirect installed');
    else if (problem !== this.#lastProblem) {
      log.error({ mode, problem }, 'redirect not in place, retrying');
    }
    this.#lastProblem = problem;
    onStatus?.();
    return isUp ? intervalMs : Math.min(intervalMs, retryMs);
  }

  #read(): RedirectState | undefined {
    const { folder, clock } = this.#options;
    const state = readState(folder);
    this.#port = state?.port ?? 0;
    if (state === undefined) return undefined;
    if (state.at !== this.#last?.at) this.#lastChangeMs = clock.monotonicMs();
    this.#last = state;
    this.#mismatch = this.#findMismatch(state);
    if (this.#mismatch === undefined && state.problems.length === 0) this.#mode ??= state.mode;
    return state;
  }

  /** A difference between the report and this agent's expectation. */
  #findMismatch({ target, mode }: RedirectState): string | undefined {
    if (target !== describeTarget(this.#target)) return `nmi redirect run redirects ${target}`;
    if (this.#mode === undefined || mode === this.#mode) return undefined;
    return `the redirect is by ${mode} now and was by ${this.#mode}: restart this pod`;
  }

  #problems(): readonly string[] {
    const state = this.#read();
    if (state === undefined) return ['nmi redirect run has reported nothing yet'];
    const found = this.#mismatch === undefined ? state.problems : [this.#mismatch];
    if (this.#options.clock.monotonicMs() - this.#lastChangeMs < silenceMs) return found;
    return [...found, `nmi redirect run has reported nothing for ${silenceMs / 1_000} s`];
  }
}
