/** Assertions of pods and of the node, from a hand-driven API server with a true time of its own. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';

import type { ObjectName } from '../../../../../../src/cache/index/object-name.ts';
import type { OwnAccountOutcome } from '../../../../../../src/nmi/kube/accounts/own-account.ts';
import type { JsonPoster } from '../../../../../../src/nmi/kube/accounts/token-request.ts';
import type { RequestOptions } from '../../../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../../../src/nmi/kube/api/kube-error.ts';
import { openCredentialCache } from '../../../../../../src/nmi/sources/entra/credentials/credential-cache.ts';
import type {
  ClientCredential,
  ClientCredentialResult,
} from '../../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import {
  openNodeAssertions,
  openPodAssertions,
  type NodeCredential,
  type PodCredential,
} from '../../../../../../src/nmi/sources/entra/credentials/federated.ts';
import type { SourceFailure } from '../../../../../../src/nmi/sources/source.ts';
import { HandClock } from '../../../../../support/hand-clock.ts';
import { hourMs, minuteMs } from '../../../../../support/token-fixture.ts';

const audience = 'api://AzureADTokenExchange';
const agentPod = { name: 'nmi-x7k2p', uid: 'agent-uid' };

type Credential = PodCredential | NodeCredential;

/** @param account undefined: that of the node. */
function credentialOf(account: string | undefined, named = audience, namespace = 'ns'): Credential {
  if (account === undefined) return { kind: 'federated_node', audience: named };
  const serviceAccount = { namespace, name: account };
  return { kind: 'federated_pod', serviceAccount, audience: named };
}

function assertionOf(result: ClientCredentialResult): string {
  assert.ok(result.ok, result.ok ? '' : result.failure.description);
  assert.ok('clientAssertion' in result.clientCredential);
  return result.clientCredential.clientAssertion;
}

function failureOf(result: ClientCredentialResult): SourceFailure {
  assert.ok(!result.ok);
  return result.failure;
}

/** The claims in tokens of the hand-driven server. */
interface Claims {
  readonly serial: number;
  /** Namespace and name of the service account. */
  readonly subject: string;
  readonly audience: string;
  /** Empty for none. */
  readonly podUid: string;
  /** Milliseconds of the server's own uptime. */
  readonly expiresAtUpMs: number;
}

function claimsOf(assertion: string): Claims {
  const [, payload = ''] = assertion.split('.');
  return JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as Claims;
}

interface TokenRequestBody {
  readonly spec: {
    readonly audiences: readonly string[];
    readonly expirationSeconds: number;
    readonly boundObjectRef?: { readonly uid: string };
  };
}

/**
 * An API server with the right clock, whatever the clock of the node shows. Tokens are made on
 * request and delivered when the test says so; a request times out by itself.
 */
class HandApi implements JsonPoster {
  /** `what` is service account, audience and pod: equal ones must be requested once at a time. */
  readonly open: { readonly what: string; readonly end: (error?: KubeError) => void }[] = [];
  asked = 0;
  /** Life of every token in seconds; undefined: as requested. */
  grantS: number | undefined = undefined;
  readonly failures: KubeError[] = [];
  readonly #clock: HandClock;
  readonly #startedAtWallMs: number;
  #sleptMs = 0;

  constructor(clock: HandClock) {
    this.#clock = clock;
    this.#startedAtWallMs = clock.wallMs() - clock.monotonicMs();
  }

  get upMs(): number {
    return this.#clock.monotonicMs() + this.#sleptMs;
  }

  /** The node sleeps: time passes everywhere except on its monotonic clock. */
  sleep(ms: number): void {
    this.#sleptMs += ms;
    this.#clock.jumpWall(ms);
  }

  postJson(path: string, body: unknown, options: RequestOptions = {}): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const { claims, answer } = this.#make(path, body as TokenRequestBody);
    const request = {
      what: `${claims.subject} ${claims.audience} ${claims.podUid}`,
      end: (error?: KubeError): void => {
        disarm();
        this.open.splice(this.open.indexOf(request), 1);
        if (error === undefined) resolve(answer);
        else reject(error);
      },
    };
    const disarm = this.#clock.schedule(options.timeoutMs ?? 30_000, () => {
      request.end(new KubeError('TIMEOUT', 'no answer in time'));
    });
    this.asked++;
    this.open.push(request);
    return promise;
  }

  /** Ends the open request at this index. */
  land(at: number): void {
    const request = this.open[at];
    assert.ok(request !== undefined, 'no such request');
    request.end(this.failures.shift());
  }

  async landAll(): Promise<void> {
    await nextTurn();
    while (this.open.length > 0) this.land(0);
    await nextTurn();
  }

  #make(path: string, { spec }: TokenRequestBody): { claims: Claims; answer: object } {
    const [, , , , namespace = '', , name = ''] = path.split('/');
    const grantedS = this.grantS ?? spec.expirationSeconds;
    const claims: Claims = {
      serial: this.asked,
      subject: `${namespace}/${name}`,
      audience: spec.audiences.join(),
      podUid: spec.boundObjectRef?.uid ?? '',
      expiresAtUpMs: this.upMs + grantedS * 1000,
    };
    const payload = Buffer.from(JSON.stringify(claims)).toString('base64url');
    const endMs = this.#startedAtWallMs + claims.expiresAtUpMs;
    const expirationTimestamp = new Date(endMs).toISOString();
    const status = { token: `e30.${payload}.c2ln`, expirationTimestamp };
    return { claims, answer: { spec: { ...spec, expirationSeconds: grantedS }, status } };
  }
}

interface Given {
  readonly maxKept?: number;
  readonly account?: OwnAccountOutcome;
}

function accountOf(pod: typeof agentPod | undefined): OwnAccountOutcome {
  return { kind: 'ok', serviceAccount: { namespace: 'kube-system', name: 'nmi' }, pod };
}

/**
 * Both modes, each with its cache.
 * @param live uid of the live pod by name of its service account, in every namespace.
 */
function openFixture(
  live: Readonly<Record<string, string>>,
  { maxKept = 256, account = accountOf(agentPod) }: Given = {},
) {
  const clock = new HandClock();
  // Late enough that a test does not pass only because the clock is near zero.
  clock.advance(7 * hourMs);
  const api = new HandApi(clock);
  const pods = new Map(Object.entries(live));

  const livePodOf = ({ name }: ObjectName) => {
    const uid = pods.get(name);
    return uid === undefined ? undefined : { name: `pod-${uid}`, uid };
  };
  const options = { clock, isNeeded: () => true, maxKept };
  const ofPods = openCredentialCache<PodCredential>({
    ...options,
    ...openPodAssertions({ tokenClient: api, clock, livePodOf }),
  });
  const ownAccount = { get: () => Promise.resolve(account) };
  const ofNode = openCredentialCache<NodeCredential>({
    ...options,
    ...openNodeAssertions({ tokenClient: api, clock, ownAccount }),
  });
  const caches = [ofPods, ofNode];
  const given = new Map<string, ClientCredential>();
  const get = async (credential: Credential, signal = new AbortController().signal) => {
    const result = await (credential.kind === 'federated_pod'
      ? ofPods.get(credential, signal)
      : ofNode.get(credential, signal));
    if (result.ok) given.set(JSON.stringify(credential), result.clientCredential);
    return result;
  };
  /** With all requests answered. */
  const load = async (credential: Credential): Promise<ClientCredentialResult> => {
    const getting = get(credential);
    await api.landAll();
    return getting;
  };
  return {
    clock,
    api,
    pods,
    get,
    load,
    /** The assertion for that service account, with all requests answered. */
    ask: async (name?: string) => assertionOf(await load(credentialOf(name))),
    /** The client credential that was returned last. */
    latest: (credential: Credential) => given.get(JSON.stringify(credential)),
    forget: (credential: Credential, refused: ClientCredential): boolean =>
      credential.kind === 'federated_pod'
        ? ofPods.forget(credential, refused)
        : ofNode.forget(credential, refused),
    kept: () => caches.map(({ kept }) => kept),
    dropUnneeded: () => caches.forEach((cache) => cache.dropUnneeded()),
    [Symbol.dispose]: () => caches.forEach((cache) => cache[Symbol.dispose]()),
  };
}

describe('the assertion of a pod', () => {
  for (const [how, grantS, latencyMs, usedMs] of [
    ['an hour less five minutes', undefined, 0, 55 * minuteMs],
    ['half of a shorter life from the server', 360, 0, 3 * minuteMs],
    ['as long, counted from its request', undefined, 4_000, 55 * minuteMs - 4_000],
  ] as const) {
    it(`is used for ${how}, then replaced`, async () => {
      using fixture = openFixture({ a: 'u1' });
      fixture.api.grantS = grantS;
      const asking = fixture.get(credentialOf('a'));
      fixture.clock.advance(latencyMs);
      await fixture.api.landAll();
      const first = assertionOf(await asking);
      fixture.clock.advance(usedMs - 1);
      assert.equal(await fixture.ask('a'), first);
      fixture.clock.advance(1);
      assert.notEqual(await fixture.ask('a'), first);
      assert.equal(fixture.api.asked, 2);
    });
  }

  it('is bound to its pod, and separate for each namespace, service account and audience', async () => {
    using fixture = openFixture({ a: 'u1', b: 'u2' });
    for (const [account, named, namespace] of [
      ['a', audience, 'ns'],
      ['b', audience, 'ns'],
      ['a', 'api://another', 'ns'],
      ['a', audience, 'other'],
    ] as const) {
      const credential = credentialOf(account, named, namespace);
      const claims = claimsOf(assertionOf(await fixture.load(credential)));
      const { subject, audience: of, podUid } = claims;
      assert.deepEqual([subject, of], [`${namespace}/${account}`, named]);
      assert.equal(podUid, fixture.pods.get(account));
    }
    assert.equal(fixture.api.asked, 4);
  });

  it('is missing without a live pod, and dropped', async () => {
    using fixture = openFixture({ a: 'u1' });
    await fixture.ask('a');
    fixture.pods.delete('a');
    const failure = failureOf(await fixture.load(credentialOf('a')));
    assert.equal(failure.reason, 'credential_missing');
    assert.match(failure.description, /^No live pod .* service account ns\/a$/);
    assert.deepEqual([fixture.kept(), fixture.api.asked], [[0, 0], 1]);
  });

  it('of another pod stays when that of its predecessor comes later, or ends', async () => {
    using fixture = openFixture({ a: 'u1' });
    const asking = fixture.get(credentialOf('a'));
    fixture.clock.advance(2_000);
    fixture.pods.set('a', 'u2');
    const next = fixture.get(credentialOf('a'));
    await nextTurn();
    fixture.api.land(1);
    fixture.api.land(0);
    const [old, current] = (await Promise.all([asking, next])).map(assertionOf);
    assert.deepEqual([claimsOf(old!).podUid, claimsOf(current!).podUid], ['u1', 'u2']);
    fixture.clock.advance(55 * minuteMs - 1_000);
    assert.deepEqual([await fixture.ask('a'), fixture.kept()], [current, [1, 0]]);
  });

  it('leaves memory when it expires, and with dropUnneeded when its pod is deleted', async () => {
    using fixture = openFixture({ a: 'u1', b: 'u2' });
    for (const account of ['a', 'b', undefined]) await fixture.ask(account);
    fixture.pods.delete('b');
    fixture.dropUnneeded();
    assert.deepEqual(fixture.kept(), [1, 1]);
    fixture.clock.advance(hourMs);
    assert.deepEqual(fixture.kept(), [0, 0]);
    assert.deepEqual(fixture.clock.armed, []);
  });

  it('costs a request each time with a wall clock ahead, and is used again once it is right', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.clock.jumpWall(hourMs);
    const second = await fixture.ask('a');
    assert.notEqual(second, first);
    assert.notEqual(await fixture.ask('a'), second);
    assert.equal(fixture.api.asked, 3);
    fixture.clock.jumpWall(-hourMs);
    assert.equal(await fixture.ask('a'), first);
  });

  it('is requested once after the machine slept, although its monotonic clock stood still', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.api.sleep(hourMs);
    const second = await fixture.ask('a');
    assert.notEqual(second, first);
    assert.equal(await fixture.ask('a'), second);
  });
});

describe('the assertion of the node', () => {
  it("is a token of the agent's service account, bound to its pod, if it runs in one", async () => {
    for (const pod of [agentPod, undefined]) {
      using fixture = openFixture({ nmi: 'u1' }, { account: accountOf(pod) });
      const { subject, audience: named, podUid } = claimsOf(await fixture.ask());
      assert.deepEqual([subject, named], ['kube-system/nmi', audience]);
      assert.equal(podUid, pod?.uid ?? '');
      // A pod under the same account has one of its own.
      const ofPod = await fixture.load(credentialOf('nmi', audience, 'kube-system'));
      assert.equal(claimsOf(assertionOf(ofPod)).podUid, 'u1');
    }
  });

  const unavailable = { kind: 'unavailable', problem: 'NETWORK', retryAfterMs: undefined } as const;
  for (const [account, reason, says] of [
    [{ kind: 'no_service_account', username: 'me' }, 'credential_invalid', /as me, which is none/],
    [{ kind: 'forbidden', said: 'no' }, 'credential_invalid', /not read its own user name.*no/],
    [unavailable, 'upstream_down', /NETWORK/],
  ] as const) {
    it(`needs a service account of the agent, which is none if that is ${account.kind}`, async () => {
      using fixture = openFixture({}, { account });
      const failure = failureOf(await fixture.load(credentialOf(undefined)));
      assert.equal(failure.reason, reason);
      assert.match(failure.description, says);
      assert.deepEqual([fixture.api.asked, fixture.kept()], [0, [0, 0]]);
    });
  }
});

describe('an assertion that the API server does not issue', () => {
  const missing = /service account ns\/a or pod ns\/pod-u1 does not exist/;
  const forbidden =
    /create serviceaccounts\/token: set rbac\.allowFederation=true of the chart, and if rbac\.federationNamespaces is set, add ns\. .* API server: no such thing\?$/;
  const refused = /refuses a token of service account ns\/a for audience api:/;
  const replaced = /^pod ns\/pod-u1 has just been replaced$/;
  const down = /does not return a token of service account ns\/a \(status 500\)$/;
  for (const [status, code, reason, text] of [
    [404, 'NOT_FOUND', 'credential_missing', missing],
    [403, 'FORBIDDEN', 'credential_invalid', forbidden],
    [422, 'SERVER', 'credential_invalid', refused],
    [400, 'SERVER', 'upstream_down', replaced],
    [409, 'SERVER', 'upstream_down', replaced],
    [500, 'SERVER', 'upstream_down', down],
    [undefined, 'TIMEOUT', 'upstream_down', /\(TIMEOUT\)$/],
    [undefined, 'NETWORK', 'upstream_down', /\(NETWORK\)$/],
    [401, 'UNAUTHORIZED', 'upstream_down', /\(UNAUTHORIZED\)$/],
  ] as const) {
    it(`with ${status ?? code} means ${reason}, and is requested again`, async () => {
      using fixture = openFixture({ a: 'u1' });
      fixture.api.failures.push(new KubeError(code, '"no" such \'thing\'\u0000', { status }));
      const failure = failureOf(await fixture.load(credentialOf('a')));
      assert.equal(failure.reason, reason);
      assert.match(failure.description, text);
      assert.ok(failure.cooldownMs > 0 && failure.cooldownMs <= 5_000);
      assert.deepEqual(fixture.kept(), [0, 0]);
      await fixture.ask('a');
    });
  }

  it('is not requested for as long as the server requires, within limits', async () => {
    using fixture = openFixture({ a: 'u1' });
    for (const [retryAfterMs, retryAfterS] of [
      [7_000, 7],
      [1, 1],
      [3_600_000, 10],
    ] as const) {
      const busy = new KubeError('THROTTLED', 'busy', { status: 429, retryAfterMs });
      fixture.api.failures.push(busy);
      const failure = failureOf(await fixture.load(credentialOf('a')));
      assert.deepEqual([failure.reason, failure.retryAfterS], ['upstream_down', retryAfterS]);
      assert.ok(failure.cooldownMs >= Math.min(retryAfterMs, 10_000));
    }
  });

  it('is not requested under a name that no service account can have', async () => {
    using fixture = openFixture({ '../a': 'u9' });
    const failure = failureOf(await fixture.load(credentialOf('../a')));
    assert.deepEqual([failure.reason, fixture.api.asked], ['credential_missing', 0]);
  });
});

// ---- against a model of what must never happen ----------------------------------------------
// Requests end in any order or not at all, pods come and go, a server grants short lives, and a
// wall clock steps or a node sleeps: no single clock shows both.

interface Subject {
  /** Undefined: the account of the node. */
  readonly account: string | undefined;
  readonly audience: string;
}

type Step =
  | ({ readonly kind: 'ask'; readonly givesUp: boolean } & Subject)
  | { readonly kind: 'land'; readonly at: number; readonly ok: boolean }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'upset'; readonly isForward: boolean }
  | { readonly kind: 'grant'; readonly seconds: number | undefined }
  | { readonly kind: 'pod'; readonly account: string; readonly uid: string | undefined }
  | ({ readonly kind: 'forget' } & Subject)
  | { readonly kind: 'drop' };

function step<K extends Step['kind'], T extends object>(
  weight: number,
  kind: K,
  fields: { readonly [P in keyof T]: fc.Arbitrary<T[P]> },
): fc.WeightedArbitrary<{ readonly kind: K } & T> {
  return { weight, arbitrary: fc.record(fields).map((made) => ({ kind, ...(made as T) })) };
}

const anySubject = {
  account: fc.constantFrom('a', 'b', undefined),
  audience: fc.constantFrom('api://x', 'api://y'),
};
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  step(6, 'ask', { ...anySubject, givesUp: fc.boolean() }),
  step(6, 'land', { at: fc.nat(5), ok: fc.constantFrom(true, true, true, false) }),
  step(3, 'pass', {
    ms: fc.constantFrom(1, 2_000, minuteMs, 5 * minuteMs, 30 * minuteMs, hourMs),
  }),
  step(1, 'upset', { isForward: fc.boolean() }),
  step(1, 'grant', { seconds: fc.constantFrom(undefined, 20, 600, 7_200) }),
  step(1, 'pod', {
    account: fc.constantFrom('a', 'b'),
    uid: fc.constantFrom('u1', 'u2', 'u3', undefined),
  }),
  step(1, 'forget', anySubject),
  step(1, 'drop', {}),
);

async function runSteps(steps: readonly Step[], isSleepy: boolean): Promise<void> {
  const maxKept = 4;
  using fixture = openFixture({ a: 'u1', b: 'u2' }, { maxKept });
  const { api, clock, pods } = fixture;
  const asked: Promise<void>[] = [];
  let waiting = 0;
  /** An assertion that the wall clock made useless for a while is older than those loaded meanwhile, and used again. */
  let hasJumped = false;
  /** By subject: the serial number after its last refused one. */
  const forgottenBefore = new Map<string, number>();
  const subjectOf = ({ account, audience: named }: Subject) => {
    const uid = account === undefined ? agentPod.uid : pods.get(account);
    const credential = credentialOf(account, named);
    return { uid, credential, key: JSON.stringify([credential, uid]) };
  };

  const ask = async (given: Extract<Step, { kind: 'ask' }>) => {
    const stop = new AbortController();
    const { uid, credential, key } = subjectOf(given);
    const { account, audience: named, givesUp } = given;
    const firstSerial = forgottenBefore.get(key) ?? 0;
    const subject = account === undefined ? 'kube-system/nmi' : `ns/${account}`;
    waiting++;
    const done = fixture.get(credential, stop.signal).then(
      (result) => {
        if (!result.ok) {
          if (uid === undefined) assert.equal(result.failure.reason, 'credential_missing');
          return;
        }
        const claims = claimsOf(assertionOf(result));
        assert.deepEqual({ ...claims, subject, audience: named, podUid: uid }, claims);
        assert.ok(claims.expiresAtUpMs > api.upMs, 'the assertion has expired');
        assert.ok(claims.serial >= firstSerial, 'the assertion had been dropped');
      },
      (error: unknown) => {
        assert.equal(error, stop.signal.reason);
        assert.ok(givesUp);
      },
    );
    asked.push(done.finally(() => waiting--));
    if (givesUp) stop.abort(new Error('given up'));
    await nextTurn();
  };

  const forget = (given: Subject): void => {
    const { uid, credential, key } = subjectOf(given);
    const refused = fixture.latest(credential);
    if (refused === undefined) return;
    const isWorthRetry = fixture.forget(credential, refused);
    const { serial, podUid } = claimsOf(assertionOf({ ok: true, clientCredential: refused }));
    if (podUid === uid && isWorthRetry && !hasJumped) forgottenBefore.set(key, serial + 1);
  };

  const upset = (isForward: boolean): void => {
    if (isSleepy && api.open.length === 0) api.sleep(hourMs);
    if (isSleepy) return;
    clock.jumpWall(isForward ? hourMs : -hourMs);
    hasJumped = true;
  };

  for (const each of steps) {
    if (each.kind === 'ask') await ask(each);
    if (each.kind === 'land' && api.open.length > 0) {
      if (!each.ok) api.failures.push(new KubeError('SERVER', 'down', { status: 503 }));
      api.land(each.at % api.open.length);
      await nextTurn();
    }
    if (each.kind === 'pass') clock.advance(each.ms);
    if (each.kind === 'upset') upset(each.isForward);
    if (each.kind === 'grant') api.grantS = each.seconds;
    if (each.kind === 'pod') {
      if (each.uid === undefined) pods.delete(each.account);
      else pods.set(each.account, `${each.account}-${each.uid}`);
    }
    if (each.kind === 'forget') forget(each);
    if (each.kind === 'drop') fixture.dropUnneeded();
    await nextTurn();
    const open = api.open.map(({ what }) => what);
    assert.equal(new Set(open).size, open.length, 'two equal requests at a time');
    assert.ok(Math.max(...fixture.kept()) <= maxKept);
    assert.ok(api.open.length > 0 || waiting === 0, 'a waiter without a request');
  }

  clock.advance(minuteMs);
  await Promise.all(asked);
  fixture[Symbol.dispose]();
  assert.deepEqual(fixture.kept(), [0, 0]);
  assert.deepEqual(clock.armed, []);
}

describe('any events in any order', () => {
  it('leave an assertion valid, for the pod and account of the request, and requested once', async () => {
    const anySteps = fc.array(anyStep, { maxLength: 80, size: 'max' });
    await fc.assert(fc.asyncProperty(anySteps, fc.boolean(), runSteps), { numRuns: 300 });
  });
});
