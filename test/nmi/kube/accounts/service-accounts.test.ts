import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { JsonReader } from '../../../../src/nmi/kube/api/list-pages.ts';
import {
  createServiceAccounts,
  type ServiceAccountsOptions,
} from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { clientOf, eventually } from '../kube-world.ts';

const secMs = 1_000;
const minuteMs = 60 * secMs;

interface Read {
  readonly path: string;
  answer(clientId: string): void;
  fail(error: KubeError): void;
}

/** An API server that answers when the test says so. */
class HeldReader implements JsonReader {
  readonly paths: string[] = [];
  readonly open: Read[] = [];

  getJson(path: string): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const end = (settle: () => void): void => {
      this.open.splice(this.open.indexOf(read), 1);
      settle();
    };
    const read: Read = {
      path,
      answer: (clientId) => {
        end(() => {
          resolve(rawAccount(clientId));
        });
      },
      fail: (error) => {
        end(() => {
          reject(error);
        });
      },
    };
    this.paths.push(path);
    this.open.push(read);
    return promise;
  }
}

function rawAccount(clientId: string, tenantId = ''): unknown {
  const annotations = {
    ...(clientId === '' ? {} : { 'azure.workload.identity/client-id': clientId }),
    ...(tenantId === '' ? {} : { 'azure.workload.identity/tenant-id': tenantId }),
  };
  return { metadata: { name: 'demo', namespace: 'default', annotations } };
}

function stand(options: Partial<ServiceAccountsOptions> = {}) {
  const reader = new HeldReader();
  const clock = new HandClock();
  const accounts = createServiceAccounts({ client: reader, clock, ...options });
  let changes = 0;
  accounts.onChange(() => changes++);
  return {
    reader,
    clock,
    accounts,
    changes: () => changes,
    peek: () => accounts.peek('default', 'demo'),
    learn: async (clientId: string): Promise<void> => {
      const reading = accounts.read('default', 'demo');
      reader.open[0]?.answer(clientId);
      await reading;
    },
    land: async (end: (read: Read) => void): Promise<void> => {
      const [read] = reader.open;
      assert.ok(read !== undefined, 'nothing is being read');
      end(read);
      await nextTurn();
    },
  };
}

const networkError = new KubeError('NETWORK', 'no connection');

function app(clientId: string) {
  return { clientId, tenantId: '' };
}

describe('the annotations of a service account', () => {
  it('are read from the API server, and missing with their account', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const accounts = createServiceAccounts({ client, clock: new HandClock() });
    const annotations = {
      'azure.workload.identity/client-id': ' C-1\n',
      'azure.workload.identity/tenant-id': 't-1',
    };
    const metadata = { name: 'demo', namespace: 'default', annotations };
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata });
    assert.equal(accounts.peek('default', 'demo'), undefined);
    const account = { clientId: 'C-1', tenantId: 't-1' };
    assert.deepEqual(await accounts.read('default', 'demo'), { kind: 'known', account });
    assert.deepEqual(accounts.peek('default', 'demo'), account);
    const missing = { kind: 'known', account: 'missing' };
    assert.deepEqual(await accounts.read('default', 'nobody'), missing);
    assert.equal(accounts.peek('default', 'nobody'), 'missing');
    assert.deepEqual(
      fake.requests.map(({ url }) => url),
      [
        '/api/v1/namespaces/default/serviceaccounts/demo',
        '/api/v1/namespaces/default/serviceaccounts/nobody',
      ],
    );
    assert.deepEqual(await accounts.read('../default', 'demo'), missing);
    assert.equal(fake.requests.length, 2);
  });

  it('are empty when there are none, or no texts', async () => {
    for (const annotations of [
      undefined,
      null,
      [],
      'x',
      { 'azure.workload.identity/client-id': 7 },
    ]) {
      const client: JsonReader = { getJson: () => Promise.resolve({ metadata: { annotations } }) };
      const accounts = createServiceAccounts({ client, clock: new HandClock() });
      assert.deepEqual(await accounts.read('default', 'demo'), { kind: 'known', account: app('') });
    }
  });

  it('are read once for all who ask at the same time', async () => {
    const { accounts, reader, changes } = stand();
    const reads = Array.from({ length: 100 }, () => accounts.read('default', 'demo'));
    assert.equal(reader.paths.length, 1);
    reader.open[0]?.answer('c-1');
    for (const read of await Promise.all(reads)) {
      assert.deepEqual(read, { kind: 'known', account: app('c-1') });
    }
    assert.equal(changes(), 1);
  });

  it('come to those who stayed when one who asked gives up', async () => {
    const { accounts, reader } = stand();
    const stop = new AbortController();
    const given = accounts.read('default', 'demo', stop.signal);
    const kept = accounts.read('default', 'demo');
    stop.abort(new Error('enough'));
    await assert.rejects(given, /^Error: enough$/);
    reader.open[0]?.answer('c-1');
    assert.deepEqual(await kept, { kind: 'known', account: app('c-1') });
  });

  it('answer from memory for a minute, and from memory while they are read again', async () => {
    const { learn, land, peek, reader, clock, accounts, changes } = stand();
    await learn('c-1');
    clock.advance(minuteMs - 1);
    assert.deepEqual(peek(), app('c-1'));
    assert.deepEqual(await accounts.read('default', 'demo'), {
      kind: 'known',
      account: app('c-1'),
    });
    assert.equal(reader.paths.length, 1);
    clock.advance(1);
    for (let time = 0; time < 10; time++) assert.deepEqual(peek(), app('c-1'));
    assert.equal(reader.paths.length, 2);
    await land((read) => {
      read.answer('c-1');
    });
    assert.equal(changes(), 1);
    clock.advance(minuteMs);
    peek();
    await land((read) => {
      read.answer('c-2');
    });
    assert.equal(changes(), 2);
    assert.deepEqual(peek(), app('c-2'));
  });

  it('are told to have changed when their account vanishes and when it returns', async () => {
    const { learn, land, peek, clock, changes, accounts } = stand();
    await learn('c-1');
    clock.advance(minuteMs);
    peek();
    await land((read) => {
      read.fail(new KubeError('NOT_FOUND', 'gone', { status: 404 }));
    });
    assert.equal(peek(), 'missing');
    assert.equal(changes(), 2);
    clock.advance(5 * secMs);
    peek();
    await land((read) => {
      read.answer('c-1');
    });
    assert.deepEqual(peek(), app('c-1'));
    assert.equal(changes(), 3);
    assert.equal(accounts.generation, 3);
  });

  it('that name no application are asked for again within seconds', async () => {
    const { learn, land, peek, clock, reader } = stand();
    await learn('');
    clock.advance(5 * secMs);
    assert.deepEqual(peek(), app(''));
    assert.equal(reader.paths.length, 2);
    await land((read) => {
      read.answer('c-1');
    });
    assert.deepEqual(peek(), app('c-1'));
  });

  it('stay known for as long as the server cannot be asked', async () => {
    const { learn, land, peek, clock, reader, changes, accounts } = stand();
    await learn('c-1');
    clock.advance(minuteMs);
    let tries = 0;
    for (; clock.monotonicMs() <= 10 * minuteMs; clock.advance(secMs)) {
      assert.deepEqual(peek(), app('c-1'));
      const [read] = reader.open;
      if (read === undefined) continue;
      tries++;
      await land(() => {
        read.fail(networkError);
      });
      assert.deepEqual(await accounts.read('default', 'demo'), {
        kind: 'known',
        account: app('c-1'),
      });
    }
    // 9 minutes, a try every 5 seconds.
    assert.equal(tries, 109);
    clock.advance(100 * 24 * 60 * minuteMs);
    assert.deepEqual(peek(), app('c-1'));
    assert.equal(changes(), 1);
  });

  it('cannot be had from a failing server, which is not asked more than once a second', async () => {
    const { accounts, reader, clock, changes } = stand();
    const reading = accounts.read('default', 'demo');
    reader.open[0]?.fail(new KubeError('FORBIDDEN', 'no right', { status: 403 }));
    const forbidden = { kind: 'forbidden', said: 'no right' };
    assert.deepEqual(await reading, forbidden);
    clock.advance(secMs - 1);
    assert.deepEqual(await accounts.read('default', 'demo'), forbidden);
    assert.equal(accounts.peek('default', 'demo'), undefined);
    assert.equal(reader.paths.length, 1);
    clock.advance(1);
    const again = accounts.read('default', 'demo');
    reader.open[0]?.answer('c-1');
    assert.deepEqual(await again, { kind: 'known', account: app('c-1') });
    assert.equal(changes(), 1);
  });

  it('are left alone for as long as the server asks, within reason', async () => {
    for (const [askedMs, waitedMs] of [
      [7 * secMs, 7 * secMs],
      [3600 * secMs, minuteMs],
    ] as const) {
      const { learn, land, peek, reader, clock } = stand();
      await learn('c-1');
      clock.advance(minuteMs);
      peek();
      await land((read) => {
        read.fail(new KubeError('THROTTLED', 'busy', { status: 429, retryAfterMs: askedMs }));
      });
      clock.advance(waitedMs - 1);
      peek();
      assert.equal(reader.paths.length, 2);
      clock.advance(1);
      peek();
      assert.equal(reader.paths.length, 3);
    }
  });

  it('take a bounded place, the least recently used out first', async () => {
    const { accounts, reader } = stand({ max: 2 });
    for (const name of ['a', 'b']) {
      const reading = accounts.read('default', name);
      reader.open[0]?.answer(name);
      await reading;
    }
    accounts.peek('default', 'a');
    const reading = accounts.read('default', 'c');
    reader.open[0]?.answer('c');
    await reading;
    assert.equal(accounts.size, 2);
    assert.deepEqual(accounts.peek('default', 'a'), app('a'));
    assert.equal(accounts.peek('default', 'b'), undefined);
    assert.deepEqual(accounts.peek('default', 'c'), app('c'));
  });

  it('never leave a listener that throws in the way', async () => {
    const errors: unknown[] = [];
    const onListenerError = (error: unknown): void => {
      errors.push(error);
    };
    const { accounts, learn, changes } = stand({ onListenerError });
    const unsubscribe = accounts.onChange(() => {
      throw new Error('mine');
    });
    let later = 0;
    accounts.onChange(() => later++);
    await learn('c-1');
    assert.deepEqual([errors.length, changes(), later], [1, 1, 1]);
    unsubscribe();
  });

  it('outlive the client they are read with', async () => {
    const fake = await openFakeKube();
    const client = await clientOf(fake);
    const accounts = createServiceAccounts({ client, clock: new HandClock() });
    fake.faults.hang = true;
    const reading = accounts.read('default', 'demo');
    await eventually('the request came in', () => fake.requests.length === 1);
    await client[Symbol.asyncDispose]();
    assert.equal((await reading).kind, 'unavailable');
    await fake[Symbol.asyncDispose]();
  });
});

type Step =
  | { readonly kind: 'peek'; readonly name: string }
  | { readonly kind: 'read'; readonly name: string }
  | { readonly kind: 'set'; readonly name: string; readonly clientId: string }
  | { readonly kind: 'land'; readonly at: number; readonly ok: boolean }
  | { readonly kind: 'pass'; readonly ms: number };

const anyName = fc.constantFrom('a', 'b', 'c');
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('peek' as const), name: anyName }),
  fc.record({ kind: fc.constant('read' as const), name: anyName }),
  fc.record({
    kind: fc.constant('set' as const),
    name: anyName,
    clientId: fc.constantFrom('', '1', '2'),
  }),
  fc.record({ kind: fc.constant('land' as const), at: fc.nat(3), ok: fc.boolean() }),
  fc.record({
    kind: fc.constant('pass' as const),
    ms: fc.constantFrom(secMs, 5 * secMs, minuteMs, 9 * minuteMs),
  }),
);

/** Runs the steps against a server whose accounts change, and checks after each. */
async function runSteps(steps: readonly Step[], isTight: boolean): Promise<void> {
  const max = isTight ? 2 : 10;
  const { accounts, reader, clock } = stand({ max });
  /** What the server says now, and what it last said in an answer. */
  const clientIds = new Map<string, string>();
  const said = new Map<string, string>();
  const peeked = new Map<string, { readonly text: string; readonly generation: number }>();
  const reads: Promise<void>[] = [];

  const clientIdOf = (name: string): string => name + (clientIds.get(name) ?? '');
  const check = (name: string, known: unknown): void => {
    assert.deepEqual(known, app(said.get(name) ?? ''));
  };
  const peek = (name: string): void => {
    const known = accounts.peek('ns', name);
    if (known === undefined) return;
    check(name, known);
    const [text, before] = [JSON.stringify(known), peeked.get(name)];
    // What is new to whoever looks has been told.
    if (before !== undefined && before.text !== text) {
      assert.notEqual(accounts.generation, before.generation);
    }
    peeked.set(name, { text, generation: accounts.generation });
  };
  const nameOf = ({ path }: Read): string => path.slice(-1);
  const land = async (at: number, ok: boolean): Promise<void> => {
    const read = reader.open[at % Math.max(1, reader.open.length)];
    if (read === undefined) return;
    const name = nameOf(read);
    if (ok) {
      said.set(name, clientIdOf(name));
      read.answer(clientIdOf(name));
    } else {
      read.fail(networkError);
    }
    await nextTurn();
  };

  for (const step of steps) {
    if (step.kind === 'peek') {
      peek(step.name);
    } else if (step.kind === 'read') {
      const read = accounts.read('ns', step.name).then((outcome) => {
        if (outcome.kind === 'known') check(step.name, outcome.account);
      });
      reads.push(read);
      await nextTurn();
    } else if (step.kind === 'set') {
      clientIds.set(step.name, step.clientId);
    } else if (step.kind === 'land') {
      await land(step.at, step.ok);
    } else {
      clock.advance(step.ms);
    }
    const reading = reader.open.map(nameOf);
    assert.equal(new Set(reading).size, reading.length);
    assert.ok(accounts.size <= max);
  }
  while (reader.open.length > 0) await land(0, true);
  await Promise.all(reads);
}

describe('whatever is asked, changed, answered and broken in whatever order', () => {
  it('an account says what it said in its last answer, and reads never pile up', async () => {
    const anySteps = fc.array(anyStep, { maxLength: 80, size: 'max' });
    await fc.assert(fc.asyncProperty(anySteps, fc.boolean(), runSteps), { numRuns: 200 });
  });
});
