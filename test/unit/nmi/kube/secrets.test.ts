import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import type { KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { createSecretReader } from '../../../../src/nmi/kube/accounts/secrets.ts';
import { clientOf } from './kube-test-bed.ts';

const secret = { namespace: 'default', name: 'sp.demo' };

function apply(fake: FakeKube, data: unknown): void {
  fake.apply({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: secret,
    type: 'Opaque',
    ...(data === undefined ? {} : { data }),
  });
}

/** A client that answers every path with this, and records the paths. */
function answering(
  body: unknown,
): KubeClient & { readonly paths: string[]; readonly accepted: (string | undefined)[] } {
  const paths: string[] = [];
  const accepted: (string | undefined)[] = [];
  const unexpected = (): never => {
    throw new Error('not to be called');
  };
  return {
    paths,
    accepted,
    getJson: (path, options) => {
      paths.push(path);
      accepted.push(options?.accept);
      return Promise.resolve(body);
    },
    postJson: unexpected,
    server: unexpected,
    as: unexpected,
    patchJson: unexpected,
    watch: unexpected,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

describe('a Secret', () => {
  it('is found with its entries decoded', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const bytes = Buffer.from([0, 255, 10, 13]);
    apply(fake, { text: 'aMOpbGxv', bytes: bytes.toString('base64'), empty: '' });
    const result = await createSecretReader(client).read(secret);
    assert.ok(result.kind === 'found');
    assert.deepEqual(Object.fromEntries(result.data), {
      text: Buffer.from('héllo'),
      bytes,
      empty: Buffer.alloc(0),
    });
    assert.deepEqual(
      fake.requests.map(({ method, url }) => `${method} ${url}`),
      ['GET /api/v1/namespaces/default/secrets/sp.demo'],
    );
  });

  it('is checked without being read: it exists, is missing, or may not be read', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const reader = createSecretReader(client, 200);
    const kind = async (of = secret) => (await reader.check(of)).kind;
    assert.equal(await kind(), 'missing');
    apply(fake, { text: '' });
    assert.deepEqual(await reader.check(secret), { kind: 'readable' });
    assert.equal(await kind({ ...secret, name: '../x' }), 'misnamed');
    fake.faults.failNext(1, 403);
    assert.equal(await kind(), 'forbidden');
    fake.faults.failNext(1, 500);
    assert.equal(await kind(), 'unavailable');
    fake.delete({ kind: 'Secret', ...secret });
    assert.equal(await kind(), 'missing');
    await fake[Symbol.asyncDispose]();
    assert.equal(await kind(), 'unavailable', 'not reported by the server');
  });

  it('is requested without its data when only its existence matters', async () => {
    const client = answering({});
    assert.equal((await createSecretReader(client).check(secret)).kind, 'readable');
    assert.match(client.accepted[0] ?? '', /as=PartialObjectMetadata/);
  });

  it('without data is found empty', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    apply(fake, undefined);
    const result = await createSecretReader(client).read(secret);
    assert.ok(result.kind === 'found' && result.data.size === 0);
  });

  it('that does not exist is missing', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    assert.deepEqual(await createSecretReader(client).read(secret), {
      kind: 'missing',
      problem: 'Secret default/sp.demo does not exist',
    });
  });

  it('that may not be read is reported with the required rule', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.faults.failNext(1, 403);
    const result = await createSecretReader(client).read(secret);
    assert.ok(result.kind === 'forbidden');
    assert.match(result.problem, /default\/sp\.demo.*resources \["secrets"\], verbs \["get"\]/);
  });

  it('is unavailable, for as long as the server requires, on every other status', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    for (const [status, code] of [
      [401, 'UNAUTHORIZED'],
      [429, 'THROTTLED'],
      [500, 'SERVER'],
      [503, 'SERVER'],
    ] as const) {
      fake.faults.failNext(1, status, { retryAfterSec: 3 });
      assert.deepEqual(await createSecretReader(client).read(secret), {
        kind: 'unavailable',
        problem: `the Kubernetes API did not give Secret default/sp.demo (${code})`,
        retryAfterMs: 3000,
      });
    }
  });

  it('is unavailable when the server hangs or is unreachable', async () => {
    const fake = await openFakeKube();
    await using client = await clientOf(fake);
    const reader = createSecretReader(client, 20);
    fake.faults.hang = true;
    const late = await reader.read(secret);
    assert.ok(late.kind === 'unavailable');
    assert.match(late.problem, /\(TIMEOUT\)$/);
    await fake[Symbol.asyncDispose]();
    const gone = await reader.read(secret);
    assert.ok(gone.kind === 'unavailable');
    assert.match(gone.problem, /\((?:NETWORK|TIMEOUT)\)$/);
  });

  it('is unavailable when the answer is invalid or too long', async () => {
    const kind = 'Secret';
    const longest = { a: 'A'.repeat(1024 * 1024), b: 'A'.repeat(512 * 1024) };
    const read = await createSecretReader(answering({ kind, data: longest })).read(secret);
    assert.equal(read.kind, 'found');
    for (const body of [
      null,
      [],
      {},
      { kind: 'Status' },
      { kind, data: [] },
      { kind, data: { a: 1 } },
      { kind, data: { a: 'A'.repeat(1024 * 1024), b: 'A'.repeat(1024 * 1024) } },
    ]) {
      const result = await createSecretReader(answering(body)).read(secret);
      assert.ok(result.kind === 'unavailable');
      assert.match(result.problem, /\(MALFORMED\)$/);
    }
  });
});

describe('the name of a Secret', () => {
  const odd = [
    '',
    '.',
    '..',
    '../pods',
    'a/b',
    'a?b=c',
    'a#b',
    'a%2fb',
    'a b',
    'A',
    '-a',
    'a-',
    'a..b',
    'a\n',
    'ä',
    'a'.repeat(254),
  ];
  for (const name of odd) {
    it(`${JSON.stringify(name.slice(0, 20))} is refused without a request`, async () => {
      const client = answering({ kind: 'Secret' });
      const reader = createSecretReader(client);
      for (const asked of [
        { namespace: 'default', name },
        { namespace: name, name: 'sp' },
      ]) {
        const result = await reader.read(asked);
        assert.ok(result.kind === 'misnamed');
        assert.doesNotMatch(result.problem, /[^\x20-\x7e]/);
      }
      assert.deepEqual(client.paths, []);
    });
  }

  it('of any format never leads to another path', async () => {
    const part = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom('a', '0', '.', '-', '/', '%', '?', '#', 'A', '\n') }),
    );
    await fc.assert(
      fc.asyncProperty(part, part, async (namespace, name) => {
        const client = answering({ kind: 'Secret' });
        await createSecretReader(client).read({ namespace, name });
        for (const path of client.paths) {
          assert.match(path, /^\/api\/v1\/namespaces\/[a-z0-9-]+\/secrets\/[a-z0-9.-]+$/);
          assert.equal(new URL(path, 'http://host').pathname, path);
        }
      }),
    );
  });

  it('may have dots, but the namespace may not', async () => {
    const client = answering({ kind: 'Secret' });
    const reader = createSecretReader(client);
    const dotted = await reader.read({ namespace: 'n-1', name: 'a.b-c.0' });
    assert.equal(dotted.kind, 'found');
    const elsewhere = await reader.read({ namespace: 'a.b', name: 'x' });
    assert.equal(elsewhere.kind, 'misnamed');
  });
});
