/**
 * Rules for every answer to any request: the header, the shape of a token, the shape of an error. A
 * case checks only its own additions.
 */
import assert from 'node:assert/strict';
import { valuesOf, type RawReply } from '../support/raw-connection.ts';

const guid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const imfDate =
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT$/;
const digits = /^[0-9]+$/;
/** Clocks of two machines may differ. */
const maxClockSkewS = 300;

/** 88 bytes, which probes of several SDKs look for. */
const headerMissing =
  '{"error":"invalid_request","error_description":"Required metadata header not specified"}';

const seenRequestIds = new Set<string>();

export type Body = Readonly<Record<string, string>>;

/** Fields that every answer of the token endpoint has, each once and well-formed. */
export function assertHead(reply: RawReply, method = 'GET'): void {
  const one = (name: string): string => {
    const values = valuesOf(reply, name);
    assert.equal(values.length, 1, `${name}: ${values.join(' | ')} in ${say(reply)}`);
    return values[0] ?? '';
  };
  assert.equal(one('Content-Type'), 'application/json; charset=utf-8');
  const length = one('Content-Length');
  assert.match(length, digits);
  if (method !== 'HEAD') assert.equal(Number(length), reply.body.length);
  assert.match(one('Server'), /IMDS/);
  const requestId = one('x-ms-request-id');
  assert.match(requestId, guid);
  assert.ok(!seenRequestIds.has(requestId), `x-ms-request-id ${requestId} came twice`);
  seenRequestIds.add(requestId);
  const date = one('Date');
  assert.match(date, imfDate);
  assert.ok(Math.abs(Date.parse(date) - Date.now()) / 1000 < maxClockSkewS, date);
  for (const name of ['Transfer-Encoding', 'Content-Encoding']) {
    assert.deepEqual(valuesOf(reply, name), [], say(reply));
  }
  assertRetryAfter(reply);
}

/**
 * Present exactly on 429 and 503. MSAL retries any other answer that has it, and Azure SDKs do not
 * retry after a 429 without it.
 */
function assertRetryAfter(reply: RawReply): void {
  const values = valuesOf(reply, 'Retry-After');
  if (reply.status !== 429 && reply.status !== 503) {
    assert.deepEqual(values, [], `Retry-After on ${say(reply)}`);
    return;
  }
  assert.equal(values.length, 1, `no Retry-After on ${say(reply)}`);
  assert.match(values[0] ?? '', /^[1-9][0-9]*$/);
}

/** A token for `resource`, in the shape of the real service. @returns the body. */
export function assertToken(reply: RawReply, resource: string): Body {
  assert.equal(reply.status, 200, say(reply));
  assertHead(reply);
  const body = parseObject(reply);
  const fields: Record<string, string> = {};
  for (const [name, value] of Object.entries(body)) {
    assert.ok(typeof value === 'string', `${name} is no string in ${say(reply)}`);
    fields[name] = value;
  }
  const names = Object.keys(fields);
  assert.deepEqual(names, names.toSorted(), 'keys in alphabetical order');
  for (const name of [
    ...['access_token', 'client_id', 'expires_in', 'expires_on'],
    ...['not_before', 'resource', 'token_type'],
  ]) {
    assert.notEqual(fields[name] ?? '', '', `no ${name} in ${say(reply)}`);
  }
  for (const name of ['expires_in', 'expires_on', 'ext_expires_in', 'not_before', 'refresh_in']) {
    if (name in fields) assert.match(fields[name] ?? '', digits, name);
  }
  assert.equal(fields['token_type'], 'Bearer');
  assert.equal(fields['resource'], resource);
  assertTimes(fields, Date.parse(valuesOf(reply, 'Date')[0] ?? '') / 1000);
  return fields;
}

/** By the clock of the answer, which is cut to whole seconds. */
function assertTimes(body: Body, nowS: number): void {
  const expiresOnS = Number(body['expires_on']);
  assert.ok(
    Math.abs(nowS + Number(body['expires_in']) - expiresOnS) <= 2,
    'expires_in is the remaining time',
  );
  assert.ok(Number(body['not_before']) <= nowS + 1, 'not_before has passed');
  assert.ok(expiresOnS > nowS, 'the token has not expired');
  const { exp } = claimsOf(body);
  if (exp !== undefined) {
    assert.ok(Math.abs(Number(exp) - expiresOnS) <= 1, 'expires_on is the exp of the token');
  }
}

export interface Refusal {
  readonly status: number | readonly number[];
  /** The OAuth error code. */
  readonly error?: string;
  readonly says?: RegExp;
  readonly method?: string;
}

/** An error that every SDK can parse, without a token. @returns the body. */
export function assertRefused(reply: RawReply, wanted: Refusal): Body {
  const { status, method = 'GET' } = wanted;
  const statuses = typeof status === 'number' ? [status] : status;
  assert.ok(!reply.bytes.includes('access_token'), `a token: ${reply.status}`);
  assert.ok(statuses.includes(reply.status), `wanted ${statuses.join(' or ')}, got ${say(reply)}`);
  assertHead(reply, method);
  if (reply.status === 403) {
    assert.doesNotMatch(reply.text, /unreachable/i, 'clients take it for "no managed identity"');
  }
  if (reply.status === 405) assert.equal(valuesOf(reply, 'Allow').length, 1, say(reply));
  if (method === 'HEAD') return {};
  const { error, error_description: description } = parseObject(reply);
  assert.ok(typeof error === 'string' && error !== '', say(reply));
  assert.ok(typeof description === 'string' && description !== '', say(reply));
  if (wanted.error !== undefined) assert.equal(error, wanted.error, say(reply));
  if (wanted.says !== undefined) assert.match(description, wanted.says);
  return { error, error_description: description };
}

/** IMDS's own answer to a request without `Metadata: true`, to the byte. */
export function assertHeaderMissing(reply: RawReply): void {
  assert.equal(reply.status, 400, say(reply));
  assert.equal(reply.text, headerMissing);
  assert.equal(reply.body.length, 88);
  assertHead(reply);
}

/** The claims of an access token; empty when it is not a JWT. Decoded, not verified. */
export function claimsOf(body: Body): Readonly<Record<string, unknown>> {
  const [, payload] = (body['access_token'] ?? '').split('.');
  if (payload === undefined) return {};
  return JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as Record<string, unknown>;
}

/** A summary of the reply for a message: never a token. */
export function say(reply: RawReply): string {
  const { status, text } = reply;
  return `${status} ${text.includes('access_token') ? 'with a token' : text.slice(0, 300)}`;
}

function parseObject(reply: RawReply): Readonly<Record<string, unknown>> {
  let body: unknown;
  try {
    body = JSON.parse(reply.text);
  } catch {
    assert.fail(`no JSON: ${say(reply)}`);
  }
  assert.ok(typeof body === 'object' && body !== null && !Array.isArray(body), say(reply));
  return body as Record<string, unknown>;
}
