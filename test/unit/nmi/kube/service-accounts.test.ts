import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import type { ObjectName } from '../../../../src/cache/index/object-name.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { malformed } from '../../../../src/nmi/kube/api/call-outcome.ts';
import type { JsonReader } from '../../../../src/nmi/kube/api/client.ts';
import {
  createServiceAccounts,
  type ServiceAccountRead,
  type ServiceAccounts,
  type ServiceAccountsOptions,
} from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { clientOf, eventually } from './kube-test-bed.ts';

const secMs = 1_000;
const minuteMs = 60 * secMs;

interface Read {
  readonly path: string;
  answer(clientId: string): void;
  fail(error: KubeError): void;
}

/** An API server that answers when the test requests it. */
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

const demo = { namespace: 'default', name: 'demo' };
const staleLimitMs = 5 * minuteMs;

function fixture(options: Partial<ServiceAccountsOptions> = {}) {
  const reader = new HeldReader();
  const clock = new HandClock();
  const accounts = createServiceAccounts({ client: reader, clock, staleLimitMs, ...options });
  let changes = 0;
  accounts.onChange(() => changes++);
  const land = async (end: (read: Read) => void): Promise<void> => {
    const [read] = reader.open;
    assert.ok(read !== undefined, 'nothing is being read');
    end(read);
    await nextTurn();
  };
  return {
    reader,
    clock,
    accounts,
    land,
    changes: () => changes,
    peek: () => accounts.peek(demo),
    peekFresh: () => accounts.peekFresh(demo),
    learn: async (clientId: string): Promise<void> => {
      accounts.peek(demo);
      await land((read) => {
        read.answer(clientId);
      });
    },
  };
}

/** The account once it has been read. */
async function untilRead(
  accounts: ServiceAccounts,
  account: ObjectName,
): Promise<ServiceAccountRead> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const off = accounts.onChange(() => {
    resolve(undefined);
  });
  const before = accounts.peekFresh(account);
  if (before === undefined) await promise;
  off();
  const read = before ?? accounts.peekFresh(account);
  assert.ok(read !== undefined, 'still being read');
  return read;
}

const networkError = new KubeError('NETWORK', 'no connection');

function app(clientId: string) {
  return { clientId, tenantId: '' };
}

function says(clientId: string): ServiceAccountRead {
  return { kind: 'known', account: app(clientId) };
}

describe('the annotations of a service account', () => {
  it('are read from the API server, and missing with their account', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const accounts = createServiceAccounts({ client, clock: new HandClock(), staleLimitMs });
    const annotations = {
      'azure.workload.identity/client-id': ' C-1\n',
      'azure.workload.identity/tenant-id': 't-1',
    };
    const metadata = { ...demo, annotations };
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata });
    const account = { clientId: 'C-1', tenantId: 't-1' };
    assert.deepEqual(await untilRead(accounts, demo), { kind: 'known', account });
    assert.deepEqual(accounts.peek(demo), account);
    const missing = { kind: 'known', account: 'missing' };
    const nobody = { namespace: 'default', name: 'nobody' };
    assert.deepEqual(await untilRead(accounts, nobody), missing);
    assert.equal(accounts.peek(nobody), 'missing');
    assert.deepEqual(
      fake.requests.map(({ url }) => url),
      [
        '/api/v1/namespaces/default/serviceaccounts/demo',
        '/api/v1/namespaces/default/serviceaccounts/nobody',
      ],
    );
    const impossible = { namespace: '../default', name: 'demo' };
    assert.deepEqual(accounts.peekFresh(impossible), missing);
    assert.equal(accounts.peek(impossible), 'missing');
    assert.equal(fake.requests.length, 2);
  });

  it('are empty when there are none, or only invalid ones', async () => {
    for (const annotations of [
      undefined,
      null,
      [],
      'x',
      { 'azure.workload.identity/client-id': 7 },
    ]) {
      const client: JsonReader = { getJson: () => Promise.resolve({ metadata: { annotations } }) };
      const clock = new HandClock();
      const accounts = createServiceAccounts({ client, clock, staleLimitMs });
      assert.deepEqual(await untilRead(accounts, demo), says(''));
    }
  });

  it('are unavailable in an answer that is no account', async () => {
    for (const body of [{}, null, { metadata: 'x' }]) {
      const client: JsonReader = { getJson: () => Promise.resolve(body) };
      const accounts = createServiceAccounts({ client, clock: new HandClock(), staleLimitMs });
      assert.deepEqual(await untilRead(accounts, demo), malformed);
    }
  });

  it('are read once for all concurrent callers', async () => {
    const { accounts, reader, changes, land, peekFresh } = fixture();
    for (let time = 0; time < 100; time++) {
      assert.equal(accounts.peek(demo), undefined);
      assert.equal(peekFresh(), undefined);
    }
    assert.equal(reader.paths.length, 1);
    await land((read) => {
      read.answer('c-1');
    });
    assert.deepEqual(peekFresh(), says('c-1'));
    assert.equal(changes(), 1);
  });

  it('are served from memory for a minute, and also while they are read again', async () => {
    const { learn, land, peek, peekFresh, reader, clock, changes } = fixture();
    await learn('c-1');
    clock.advance(minuteMs - 1);
    assert.deepEqual(peek(), app('c-1'));
    assert.deepEqual(peekFresh(), says('c-1'));
    assert.equal(reader.paths.length, 1);
    clock.advance(1);
    for (let time = 0; time < 10; time++) {
      assert.deepEqual(peek(), app('c-1'));
      assert.deepEqual(peekFresh(), says('c-1'));
    }
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

  it('are read before a decision after two minutes without a request', async () => {
    const { learn, land, peek, peekFresh, reader, clock, changes } = fixture();
    await learn('c-1');
    clock.advance(2 * minuteMs + 1);
    assert.deepEqual(peek(), app('c-1'));
    assert.equal(peekFresh(), undefined);
    assert.equal(reader.paths.length, 2);
    await land((read) => {
      read.answer('c-1');
    });
    assert.equal(changes(), 2, 'waiters are woken, although the value is the same');
    assert.deepEqual(peekFresh(), says('c-1'));
  });

  it('wake nobody who does not wait for them', async () => {
    const { land, peek, changes, clock } = fixture();
    peek();
    clock.advance(500);
    await land((read) => {
      read.fail(networkError);
    });
    assert.equal(changes(), 0);
  });

  it('are used for five more minutes when their read does not end soon', async () => {
    const { learn, peekFresh, clock, changes } = fixture();
    await learn('c-1');
    clock.advance(2 * minuteMs + 1);
    assert.equal(peekFresh(), undefined);
    clock.advance(499);
    assert.equal(peekFresh(), undefined);
    assert.equal(changes(), 1);
    clock.advance(1);
    assert.equal(changes(), 2, 'waiters are woken');
    assert.deepEqual(peekFresh(), says('c-1'));
    clock.advance(3 * minuteMs - 501);
    assert.deepEqual(peekFresh(), says('c-1'));
    clock.advance(1);
    assert.equal(peekFresh(), undefined);
  });

  it('are used for five more minutes when they cannot be read, and waiters are woken', async () => {
    const { learn, land, peek, peekFresh, clock, changes, reader } = fixture();
    await learn('c-1');
    clock.advance(2 * minuteMs + 1);
    assert.equal(peekFresh(), undefined);
    const fail = (read: Read): void => {
      read.fail(networkError);
    };
    await land(fail);
    assert.equal(changes(), 2);
    for (; clock.monotonicMs() <= staleLimitMs; clock.advance(secMs)) {
      assert.deepEqual(peekFresh(), says('c-1'));
      if (reader.open.length > 0) await land(fail);
    }
    const unavailable = { kind: 'unavailable', problem: 'NETWORK', retryAfterMs: undefined };
    clock.advance(secMs);
    for (; reader.open.length > 0 || peekFresh() === undefined;) await land(fail);
    assert.deepEqual(peekFresh(), unavailable);
    assert.deepEqual(peek(), app('c-1'), 'tokens are not dropped because of it');
    assert.ok(changes() <= 3);
    clock.advance(5 * secMs);
    assert.equal(peekFresh(), undefined, 'it is read again, and the new value counts');
    await land((read) => {
      read.answer('c-1');
    });
    assert.deepEqual(peekFresh(), says('c-1'));
  });

  it('are reported as changed when their account is deleted and when it returns', async () => {
    const { learn, land, peek, clock, changes, accounts } = fixture();
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

  it('that name no application are requested again within seconds', async () => {
    const { learn, land, peek, clock, reader } = fixture();
    await learn('');
    clock.advance(5 * secMs);
    assert.deepEqual(peek(), app(''));
    assert.equal(reader.paths.length, 2);
    await land((read) => {
      read.answer('c-1');
    });
    assert.deepEqual(peek(), app('c-1'));
  });

  it('remain known while the server is unreachable', async () => {
    const { learn, land, peek, clock, reader, changes } = fixture();
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
    }
    // 9 minutes, with a try every 5 seconds.
    assert.equal(tries, 109);
    clock.advance(100 * 24 * 60 * minuteMs);
    assert.deepEqual(peek(), app('c-1'));
    assert.equal(changes(), 1);
  });

  it('are unavailable from a failing server, which gets at most one request a second', async () => {
    const failures: string[] = [];
    const { reader, clock, changes, land, peek, peekFresh } = fixture({
      onUnreadable: ({ name }, { kind }) => failures.push(`${name} ${kind}`),
    });
    const refuse = (read: Read): void => {
      read.fail(new KubeError('FORBIDDEN', 'no right', { status: 403 }));
    };
    assert.equal(peekFresh(), undefined);
    await land(refuse);
    assert.equal(changes(), 1, 'waiters are woken');
    const forbidden = { kind: 'forbidden', said: 'no right' };
    assert.deepEqual(peekFresh(), forbidden);
    clock.advance(secMs - 1);
    assert.deepEqual(peekFresh(), forbidden);
    assert.equal(peek(), undefined);
    assert.equal(reader.paths.length, 1);
    clock.advance(1);
    assert.equal(peekFresh(), undefined);
    await land(refuse);
    assert.deepEqual(failures, ['demo forbidden'], 'told once');
    clock.advance(secMs);
    peek();
    await land((read) => {
      read.answer('c-1');
    });
    assert.deepEqual(peekFresh(), says('c-1'));
    assert.equal(changes(), 3);
    clock.advance(10 * minuteMs);
    peek();
    await land(refuse);
    assert.deepEqual(
      failures,
      ['demo forbidden', 'demo forbidden'],
      'reported again after a success',
    );
  });

  it('are not requested for as long as the server requires, within limits', async () => {
    for (const [askedMs, waitedMs] of [
      [7 * secMs, 7 * secMs],
      [3600 * secMs, minuteMs],
    ] as const) {
      const { learn, land, peek, reader, clock } = fixture();
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

  it('are limited in number, and the least recently used is evicted first', async () => {
    const { accounts, land } = fixture({ max: 2 });
    const account = (name: string): ObjectName => ({ namespace: 'default', name });
    const learn = async (name: string): Promise<void> => {
      accounts.peek(account(name));
      await land((read) => {
        read.answer(name);
      });
    };
    await learn('a');
    await learn('b');
    accounts.peek(account('a'));
    await learn('c');
    assert.deepEqual(accounts.peek(account('a')), app('a'));
    assert.deepEqual(accounts.peek(account('c')), app('c'));
    assert.equal(accounts.peek(account('b')), undefined);
  });

  it('are not affected by a listener that throws', async () => {
    const { accounts, learn, changes } = fixture();
    let errors = 0;
    const unsubscribe = accounts.onChange(() => {
      errors++;
      throw new Error('mine');
    });
    let later = 0;
    accounts.onChange(() => later++);
    await learn('c-1');
    assert.deepEqual([errors, changes(), later], [1, 1, 1]);
    unsubscribe();
  });

  it('remain after their client is closed', async () => {
    const fake = await openFakeKube();
    const client = await clientOf(fake);
    const accounts = createServiceAccounts({ client, clock: new HandClock(), staleLimitMs });
    fake.faults.hang = true;
    const reading = untilRead(accounts, demo);
    await eventually('the request came in', () => fake.requests.length === 1);
    await client[Symbol.asyncDispose]();
    assert.equal((await reading).kind, 'unavailable');
    await fake[Symbol.asyncDispose]();
  });
});

type Step =
  | { readonly kind: 'peek'; readonly name: string }
  | { readonly kind: 'decide'; readonly name: string }
  | { readonly kind: 'set'; readonly name: string; readonly clientId: string }
  | { readonly kind: 'land'; readonly at: number; readonly ok: boolean }
  | { readonly kind: 'pass'; readonly ms: number };

const anyName = fc.constantFrom('a', 'b', 'c');
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('peek' as const), name: anyName }),
  fc.record({ kind: fc.constant('decide' as const), name: anyName }),
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

/** Runs the steps against a server with changing accounts, and checks after each step. */
async function runSteps(steps: readonly Step[], isTight: boolean): Promise<void> {
  const max = isTight ? 2 : 10;
  const { accounts, reader, clock } = fixture({ max });
  /** The current value on the server, and the value in its last answer. */
  const clientIds = new Map<string, string>();
  const said = new Map<string, string>();
  const peeked = new Map<string, { readonly text: string; readonly generation: number }>();
  /** The last successful read of each account. */
  const readAtMs = new Map<string, number>();

  const clientIdOf = (name: string): string => name + (clientIds.get(name) ?? '');
  const check = (name: string, known: unknown): void => {
    assert.deepEqual(known, app(said.get(name) ?? ''));
  };
  const peek = (name: string): void => {
    const known = accounts.peek({ namespace: 'ns', name });
    if (known === undefined) return;
    check(name, known);
    const [text, before] = [JSON.stringify(known), peeked.get(name)];
    // Observers were notified of each new value.
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
      readAtMs.set(name, clock.monotonicMs());
      read.answer(clientIdOf(name));
    } else {
      read.fail(networkError);
    }
    await nextTurn();
  };

  for (const step of steps) {
    if (step.kind === 'peek') {
      peek(step.name);
    } else if (step.kind === 'decide') {
      const read = accounts.peekFresh({ namespace: 'ns', name: step.name });
      if (read?.kind === 'known') {
        check(step.name, read.account);
        const ageMs = clock.monotonicMs() - (readAtMs.get(step.name) ?? -Infinity);
        assert.ok(ageMs <= staleLimitMs, 'nothing older is used, whatever fails');
      }
    } else if (step.kind === 'set') {
      clientIds.set(step.name, step.clientId);
    } else if (step.kind === 'land') {
      await land(step.at, step.ok);
    } else {
      clock.advance(step.ms);
    }
    const reading = reader.open.map(nameOf);
    assert.equal(new Set(reading).size, reading.length);
  }
  while (reader.open.length > 0) await land(0, true);
  const known = ['a', 'b', 'c'].filter(
    (name) => accounts.peek({ namespace: 'ns', name }) !== undefined,
  );
  assert.ok(known.length <= max);
}

describe('any requests, changes, answers and failures in any order', () => {
  it('leave each account with the value of its last answer, and reads never pile up', async () => {
    const anySteps = fc.array(anyStep, { maxLength: 80, size: 'max' });
    await fc.assert(fc.asyncProperty(anySteps, fc.boolean(), runSteps), { numRuns: 200 });
  });
});
