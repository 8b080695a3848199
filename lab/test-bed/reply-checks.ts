/**
 * Assertions of scenarios about a pod's reply and the fake IMDS: a reply is a token of one
 * identity, or a refusal in the format that clients rely on.
 */
import assert from 'node:assert/strict';
import { metricsLimitMs } from './agent-process.ts';
import { eventually } from './eventually.ts';
import type { AskOptions, LabPod, PodReply } from '../pods/pod.ts';
import type { TestBed } from './test-bed.ts';

/** The reply as message text, never with a token. */
export function sayReply(reply: PodReply): string {
  if (reply.failure !== undefined) return reply.failure;
  if (reply.identity !== undefined) return `${reply.status} with a token of ${reply.identity}`;
  return `${reply.status} ${reply.text}`;
}

/** The reply has a token of this identity. */
export function assertToken(reply: PodReply, identity: string): void {
  const message = `wanted a token of ${identity}, got ${sayReply(reply)}`;
  assert.equal(reply.identity, identity, message);
  assert.equal(reply.status, 200);
  assert.equal(reply.headers.get('retry-after'), undefined, 'a token must not carry Retry-After');
}

export interface Refusal {
  readonly status: number;
  /** Matches the description, including its beginning where clients check that. */
  readonly says: RegExp;
  /** Default: the header, with any value, on 429 and 503 only. */
  readonly retryAfterS?: number;
}

/** No token, a JSON error body, and `Retry-After` exactly on transient errors. */
export function assertRefused(reply: PodReply, wanted: Refusal): void {
  const got = sayReply(reply);
  assert.equal(reply.identity, undefined, `wanted status ${wanted.status}, got ${got}`);
  assert.equal(reply.status, wanted.status, `wanted status ${wanted.status}, got ${got}`);
  const { error, error_description: description } = reply.body;
  assert.ok(typeof error === 'string' && error !== '', `no error code in: ${got}`);
  assert.match(typeof description === 'string' ? description : '', wanted.says);
  const retryAfter = reply.headers.get('retry-after');
  if (wanted.status !== 429 && wanted.status !== 503) {
    assert.equal(retryAfter, undefined, `status ${wanted.status} must not carry Retry-After`);
  } else if (wanted.retryAfterS === undefined) {
    assert.match(retryAfter ?? '', /^[1-9]\d*$/, `no Retry-After in: ${got}`);
  } else {
    assert.equal(retryAfter, String(wanted.retryAfterS));
  }
}

/** All tokens of the fake IMDS since the scenario began, in order, each to the node itself. */
export function assertUpstream(testBed: TestBed, identities: readonly string[]): void {
  const wanted = identities.map((identity) => `${identity} to ${testBed.environment.nodeIp}`);
  assert.deepEqual(testBed.upstreamTokens(), wanted, 'the real service was asked for other tokens');
}

/** No request reached the fake IMDS since the scenario began. */
export function assertUntouched(testBed: TestBed): void {
  const seen = testBed.imds
    .requests()
    .map(({ method, target, from }) => `${method} ${target} ${from}`);
  assert.deepEqual(seen, [], 'something reached the real service');
}

/** Requests until a token of `identity` arrives: the agent may not have seen a change yet. */
export function untilToken(
  pod: LabPod,
  identity: string,
  options: AskOptions = {},
): Promise<PodReply> {
  return eventually(async () => {
    const reply = await pod.ask(options);
    assertToken(reply, identity);
    return reply;
  });
}

/** Requests until this refusal arrives: the agent may not have seen a change yet. */
export function untilRefused(
  pod: LabPod,
  wanted: Refusal,
  options: AskOptions = {},
): Promise<PodReply> {
  return eventually(async () => {
    const reply = await pod.ask(options);
    assertRefused(reply, wanted);
    return reply;
  });
}

/**
 * A request of the pod that waits in the agent for an object to arrive. If the machine stands still, it may be answered
 * before that is seen: then another one.
 */
export function untilHeld(
  testBed: TestBed,
  pod: LabPod,
): Promise<{ readonly reply: Promise<PodReply> }> {
  let reply: Promise<PodReply> | undefined;
  return eventually(async () => {
    const asked = (reply ??= pod.ask().finally(() => (reply = undefined)));
    const held = await testBed.agent.metric('nmi_waiting_requests');
    assert.equal(held, 1, `the agent holds ${held} requests, not 1`);
    return { reply: asked };
  }, metricsLimitMs);
}
