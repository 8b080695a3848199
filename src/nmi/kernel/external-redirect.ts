/**
 * The redirect of an agent without privileges: `nmi redirect run` in another container of the pod
 * maintains the redirect, and reports its state in a file.
 *
 * The agent uses the first reported mode. Identification by address and by record differ in other parts
 * of the agent too, so a change of the mode needs a restart of the pod.
 */
import { createServer } from 'node:net';
import { sleep, type Clock } from '../../base/time/clock.ts';
import { attestSocket, whyUnanswered } from '../../redirect/ebpf/callers.ts';
import { mapLayout } from '../../redirect/ebpf/settings.ts';
import {
  RedirectError,
  type Attestation,
  type Redirect,
  type RedirectStatus,
  type RedirectTarget,
} from '../../redirect/redirect.ts';
import { describeTarget, reachableTarget } from '../../redirect/target.ts';
import {
  readState,
  statePath,
  writeNodePods,
  type MaintainedMode,
  type RedirectState,
} from './redirect-state.ts';
import { watchShared } from './shared-file.ts';

export interface ExternalRedirectOptions {
  /** In which it and `nmi redirect run` exchange files. */
  readonly folder: string;
  /** The expected target of the redirect. */
  readonly target: RedirectTarget;
  readonly clock: Clock;
  readonly onReport?: () => void;
}

/** A redirect that another process maintains. */
export interface ExternalRedirect extends Redirect {
  /** The port to listen on; known after `prepare`. 0: others have both. */
  port(): number;
  isAlone(): boolean;
  /** Waits until the other process has given new connections to another agent, if there is one that takes them. */
  leave(): Promise<boolean>;
}

/** The two containers start at the same time. */
const patienceMs = 30_000;
const pollMs = 200;
/** Its file is written at each check of the redirect, at least. */
const silenceMs = 30_000;
/** An installation that has begun may take seconds, and its end be followed by another one. */
const leaveMs = 10_000;
const leavePollMs = 20;

const byAddress: Attestation = { kind: 'by-address' };
const noState = {
  kind: 'unavailable',
  why: '`nmi redirect run` has not brought the redirect up',
} as const satisfies Attestation;

export function openExternalRedirect(options: ExternalRedirectOptions): ExternalRedirect {
  const { folder, clock } = options;
  const target = reachableTarget(options.target);
  const reports = new Reports(folder, target, clock);
  const verify = async (): Promise<RedirectStatus> => reports.status();

  /** The part that is still missing, or undefined. The redirect may wait for this agent to listen. */
  async function findMissing(): Promise<string | undefined> {
    const [problem] = reports.problems();
    if (problem !== undefined) return problem;
    const { listenIp } = options.target;
    return (await isHeld(listenIp)) ? undefined : `${listenIp} is on no link`;
  }

  const watching = watchShared(statePath(folder), () => {
    reports.read();
    options.onReport?.();
  });
  return {
    get mode() {
      return reports.mode ?? 'pinned';
    },
    prepare: async (signal) => {
      const deadlineMs = clock.monotonicMs() + patienceMs;
      for (;;) {
        const missing = await findMissing();
        if (missing === undefined || signal?.aborted === true) return;
        if (clock.monotonicMs() > deadlineMs) {
          throw new RedirectError('TIMEOUT', 'wait for nmi redirect run', missing);
        }
        await sleep(clock, pollMs);
      }
    },
    install: verify,
    verify,
    isFrontWhole: () => Promise.resolve(false),
    remove: () =>
      Promise.reject(
        new RedirectError('NOT_PERMITTED', 'remove redirect', 'nmi redirect run maintains it'),
      ),
    letThrough: async (cgroupIds) => writeNodePods(folder, cgroupIds),
    attest: ({ socket }) =>
      reports.obstacle() ?? (reports.mode === 'iptables' ? byAddress : attestSocket(socket)),
    whyUnavailable: () =>
      reports.obstacle()?.why ?? (reports.mode === 'iptables' ? undefined : whyUnanswered()),
    close: () => watching[Symbol.dispose](),
    port: () => reports.port,
    isAlone: () => reports.read()?.isAlone ?? false,
    leave: async () => {
      const endMs = clock.monotonicMs() + leaveMs;
      for (;;) {
        const state = reports.read();
        if (state === undefined) return false;
        // Before that, an installation may be under way that moves it here.
        if (state.isLeaving || clock.monotonicMs() > endMs) {
          return state.redirectedTo !== null && state.redirectedTo !== state.port;
        }
        await sleep(clock, leavePollMs);
      }
    },
  };
}

type Unavailable = Extract<Attestation, { kind: 'unavailable' }>;

/** What the other process has reported. */
class Reports {
  readonly #folder: string;
  readonly #target: RedirectTarget;
  readonly #clock: Clock;
  /** While it is defined, no caller is attested, in any mode. */
  #mismatch: Unavailable | undefined;
  #last: RedirectState | undefined;
  #lastChangeMs: number;
  mode: MaintainedMode | undefined;
  /** 0: others have both. */
  port: number;

  constructor(folder: string, target: RedirectTarget, clock: Clock) {
    this.#folder = folder;
    this.#target = target;
    this.#clock = clock;
    this.#lastChangeMs = clock.monotonicMs();
    this.port = target.listenPort;
  }

  read(): RedirectState | undefined {
    const state = readState(this.#folder);
    this.port = state?.port ?? 0;
    if (state === undefined) return undefined;
    if (state.at !== this.#last?.at) this.#lastChangeMs = this.#clock.monotonicMs();
    this.#last = state;
    const why = findMismatch(state, this.#target, this.mode);
    this.#mismatch = why === undefined ? undefined : { kind: 'unavailable', why };
    if (why === undefined && state.problems.length === 0) this.mode ??= state.mode;
    return state;
  }

  /** Why no caller can be known. */
  obstacle(): Unavailable | undefined {
    return this.#mismatch ?? (this.mode === undefined ? noState : undefined);
  }

  status(): RedirectStatus {
    const found = this.problems();
    const isInstalled = found.length > 0 || this.#last?.redirectedTo !== null;
    const problems = isInstalled ? found : ['nmi redirect run has not installed the redirect yet'];
    const detail = `kept by nmi redirect run; ${describeTarget(this.#target, this.port)}`;
    if (problems.length === 0) return { state: 'active', detail, problems };
    // The mode is known once it was active.
    return { state: this.mode === undefined ? 'absent' : 'broken', detail, problems };
  }

  problems(): readonly string[] {
    const state = this.read();
    if (state === undefined) return ['nmi redirect run has reported nothing yet'];
    const silentMs = this.#clock.monotonicMs() - this.#lastChangeMs;
    return [
      ...(this.#mismatch === undefined ? state.problems : [this.#mismatch.why]),
      ...(silentMs < silenceMs
        ? []
        : [`nmi redirect run has reported nothing for ${Math.round(silentMs / 1_000)} s`]),
    ];
  }
}

/** A difference between the report and this agent's expectation. Callers are then not attested. */
function findMismatch(
  state: RedirectState,
  target: RedirectTarget,
  mode: MaintainedMode | undefined,
): string | undefined {
  if (state.layout !== mapLayout) return 'nmi redirect run is of another version';
  if (state.target !== describeTarget(target)) return `nmi redirect run redirects ${state.target}`;
  if (mode !== undefined && state.mode !== mode) {
    return `the redirect is by ${state.mode} now and was by ${mode}: restart this pod`;
  }
  return undefined;
}

/** Node does not list an interface without ports or carrier, so the check binds to the address. */
function isHeld(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host, port: 0 }, () => server.close(() => resolve(true)));
  });
}
