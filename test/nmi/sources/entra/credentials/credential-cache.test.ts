import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openFakeKube, type FakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import type { ObjectName } from '../../../../../src/cache/index/object-name.ts';
import {
  createSecretReader,
  type SecretReader,
  type SecretResult,
} from '../../../../../src/nmi/kube/accounts/secrets.ts';
import { openCredentialCache } from '../../../../../src/nmi/sources/entra/credentials/credential-cache.ts';
import type {
  ClientCredential,
  ClientCredentialResult,
} from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import { loaderOf } from '../../../../../src/nmi/sources/entra/credentials/secret-credential.ts';
import { makeClientSecret } from '../../../../../src/nmi/sources/entra/credentials/secret.ts';
import { HandClock } from '../../../../support/hand-clock.ts';
import { clientOf } from '../../../../unit/nmi/kube/kube-test-bed.ts';

const never = new AbortController().signal;
const name = { namespace: 'default', name: 'sp' };

function apply(fake: FakeKube, data: Readonly<Record<string, string>>): void {
  fake.apply({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: name,
    data: Object.fromEntries(
      Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')]),
    ),
  });
}

function secretIn(result: ClientCredentialResult): string {
  assert.ok(result.ok && 'clientSecret' in result.clientCredential, JSON.stringify(result));
  return result.clientCredential.clientSecret;
}

/** Answers each read when the test requests it. */
function heldReader(): Pick<SecretReader, 'read'> & {
  readonly asked: string[];
  answer(result: SecretResult): void;
} {
  const asked: string[] = [];
  const waiting: ((result: SecretResult) => void)[] = [];
  return {
    asked,
    answer(result) {
      waiting.shift()?.(result);
    },
    read: (secret) => {
      asked.push(`${secret.namespace}/${secret.name}`);
      const { promise, resolve } = Promise.withResolvers<SecretResult>();
      waiting.push(resolve);
      return promise;
    },
  };
}

function foundIn(text: string): SecretResult {
  return { kind: 'found', data: new Map([['clientSecret', Buffer.from(text)]]) };
}

interface SecretOptions {
  readonly reader: Pick<SecretReader, 'read'>;
  readonly clock: HandClock;
  readonly maxKept?: number;
  readonly isNeeded?: (secret: ObjectName) => boolean;
}

function openSecretCredentials({
  reader,
  clock,
  maxKept = 1_000,
  isNeeded = () => true,
}: SecretOptions) {
  return openCredentialCache({
    ...loaderOf(reader, makeClientSecret),
    isNeeded: ({ secret }) => isNeeded(secret),
    clock,
    maxKept,
  });
}

describe('client credentials by client secret', () => {
  it('are read once, cached for a minute, and then read again', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const clock = new HandClock();
    using clientCredentials = openSecretCredentials({ reader: createSecretReader(client), clock });
    apply(fake, { clientSecret: 'one' });
    const firsts = await Promise.all(
      Array.from({ length: 20 }, () => clientCredentials.get({ secret: name }, never)),
    );
    assert.deepEqual(new Set(firsts.map(secretIn)), new Set(['one']));
    apply(fake, { clientSecret: 'two' });
    clock.advance(59_999);
    assert.equal(secretIn(await clientCredentials.get({ secret: name }, never)), 'one');
    assert.equal(fake.requests.length, 1);
    clock.advance(1);
    assert.deepEqual(clock.armed, []);
    assert.equal(secretIn(await clientCredentials.get({ secret: name }, never)), 'two');
    assert.equal(fake.requests.length, 2);
  });

  it('that were refused are dropped, so that a rotated one is seen at once', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    using clientCredentials = openSecretCredentials({
      reader: createSecretReader(client),
      clock: new HandClock(),
    });
    const get = async (): Promise<ClientCredential> => {
      const result = await clientCredentials.get({ secret: name }, never);
      assert.ok(result.ok);
      return result.clientCredential;
    };
    apply(fake, { clientSecret: 'one' });
    const first = await get();
    assert.equal(
      clientCredentials.forget({ secret: name }, first),
      false,
      'another read returns the same',
    );
    assert.deepEqual(await get(), { clientSecret: 'one' });
    apply(fake, { clientSecret: 'two' });
    const [one, other] = [await get(), await get()];
    assert.deepEqual(one, { clientSecret: 'one' });
    // Two fetches run with the old one: both are worth another try, with one read.
    assert.equal(clientCredentials.forget({ secret: name }, one), true);
    const reading = get();
    assert.equal(clientCredentials.forget({ secret: name }, other), true);
    const next = await reading;
    assert.deepEqual(next, { clientSecret: 'two' });
    assert.equal(clientCredentials.forget({ secret: name }, other), true, 'there is a newer one');
    assert.equal(await get(), next, 'which stays');
    assert.equal(fake.requests.length, 3);
  });

  it('fail like the Secret does, for a moment', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const clock = new HandClock();
    using clientCredentials = openSecretCredentials({ reader: createSecretReader(client), clock });
    const failure = async (): Promise<string> => {
      const result = await clientCredentials.get({ secret: name }, never);
      return result.ok ? 'none' : `${result.failure.reason} ${result.failure.retryAfterS ?? ''}`;
    };
    assert.equal(await failure(), 'credential_missing ');
    apply(fake, { clientSecret: 'one' });
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

  it('of a name that no Secret can have are refused without a request', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    using clientCredentials = openSecretCredentials({
      reader: createSecretReader(client),
      clock: new HandClock(),
    });
    const result = await clientCredentials.get(
      { secret: { namespace: 'default', name: '../pods/x' } },
      never,
    );
    assert.ok(!result.ok && result.failure.reason === 'credential_invalid');
    assert.equal(fake.requests.length, 0);
  });

  it('are dropped when no identity needs them, also during a read', async () => {
    const reader = heldReader();
    const clock = new HandClock();
    let isNeeded = true;
    using clientCredentials = openSecretCredentials({
      reader,
      clock,
      isNeeded: (secret) => isNeeded || secret.name === 'other',
    });
    const get = async (secret: string): Promise<string> => {
      const got = clientCredentials.get({ secret: { namespace: 'default', name: secret } }, never);
      reader.answer(foundIn(secret));
      return secretIn(await got);
    };
    await get('sp');
    await get('other');
    const late = clientCredentials.get({ secret: { namespace: 'default', name: 'late' } }, never);
    isNeeded = false;
    clientCredentials.dropUnneeded();
    reader.answer(foundIn('late'));
    assert.equal(secretIn(await late), 'late', 'callers from when it was needed');
    assert.equal(clock.armed.length, 1);
    assert.equal(reader.asked.length, 3);
    for (const secret of ['sp', 'late', 'other']) await get(secret);
    assert.deepEqual(
      reader.asked.slice(3),
      ['default/sp', 'default/late'],
      'the other one is still cached',
    );
  });

  it('are dropped by the next read, and newer than a refused one only if there is one', async () => {
    const clock = new HandClock();
    let loads = 0;
    const needed = new Set(['a', 'b']);
    using cache = openCredentialCache<string>({
      keyOf: (credential) => credential,
      load: () => {
        const clientCredential = { clientSecret: String(++loads) };
        return Promise.resolve({ result: { ok: true, clientCredential }, keepMs: 1_000 });
      },
      isNeeded: (credential) => needed.has(credential),
      clock,
      maxKept: 10,
    });
    const get = async (credential: string): Promise<ClientCredential> => {
      const result = await cache.get(credential, never);
      assert.ok(result.ok);
      return result.clientCredential;
    };
    const first = await get('a');
    await assert.rejects(cache.get('a', AbortSignal.abort()), { name: 'AbortError' });
    needed.delete('a');
    await get('b');
    assert.equal(cache.kept, 1);
    assert.equal(cache.forget('a', first), false, 'no other is known');
    needed.add('a');
    const next = await get('a');
    assert.equal(cache.forget('a', first), true);
    assert.equal(await get('a'), next, 'which is kept');
  });

  it('are returned to the remaining waiters when one of them leaves', async () => {
    const reader = heldReader();
    using clientCredentials = openSecretCredentials({ reader, clock: new HandClock() });
    const leaving = new AbortController();
    const left = clientCredentials.get({ secret: name }, leaving.signal);
    const stays = clientCredentials.get({ secret: name }, never);
    leaving.abort(new Error('enough'));
    await assert.rejects(left, /^Error: enough$/);
    await assert.rejects(
      clientCredentials.get({ secret: name }, leaving.signal),
      /^Error: enough$/,
    );
    reader.answer(foundIn('s'));
    assert.equal(secretIn(await stays), 's');
    assert.equal(reader.asked.length, 1);
  });

  it('are loaded again from the end of their validity on', async () => {
    const clock = new HandClock();
    const endWallMs = clock.wallMs() + 1_000;
    let loads = 0;
    using cache = openCredentialCache<string>({
      keyOf: (credential) => credential,
      load: () => {
        loads += 1;
        const result = { ok: true, clientCredential: { clientSecret: 's' } } as const;
        return Promise.resolve({ result, keepMs: 60_000, usableUntilWallMs: endWallMs });
      },
      isNeeded: () => true,
      clock,
      maxKept: 10,
    });
    await cache.get('a', never);
    clock.advance(999);
    await cache.get('a', never);
    assert.deepEqual([loads, cache.kept], [1, 1]);
    clock.advance(1);
    await cache.get('a', never);
    await cache.get('b', never);
    assert.deepEqual([loads, cache.kept], [3, 1], 'what is not valid any more takes no place');
  });

  it('are cached for a limited number of Secrets, and for none after the end', async () => {
    const reader: Pick<SecretReader, 'read'> & { reads: number } = {
      reads: 0,
      read() {
        this.reads += 1;
        return Promise.resolve(foundIn('s'));
      },
    };
    const clock = new HandClock();
    const clientCredentials = openSecretCredentials({ reader, clock, maxKept: 3 });
    const get = (index: number): Promise<ClientCredentialResult> =>
      clientCredentials.get({ secret: { namespace: 'default', name: `sp-${index}` } }, never);
    for (let index = 0; index < 10; index += 1) await get(index);
    for (const index of [7, 8, 9]) await get(index);
    assert.equal(reader.reads, 10);
    await get(6);
    assert.equal(reader.reads, 11);
    clientCredentials[Symbol.dispose]();
    assert.deepEqual(clock.armed, []);
    await get(9);
    await get(9);
    assert.equal(reader.reads, 13);
    assert.deepEqual(clock.armed, []);
  });
});
