/**
 * What scenarios say of a pod's reply and of the fake IMDS, in one sentence each: a reply is a token
 * of one identity, or a refusal in the shape that clients rely on.
 */
import assert from 'node:assert/strict';
import { eventually } from './eventually.ts';
import type { AskOptions, LabPod, PodReply } from '../pods/pod.ts';
import type { TestBed } from './test-bed.ts';

/** What came, for a message: never a token. */
export function sayReply(reply: PodReply): string {
  if (reply.failure !== undefined) return reply.failure;
  if (reply.identity !== undefined) return `${reply.status} with a token of ${reply.identity}`;
  return `${reply.status} ${reply.text}`;
}

/** Some identity's token and no other's. */
export function assertToken(reply: PodReply, identity: string): void {
  const message = `wanted a token of ${identity}, got ${sayReply(reply)}`;
  assert.equal(reply.identity, identity, message);
  assert.equal(reply.status, 200);
  assert.equal(reply.headers.get('retry-after'), undefined, 'a token must not carry Retry-After');
}

export interface Refusal {
  readonly status: number;
  /** Of the description, beginning included where clients look for it. */
  readonly says: RegExp;
  /** Default: that there is one exactly on 429 and 503, of whatever length. */
  readonly retryAfterS?: number;
}

/** No token, a JSON error body, and `Retry-After` exactly on what passes. */
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

/** All tokens the fake IMDS gave since the scenario began, in order, and each to the node itself. */
export function assertUpstream(testBed: TestBed, identities: readonly string[]): void {
  const wanted = identities.map((identity) => `${identity} to ${testBed.environment.nodeIp}`);
  assert.deepEqual(testBed.upstreamTokens(), wanted, 'the real service was asked for other tokens');
}

/** Nothing at all reached the fake IMDS since the scenario began. */
export function assertUntouched(testBed: TestBed): void {
  const seen = testBed.imds
    .requests()
    .map(({ method, target, from }) => `${method} ${target} ${from}`);
  assert.deepEqual(seen, [], 'something reached the real service');
}

/** Asks until a token of `identity` comes, for a change that is on its way to the agent. */
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

/** Asks until it is refused so, for a change that is on its way to the agent. */
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

/** Waits until the agent holds so many requests, waiting for an object to arrive. */
export function untilHeld(testBed: TestBed, requests: number, maxMs = 1_500): Promise<void> {
  return eventually(async () => {
    const held = await testBed.agent.metric('nmi_waiting_requests');
    assert.equal(held, requests, `the agent holds ${held} requests, not ${requests}`);
  }, maxMs);
}
