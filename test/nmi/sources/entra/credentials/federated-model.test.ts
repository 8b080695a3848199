/**
 * Federated client credentials against a model of what must never happen: requests that end in any
 * order or not at all, pods that come and go, a server that grants short lives, and a wall clock
 * that steps or a node that sleeps: no single clock shows both.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { KubeError } from '../../../../../src/nmi/kube/api/kube-error.ts';
import type { ClientCredentialResult } from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import {
  agentPod,
  assertionOf,
  claimsOf,
  hourMs,
  minuteMs,
  nodeIdentity,
  openFixture,
  podIdentity,
} from '../federated-fixture.ts';

const audiences = ['api://x', 'api://y'] as const;
const maxKept = 4;

type Step =
  | {
      readonly kind: 'ask';
      /** Undefined: the account of the node. */
      readonly account: string | undefined;
      readonly audience: string;
      readonly givesUp: boolean;
    }
  | { readonly kind: 'land'; readonly at: number; readonly ok: boolean }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'upset'; readonly isForward: boolean }
  | { readonly kind: 'grant'; readonly seconds: number | undefined }
  | { readonly kind: 'pod'; readonly account: string; readonly uid: string | undefined }
  | { readonly kind: 'forget'; readonly account: string | undefined; readonly audience: string }
  | { readonly kind: 'drop' };

const anyAccount = fc.constantFrom('a', 'b');
const anySubject = {
  account: fc.constantFrom('a', 'b', undefined),
  audience: fc.constantFrom(...audiences),
};

function step<K extends Step['kind'], T extends object>(
  kind: K,
  fields: { readonly [P in keyof T]: fc.Arbitrary<T[P]> },
): fc.Arbitrary<{ readonly kind: K } & T> {
  return fc.record(fields).map((made) => ({ kind, ...(made as T) }));
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: step('ask', { ...anySubject, givesUp: fc.boolean() }) },
  {
    weight: 6,
    arbitrary: step('land', { at: fc.nat(5), ok: fc.constantFrom(true, true, true, false) }),
  },
  {
    weight: 3,
    arbitrary: step('pass', {
      ms: fc.constantFrom(1, 2_000, minuteMs, 5 * minuteMs, 30 * minuteMs, hourMs),
    }),
  },
  { weight: 1, arbitrary: step('upset', { isForward: fc.boolean() }) },
  { weight: 1, arbitrary: step('grant', { seconds: fc.constantFrom(undefined, 20, 600, 7_200) }) },
  {
    weight: 1,
    arbitrary: step('pod', {
      account: anyAccount,
      uid: fc.constantFrom('u1', 'u2', 'u3', undefined),
    }),
  },
  { weight: 1, arbitrary: step('forget', anySubject) },
  { weight: 1, arbitrary: fc.constant({ kind: 'drop' as const }) },
);

async function runSteps(steps: readonly Step[], isSleepy: boolean): Promise<void> {
  using fixture = openFixture({ a: 'u1', b: 'u2' }, { maxKept });
  const { api, clock, pods, clientCredentials } = fixture;
  const asked: Promise<void>[] = [];
  let waiting = 0;
  /** An assertion that the wall clock made useless for a while is older than those loaded meanwhile, and used again. */
  let hasJumped = false;
  /** By subject: the serial number after its last refused one. */
  const forgottenBefore = new Map<string, number>();

  const check = (
    account: string | undefined,
    audience: string,
    uid: string | undefined,
    firstSerial: number,
    result: ClientCredentialResult,
  ): void => {
    if (!result.ok) {
      if (uid === undefined) assert.equal(result.failure.reason, 'credential_missing');
      return;
    }
    const claims = claimsOf(assertionOf(result));
    const expected =
      account === undefined
        ? { subject: 'kube-system/nmi', audience, podUid: agentPod.uid }
        : { subject: `ns/${account}`, audience, podUid: uid };
    assert.deepEqual({ ...claims, ...expected }, claims);
    assert.ok(claims.expiresAtUpMs > api.upMs, 'the assertion has expired');
    assert.ok(claims.serial >= firstSerial, 'the assertion had been dropped');
  };

  const ask = async ({ account, audience, givesUp }: Extract<Step, { kind: 'ask' }>) => {
    const stop = new AbortController();
    const uid = account === undefined ? agentPod.uid : pods.get(account);
    const firstSerial = forgottenBefore.get(JSON.stringify([account, audience, uid])) ?? 0;
    const getting =
      account === undefined
        ? clientCredentials.node.get(nodeIdentity(audience), stop.signal)
        : clientCredentials.pod.get(podIdentity(account, { audience }), stop.signal);
    waiting++;
    const done = getting.then(
      (result) => {
        check(account, audience, uid, firstSerial, result);
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

  const land = async (at: number, ok: boolean): Promise<void> => {
    if (api.open.length === 0) return;
    if (!ok) api.failNext(new KubeError('SERVER', 'down', { status: 503 }));
    api.land(at % api.open.length);
    await nextTurn();
  };

  for (const each of steps) {
    if (each.kind === 'ask') {
      await ask(each);
    } else if (each.kind === 'land') {
      await land(each.at, each.ok);
    } else if (each.kind === 'pass') {
      clock.advance(each.ms);
    } else if (each.kind === 'upset' && isSleepy) {
      if (api.open.length === 0) api.sleep(hourMs);
    } else if (each.kind === 'upset') {
      clock.jumpWall(each.isForward ? hourMs : -hourMs);
      hasJumped = true;
    } else if (each.kind === 'grant') {
      api.grantS = each.seconds;
    } else if (each.kind === 'pod') {
      if (each.uid === undefined) pods.delete(each.account);
      else pods.set(each.account, `${each.account}-${each.uid}`);
    } else if (each.kind === 'forget') {
      const { account, audience } = each;
      const uid = account === undefined ? agentPod.uid : pods.get(account);
      const refused =
        account === undefined
          ? clientCredentials.node.latest(nodeIdentity(audience))
          : clientCredentials.pod.latest(podIdentity(account, { audience }));
      if (refused !== undefined) {
        const isWorthRetry =
          account === undefined
            ? clientCredentials.node.forget(nodeIdentity(audience))
            : clientCredentials.pod.forget(podIdentity(account, { audience }));
        const { serial, podUid } = claimsOf(assertionOf({ ok: true, clientCredential: refused }));
        if (podUid === uid && isWorthRetry && !hasJumped) {
          forgottenBefore.set(JSON.stringify([account, audience, uid]), serial + 1);
        }
      }
    } else {
      clientCredentials.dropUnneeded();
    }
    await nextTurn();
    const open = api.open.map(({ what }) => what);
    assert.equal(new Set(open).size, open.length, 'two equal requests at a time');
    assert.ok(clientCredentials.mostKept <= maxKept);
    assert.ok(api.open.length > 0 || waiting === 0, 'a waiter without a request');
  }

  clock.advance(minuteMs);
  await Promise.all(asked);
  fixture[Symbol.dispose]();
  assert.equal(clientCredentials.kept, 0);
  assert.deepEqual(clock.armed, []);
}

describe('any events in any order', () => {
  it('leave an assertion valid, for the pod and account of the request, and requested once', async () => {
    const anySteps = fc.array(anyStep, { maxLength: 80, size: 'max' });
    await fc.assert(fc.asyncProperty(anySteps, fc.boolean(), runSteps), { numRuns: 300 });
  });
});
