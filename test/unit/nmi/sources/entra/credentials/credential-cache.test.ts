import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openFakeKube } from '../../../../../../lab/fakes/kube/fake-kube.ts';
import { createSecret } from '../../../../../../lab/fakes/kube/manifests.ts';
import { createSecretReader } from '../../../../../../src/nmi/kube/accounts/secrets.ts';
import { openCredentialCache } from '../../../../../../src/nmi/sources/entra/credentials/credential-cache.ts';
import type { ClientCredentialResult } from '../../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import { loaderOf } from '../../../../../../src/nmi/sources/entra/credentials/secret-credential.ts';
import { makeClientSecret } from '../../../../../../src/nmi/sources/entra/credentials/secret.ts';
import { HandClock } from '../../../../../support/hand-clock.ts';
import { clientOf } from '../../../kube/kube-test-bed.ts';

const never = new AbortController().signal;
const name = { namespace: 'default', name: 'sp' };

function secretIn(result: ClientCredentialResult): string {
  assert.ok(result.ok && 'clientSecret' in result.clientCredential, JSON.stringify(result));
  return result.clientCredential.clientSecret;
}

/** Client secrets read from an API server. */
async function openByKube() {
  await using stack = new AsyncDisposableStack();
  const fake = stack.use(await openFakeKube());
  const client = stack.use(await clientOf(fake));
  const clock = new HandClock();
  const cache = stack.use(
    openCredentialCache({
      ...loaderOf(createSecretReader(client), makeClientSecret),
      ...{ clock, isNeeded: () => true, maxKept: 1_000 },
    }),
  );
  const stop = stack.move();
  return {
    fake,
    clock,
    cache,
    apply: (clientSecret: string) => fake.apply(createSecret({ ...name, data: { clientSecret } })),
    get: (secret = name) => cache.get({ secret }, never),
    [Symbol.asyncDispose]: () => stop.disposeAsync(),
  };
}

/** Each load returns its number, at once or when the test lands it. */
function openByHand({ maxKept = 10, isHeld = false, validMs = Infinity } = {}) {
  const clock = new HandClock();
  const usableUntilWallMs = clock.wallMs() + validMs;
  const unneeded = new Set<string>();
  const loaded: string[] = [];
  const held: (() => void)[] = [];
  const cache = openCredentialCache<string>({
    keyOf: (credential) => credential,
    load: async (credential) => {
      const clientCredential = { clientSecret: String(loaded.push(credential)) };
      if (isHeld) await new Promise<void>((resolve) => held.push(resolve));
      return { result: { ok: true, clientCredential }, keepMs: 60_000, usableUntilWallMs };
    },
    isNeeded: (credential) => !unneeded.has(credential),
    clock,
    maxKept,
  });
  return {
    clock,
    unneeded,
    loaded,
    cache,
    land: () => held.splice(0).forEach((resolve) => resolve()),
    get: async (credential: string) => {
      const result = await cache.get(credential, never);
      assert.ok(result.ok);
      return result.clientCredential;
    },
  };
}

describe('client credentials by client secret', () => {
  it('are read once, cached for a minute, and then read again', async () => {
    await using testBed = await openByKube();
    const { fake, clock, apply, get } = testBed;
    apply('one');
    const firsts = await Promise.all(Array.from({ length: 20 }, () => get()));
    assert.deepEqual(new Set(firsts.map(secretIn)), new Set(['one']));
    apply('two');
    clock.advance(59_999);
    assert.equal(secretIn(await get()), 'one');
    assert.equal(fake.requests.length, 1);
    clock.advance(1);
    assert.deepEqual(clock.armed, []);
    assert.equal(secretIn(await get()), 'two');
    assert.equal(fake.requests.length, 2);
  });

  it('that were refused are dropped, so that a rotated one is seen at once', async () => {
    await using testBed = await openByKube();
    const { fake, cache, apply } = testBed;
    const get = async () => {
      const result = await testBed.get();
      assert.ok(result.ok);
      return result.clientCredential;
    };
    apply('one');
    const first = await get();
    assert.equal(cache.forget({ secret: name }, first), false, 'another read returns the same');
    assert.deepEqual(await get(), { clientSecret: 'one' });
    apply('two');
    const [one, other] = [await get(), await get()];
    assert.deepEqual(one, { clientSecret: 'one' });
    // Two fetches run with the old one: both are worth another try, with one read.
    assert.equal(cache.forget({ secret: name }, one), true);
    const reading = get();
    assert.equal(cache.forget({ secret: name }, other), true);
    const next = await reading;
    assert.deepEqual(next, { clientSecret: 'two' });
    assert.equal(cache.forget({ secret: name }, other), true, 'there is a newer one');
    assert.equal(await get(), next, 'which stays');
    assert.equal(fake.requests.length, 3);
  });

  it('fail like the Secret does, for a moment', async () => {
    await using testBed = await openByKube();
    const { fake, clock, apply, get } = testBed;
    const failure = async (secret = name): Promise<string> => {
      const result = await get(secret);
      return result.ok ? 'none' : `${result.failure.reason} ${result.failure.retryAfterS ?? ''}`;
    };
    assert.equal(await failure({ ...name, name: '../pods/x' }), 'credential_invalid ');
    assert.equal(fake.requests.length, 0, 'no Secret can have this name');
    assert.equal(await failure(), 'credential_missing ');
    apply('one');
    assert.equal(await failure(), 'credential_missing ');
    assert.equal(fake.requests.length, 1);
    clock.advance(5_000);
    fake.faults.failNext(1, 403);
    assert.equal(await failure(), 'credential_invalid ');
    clock.advance(5_000);
    fake.faults.failNext(1, 429, { retryAfterSec: 7 });
    assert.equal(await failure(), 'upstream_down 7');
    clock.advance(1_000);
    assert.equal(await failure(), 'none');
  });
});

describe('the cache of client credentials', () => {
  it('drops what no identity needs, also during its load', async () => {
    const { clock, cache, unneeded, loaded, land, get } = openByHand({ isHeld: true });
    const both = [get('a'), get('other')];
    land();
    await Promise.all(both);
    const late = get('late');
    for (const credential of ['a', 'late']) unneeded.add(credential);
    cache.dropUnneeded();
    land();
    assert.deepEqual(await late, { clientSecret: '3' }, 'for callers from when it was needed');
    assert.deepEqual([clock.armed.length, cache.kept], [1, 1]);
    for (const credential of ['a', 'late', 'other']) {
      const again = get(credential);
      land();
      await again;
    }
    assert.deepEqual(loaded.slice(3), ['a', 'late'], 'the other one is still cached');
  });

  it('drops it with the next load, and knows a newer one than a refused only if there is one', async () => {
    const { cache, unneeded, get } = openByHand();
    const first = await get('a');
    await assert.rejects(cache.get('a', AbortSignal.abort()), { name: 'AbortError' });
    unneeded.add('a');
    await get('b');
    assert.equal(cache.kept, 1);
    assert.equal(cache.forget('a', first), false, 'no other is known');
    unneeded.delete('a');
    const next = await get('a');
    assert.equal(cache.forget('a', first), true);
    assert.equal(await get('a'), next, 'which is kept');
  });

  it('returns a load to the remaining waiters when one of them leaves', async () => {
    const { cache, loaded, land, get } = openByHand({ isHeld: true });
    const leaving = new AbortController();
    const left = cache.get('a', leaving.signal);
    const stays = get('a');
    leaving.abort(new Error('enough'));
    await assert.rejects(left, /^Error: enough$/);
    await assert.rejects(cache.get('a', leaving.signal), /^Error: enough$/);
    land();
    assert.deepEqual(await stays, { clientSecret: '1' });
    assert.deepEqual(loaded, ['a']);
  });

  it('loads again what is not valid any more, which takes no place', async () => {
    const { clock, cache, loaded, get } = openByHand({ validMs: 1_000 });
    await get('a');
    clock.advance(999);
    await get('a');
    assert.deepEqual([loaded.length, cache.kept], [1, 1]);
    clock.advance(1);
    for (const credential of ['a', 'b']) await get(credential);
    assert.deepEqual([loaded.length, cache.kept], [3, 1]);
  });

  it('keeps a limited number, and nothing after its end', async () => {
    const { clock, cache, loaded, get } = openByHand({ maxKept: 3 });
    for (const credential of '0123456789789') await get(credential);
    assert.equal(loaded.length, 10);
    await get('6');
    assert.equal(loaded.length, 11);
    cache[Symbol.dispose]();
    for (let round = 0; round < 2; round++) await get('9');
    assert.equal(loaded.length, 13);
    assert.deepEqual(clock.armed, []);
  });
});
