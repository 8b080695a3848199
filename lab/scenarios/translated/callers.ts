/**
 * What a caller gets whose connection something between its socket and the node translates, opens
 * on its behalf, or sends without a socket of the node's kernel.
 *
 * By address, every such caller is known. With attestation, a record of the caller's own pod
 * attests it. Without a record it is known by its address where its pod has a link of its own,
 * since an answer reaches that link only, and so is a proxy of another pod that connects to the
 * agent. A record of another pod is overruled in no other case.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from '../../fabric/lab-command.ts';
import { LabError } from '../../fabric/lab-error.ts';
import type { PodLinkKind } from '../../fabric/pod-link.ts';
import type { LabPod, PodReply } from '../../pods/pod.ts';
import { assertRefused, assertToken, type Refusal } from '../../test-bed/reply-checks.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

export type CallerCase = 'sidecar' | 'other-pods-proxy' | 'nested' | 'sandbox';

const onBridge: Refusal = { status: 403, says: /no record of who opened .* share a network link/ };
/** The cgroup could be that of a new pod that has this address and is not known yet. */
const otherPods: Refusal = { status: 503, says: /but a process opened it that is not of the pod/ };

/** With attestation. */
const attested: Readonly<Record<CallerCase, Readonly<Record<PodLinkKind, 'token' | Refusal>>>> = {
  sidecar: { own: 'token', bridge: 'token' },
  'other-pods-proxy': { own: 'token', bridge: otherPods },
  nested: { own: 'token', bridge: onBridge },
  sandbox: { own: 'token', bridge: onBridge },
};

export const linkKinds: readonly PodLinkKind[] = ['own', 'bridge'];

/** Longer than the time after a start in which a connection may be older than the redirect. */
const settledMs = 10_000;

export interface CallerPods {
  readonly link: PodLinkKind;
  /** With the identity `translated`. */
  readonly bound: LabPod;
  /** Without an identity. */
  readonly unbound: LabPod;
}

/** Checks the answers to both pods of each kind of network, prepared by `prepare`. */
export async function checkCallers(
  testBed: TestBed,
  kind: CallerCase,
  prepare: (pods: CallerPods) => Promise<Readonly<Record<'bound' | 'unbound', Ask>>>,
): Promise<string> {
  testBed.bind('translated', 'translated');
  await testBed.settle();
  const results: string[] = [];
  for (const link of linkKinds) {
    const bound = await testBed.addPod({ name: `bound-${link}`, binding: 'translated', link });
    const unbound = await testBed.addPod({ name: `unbound-${link}`, link });
    await testBed.untilAgentKnows();
    const wanted = testBed.attests ? attested[kind][link] : 'token';
    const ask = await prepare({ link, bound, unbound });
    results.push(`${link}: ${await checkBoth(testBed, ask, wanted)}`);
    for (const pod of [bound, unbound]) await testBed.removePod(pod);
  }
  assert.deepEqual(testBed.uncheckedRequests(), [], 'a request bypassed the agent');
  return results.join('; ');
}

/** One request from the caller. */
export type Ask = () => Promise<PodReply>;

async function checkBoth(
  testBed: TestBed,
  ask: Readonly<Record<'bound' | 'unbound', Ask>>,
  wanted: 'token' | Refusal,
): Promise<string> {
  const bound = await askSettled(ask.bound);
  const unbound = await askSettled(ask.unbound);
  if (wanted !== 'token') {
    assertRefused(bound, wanted);
    assertRefused(unbound, wanted);
    return `refused with ${bound.status}`;
  }
  assertToken(bound, 'translated');
  assertRefused(unbound, {
    status: 400,
    says: /^Identity not found: pod default\/unbound-\w+ has no label/,
  });
  testBed.log('the bound pod has its own token, the unbound one none');
  return 'a token of the pod’s own identity';
}

/** For seconds after a start, a caller without a record may be older than the redirect. */
export async function askSettled(ask: Ask): Promise<PodReply> {
  const untilMs = performance.now() + settledMs;
  for (;;) {
    const reply = await ask();
    const isPending = reply.status === 503 || reply.failure !== undefined;
    if (!isPending || performance.now() > untilMs) return reply;
    await delay(500);
  }
}

/** Applies rules of netfilter inside a pod. */
export async function restoreRules(testBed: TestBed, pod: LabPod, rules: string): Promise<void> {
  const { code, stderr } = await testBed.environment.runInPod(
    pod.name,
    'iptables-restore',
    ['--noflush'],
    rules,
  );
  assert.equal(code, 0, `iptables-restore in ${pod.name}: ${stderr}`);
}

/** Starts a proxy in another container of the pod and waits until it prints that it is ready. */
export async function startProxy(
  testBed: TestBed,
  pod: LabPod,
  command: Command,
  ready = /^ready$/m,
): Promise<void> {
  const child = testBed.environment.startInPod(pod.name, command);
  let printed = '';
  await new Promise<void>((resolve, reject) => {
    const read = (text: string): void => {
      printed = (printed + text).slice(-4_000);
      if (ready.test(printed)) resolve();
    };
    child.stdout?.setEncoding('utf8').on('data', read);
    child.stderr?.setEncoding('utf8').on('data', read);
    child.once('close', () => {
      reject(new LabError('TOOL_FAILED', `the proxy in ${pod.name} ended: ${printed}`));
    });
  });
}
