/**
 * The redirect of an agent without privileges: `nmi redirect run` in another container of the pod
 * maintains the redirect, reports its state and looks callers up.
 *
 * The agent uses the first reported mode. Identification by address and by record differ in other parts
 * of the agent too, so a change of the mode needs a restart of the pod.
 */
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../base/time/clock.ts';
import { recordedIp } from '../../redirect/ebpf/callers.ts';
import { mapLayout } from '../../redirect/ebpf/settings.ts';
import {
  RedirectError,
  type Attestation,
  type Redirect,
  type RedirectStatus,
  type RedirectTarget,
} from '../../redirect/redirect.ts';
import { describeTarget, reachableTarget } from '../../redirect/target.ts';
import { CallerClient, noAnswer } from './caller-client.ts';
import type { KeptMode, RedirectReport } from './caller-frames.ts';

export interface ExternalRedirectOptions {
  /** Path of the socket of `nmi redirect run`. */
  readonly path: string;
  /** The expected target of the redirect. */
  readonly target: RedirectTarget;
  readonly clock: Clock;
}

/** The two containers start at the same time. */
const patienceMs = 30_000;
const pollMs = 200;

const byAddress: Attestation = { kind: 'by-address' };
const unattested: Attestation = { kind: 'unattested' };

export function openExternalRedirect(options: ExternalRedirectOptions): Redirect {
  const { path, clock } = options;
  const target = reachableTarget(options.target);
  let mode: KeptMode | undefined;
  /** While it is defined, no caller is attested, in any mode. */
  let mismatch: Extract<Attestation, { kind: 'unavailable' }> | undefined;
  // No mutation: without an answer there is no mode either.
  let isAnswered = false;
  let nodePods: readonly bigint[] | undefined;
  const client = new CallerClient({ path, clock, onReport });

  function onReport(report: RedirectReport | undefined): void {
    isAnswered = report !== undefined;
    if (report === undefined) return;
    // Each time, since it may be a new process.
    if (nodePods !== undefined) client.letThrough(nodePods);
    const why = findMismatch(report, target, mode);
    mismatch = why === undefined ? undefined : { kind: 'unavailable', why };
    if (why === undefined && report.isActive) mode ??= report.mode;
  }

  function describe(report: RedirectReport | undefined): RedirectStatus {
    const detail = `kept by nmi redirect run; ${describeTarget(target)}`;
    if (report === undefined) {
      const problems = [`nmi redirect run does not answer at ${path}`];
      return { state: 'absent', detail, problems };
    }
    const wrong = findMismatch(report, target, mode);
    if (wrong !== undefined) return { state: 'broken', detail, problems: [wrong] };
    if (report.isActive) return { state: 'active', detail, problems: [] };
    const problems = ['nmi redirect run has not brought the redirect up; see its log'];
    // The mode is known once it was active.
    return { state: mode === undefined ? 'absent' : 'broken', detail, problems };
  }

  function findObstacle(): Extract<Attestation, { kind: 'unavailable' }> | undefined {
    if (mismatch !== undefined || mode === 'iptables') return mismatch;
    return mode === undefined || !isAnswered ? noAnswer : undefined;
  }

  const verify = async (): Promise<RedirectStatus> => describe(await client.report());

  /** The part that is still missing, or undefined. */
  async function findMissing(): Promise<string | undefined> {
    const { problems } = await verify();
    const [problem] = problems;
    if (problem !== undefined) return problem;
    const { listenIp } = options.target;
    return (await isHeld(listenIp)) ? undefined : `${listenIp} is on no link`;
  }

  return {
    get mode() {
      return mode ?? 'pinned';
    },
    prepare: async (signal) => {
      const deadlineMs = performance.now() + patienceMs;
      for (;;) {
        const missing = await findMissing();
        if (missing === undefined || signal?.aborted === true) return;
        if (performance.now() > deadlineMs) {
          throw new RedirectError('TIMEOUT', 'wait for nmi redirect run', missing);
        }
        await delay(pollMs);
      }
    },
    install: verify,
    verify,
    isFrontWhole: () => Promise.resolve(false),
    remove: () =>
      Promise.reject(
        new RedirectError('NOT_PERMITTED', 'remove redirect', 'nmi redirect run maintains it'),
      ),
    letThrough: (cgroupIds) => {
      nodePods = cgroupIds;
      client.letThrough(cgroupIds);
      return Promise.resolve();
    },
    attest: (peer) => {
      const obstacle = findObstacle();
      if (obstacle !== undefined) return obstacle;
      if (mode === 'iptables') return byAddress;
      const ip = recordedIp(peer, target);
      return ip === undefined ? unattested : client.lookUp(ip, peer.remotePort);
    },
    whyUnavailable: () => findObstacle()?.why,
    close: () => client.close(),
  };
}

/** A difference between the report and this agent's expectation. Callers are then not attested. */
function findMismatch(
  report: RedirectReport,
  target: RedirectTarget,
  mode: KeptMode | undefined,
): string | undefined {
  if (report.layout !== mapLayout) return 'nmi redirect run is of another version';
  if (describeTarget(report.target) !== describeTarget(target)) {
    return `nmi redirect run redirects ${describeTarget(report.target)}`;
  }
  if (mode !== undefined && report.mode !== mode) {
    return `the redirect is by ${report.mode} now and was by ${mode}: restart this pod`;
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
