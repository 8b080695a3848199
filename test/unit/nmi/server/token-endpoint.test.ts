import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { describe, it, mock } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Answer } from '../../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import type { GrantedDecision } from '../../../../src/nmi/server/decision-cache.ts';
import { HttpExchange } from '../../../../src/nmi/server/request.ts';
import type { TokenAnswer } from '../../../../src/nmi/server/token-endpoint.ts';
import type { FailureReason } from '../../../../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import type { CachedToken } from '../../../../src/nmi/tokens/broker.ts';
import { openBareListener } from '../../../support/bare-listener.ts';
import {
  createBinding,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { FastConnection } from '../../../support/fast-connection.ts';
import { longLived } from '../../../support/token-fixture.ts';
import { callerAt } from '../../../support/request-records.ts';
import {
  exchangeOf as exchangeTo,
  tokenPath as path,
  world,
  type WorldGiven,
} from '../../../world.ts';

const vault = 'api-version=2018-02-01&resource=https://vault.example';
const other = 'api-version=2018-02-01&resource=https://other.example';
const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

/** Pods `one` and `two`, each bound to an identity of the same name. */
function openFixture(given: WorldGiven = {}) {
  const clock = new HandClock();
  const memory = {
    hasTokens: false,
    /** The tenant without a token in memory. */
    absentTenant: '',
    whileFetching: (): unknown => undefined,
    /** The tenant whose fetches fail. */
    brokenTenant: '',
    reason: 'upstream_down' as FailureReason,
    fetches: [] as string[],
    fetchedResources: new Set<string>(),
  };
  const tenantOf = (identity: UpstreamIdentity) =>
    identity.kind === 'entra' ? identity.tenantId : undefined;
  const peek = (key: string) => {
    const isAbsent = memory.absentTenant !== '' && key.includes(`/${memory.absentTenant}/`);
    return memory.hasTokens && !isAbsent ? longLived : undefined;
  };
  const fetch = async (
    how: string,
    identity: UpstreamIdentity,
    resource: string,
  ): Promise<CachedToken> => {
    memory.fetchedResources.add(resource);
    const tenant = tenantOf(identity) ?? '';
    memory.fetches.push([how, tenant].join(' ').trim());
    await nextTurn();
    await memory.whileFetching();
    if (tenant === '' || tenant !== memory.brokenTenant) {
      return { ok: true, rendered: longLived, outcome: 'miss' };
    }
    const refusals = { key: 'key', count: 3, sinceMs: 0, isFinal: false };
    const failure = {
      reason: memory.reason,
      description: 'no answer',
      cooldownMs: 0,
      ...(memory.reason === 'federation_refused' ? { refusals } : {}),
    };
    return { ok: false, failure, outcome: 'miss', cooldownLeftMs: 0 };
  };
  const fixture = world({
    ...given,
    clock,
    policy: { graceMs: 0 },
    tokens: {
      peek,
      get: (identity, resource) => fetch('get', identity, resource),
      renew: (identity, resource) => fetch('renew', identity, resource),
      replace: (identity, resource, _party, hash) => fetch(`replace ${hash}`, identity, resource),
    },
  });
  for (const [index, name] of ['one', 'two'].entries()) {
    fixture.pods.upsert(
      createPod({
        name,
        uid: name,
        cgroupUid: name,
        ips: [`127.0.0.1${index + 1}`],
        labels: { aadpodidbinding: name },
      }),
    );
    fixture.grants.identities.upsert(createIdentity({ name, uid: name, clientId }));
    fixture.grants.bindings.upsert(
      createBinding({ name, uid: name, identityName: name, selector: name }),
    );
  }
  return { ...fixture, clock, memory };
}

const tenants = ['first.example', 'second.example', 'third.example'] as const;

function openWithTenants() {
  const fixture = openFixture();
  const [tenantId, ...auxiliaryTenantIds] = tenants;
  const entra = {
    tenantId,
    auxiliaryTenantIds,
    adEndpoint: '',
    federation: '',
    secretNamespace: '',
    secretName: 'secret',
  };
  fixture.grants.identities.upsert(
    createIdentity({ name: 'one', uid: 'one', clientId, type: 1, entra }),
  );
  return fixture;
}

function exchangeOf(caller: CallerConnection, query: string): HttpExchange {
  return exchangeTo(caller, `${path}?${query}`);
}

describe('an answer from the cache', () => {
  it('is returned at once, with its decision', () => {
    const fixture = openFixture();
    fixture.memory.hasTokens = true;
    const answer = fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault)) as TokenAnswer;
    assert.equal(answer.status, 200);
    const { grant, cache, resource } = answer.decision;
    assert.deepEqual([grant?.kind, cache, resource], ['granted', 'hit', 'https://vault.example']);
  });

  it('is not used for a request that is refused for its parameters', () => {
    const fixture = openFixture();
    const answer = fixture.tokens.handle(
      exchangeOf(callerAt('127.0.0.11'), 'resource=r'),
    ) as TokenAnswer;
    assert.equal(answer.reason, 'parameter_missing');
    assert.equal(answer.decision.grant, undefined);
    const unbound = `${vault}&client_id=44444444-4444-4444-8444-444444444444`;
    const refused = fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), unbound));
    assert.ok(!(refused instanceof Promise), 'refused at once');
    assert.equal(refused.reason, 'selector_not_bound');
  });
});

describe('a client that requests another token than the cached one', () => {
  const hash = 'ab'.repeat(32);
  for (const [what, parameter, fetch] of [
    ['a new one', 'bypass_cache=true', 'renew'],
    ['any but one that was refused', `token_sha256_to_refresh=${hash}`, `replace ${hash}`],
  ] as const) {
    it(`is not answered from the cache, and gets ${what} from upstream`, async () => {
      const fixture = openFixture();
      fixture.memory.hasTokens = true;
      const exchange = exchangeOf(callerAt('127.0.0.11'), `${vault}&${parameter}`);
      assert.equal((await fixture.tokens.handle(exchange)).status, 200);
      assert.deepEqual(fixture.memory.fetches, [fetch]);
      assert.deepEqual([...fixture.memory.fetchedResources], ['https://vault.example']);
    });
  }
});

describe('an identity with further tenants', () => {
  it('is answered with a token of each tenant', async () => {
    const fixture = openWithTenants();
    const answer = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
    assert.equal(answer.status, 200);
    assert.equal((JSON.parse(answer.body) as unknown[]).length, tenants.length);
    assert.deepEqual(
      fixture.memory.fetches,
      tenants.map((tenant) => `get ${tenant}`),
    );
  });

  it('is answered at once when memory has a token of each tenant', () => {
    const fixture = openWithTenants();
    fixture.memory.hasTokens = true;
    const answer = fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault)) as Answer;
    assert.equal((JSON.parse(answer.body) as unknown[]).length, tenants.length);
    assert.deepEqual(fixture.memory.fetches, []);
  });

  for (const tenant of tenants) {
    it(`waits for a token of ${tenant} that memory does not have`, async () => {
      const fixture = openWithTenants();
      fixture.memory.hasTokens = true;
      fixture.memory.absentTenant = tenant;
      const answer = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
      assert.equal((JSON.parse(answer.body) as unknown[]).length, tenants.length);
      assert.ok(fixture.memory.fetches.includes(`get ${tenant}`));
    });

    it(`is refused when there is no token of ${tenant}`, async () => {
      const fixture = openWithTenants();
      fixture.memory.brokenTenant = tenant;
      const answer = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
      assert.deepEqual([answer.status, answer.reason], [503, 'upstream_down']);
      assert.equal(answer.decision.cache, 'miss');
    });
  }
});

describe('a permission that ends while its token is fetched', () => {
  it('prevents the answer, whatever the fetch returned', async () => {
    const fixture = openFixture();
    fixture.memory.whileFetching = () => {
      fixture.grants.bindings.remove({ namespace: 'default', name: 'one', uid: 'one' });
    };
    const answer = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
    assert.equal(answer.reason, 'binding_missing');
  });

  it('prevents the answer when it was a grant of the identity to the namespace', async () => {
    const identityGrants = [{ namespaces: ['default'], clientIds: [clientId] }];
    const fixture = openFixture({ owners: 'enforce', identityGrants });
    const ask = () => fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
    assert.equal((await ask()).reason, 'ok');
    fixture.memory.whileFetching = () => fixture.ownerIndex.grants.replace([]);
    assert.equal((await ask()).reason, 'identity_not_owned');
    fixture.memory.hasTokens = true;
    assert.equal((await ask()).reason, 'identity_not_owned', 'nor the cached token');
  });

  it('is replaced by that for another identity, and the request fails when it keeps changing', async () => {
    const fixture = openFixture();
    const bind = (identityName: string): void => {
      fixture.grants.bindings.upsert(
        createBinding({ name: 'one', uid: 'one', identityName, selector: 'one' }),
      );
    };
    fixture.grants.identities.upsert(
      createIdentity({ name: 'other', uid: 'other', clientId: clientId.replace('1', '2') }),
    );
    let turns = 0;
    fixture.memory.whileFetching = () => {
      turns++;
      if (turns === 1) bind('other');
    };
    const moved = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
    assert.equal(moved.reason, 'ok');
    const { grant } = moved.decision;
    assert.equal(grant?.kind === 'granted' && grant.identity?.name, 'other');
    turns = 0;
    fixture.memory.whileFetching = () => bind(turns++ % 2 === 0 ? 'one' : 'other');
    const restless = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), vault));
    assert.equal(restless.reason, 'agent_not_synced');
    assert.match(restless.body, /keep changing/);
    assert.equal(turns, 4);
  });
});

describe('a permission that moves to another identity with the same client id', () => {
  it('is the one that the decision names', async () => {
    const fixture = openFixture();
    fixture.memory.whileFetching = () =>
      fixture.grants.bindings.upsert(
        createBinding({ name: 'one', uid: 'one', identityName: 'two', selector: 'one' }),
      );
    const { reason, decision } = await fixture.tokens.handle(
      exchangeOf(callerAt('127.0.0.11'), vault),
    );
    assert.equal(reason, 'ok');
    assert.equal(decision.grant?.kind === 'granted' && decision.grant.identity?.name, 'two');
  });
});

describe('how often a request is authorized', () => {
  for (const hasFastPath of [true, false]) {
    const way = hasFastPath ? 'with the fast path' : 'by node:http alone';

    it(`is never for a hit, and at most twice for a miss, ${way}`, async () => {
      const fixture = openFixture();
      const { tokens, memory, grants, pods } = fixture;
      const exchanges: HttpExchange[] = [];
      await using listener = await openBareListener({
        clock: fixture.clock,
        fastPath: hasFastPath ? fixture.fastPath : undefined,
        handle: (exchange) => {
          exchanges.push(exchange);
          return tokens.handle(exchange);
        },
      });
      const socket = connect({
        host: '127.0.0.1',
        port: listener.port,
        localAddress: '127.0.0.11',
      });
      const authorize = mock.method(grants, 'grantsOf');
      const ask = async (query: string): Promise<number> => {
        const before = authorize.mock.callCount();
        socket.write(`GET ${path}?${query} HTTP/1.1\r\nMetadata: true\r\n\r\n`);
        const [bytes] = (await once(socket, 'data')) as [Buffer];
        assert.match(bytes.toString(), /^HTTP\/1\.1 200 /);
        return authorize.mock.callCount() - before;
      };
      memory.hasTokens = true;
      await ask(vault);
      assert.equal(await ask(vault), 0, 'a hit');
      memory.hasTokens = false;
      assert.equal(await ask(other), 1, 'a miss while nothing changes');
      memory.whileFetching = () => pods.upsert(createPod({ name: 'new', uid: 'new' }));
      assert.equal(await ask(`${other}2`), 2, 'a miss while something changes');
      // Node's parser read the first miss, which the fast path had decided, and all later requests.
      assert.equal(exchanges.length, hasFastPath ? 2 : 4);
      assert.deepEqual(fixture.bugs, []);
      socket.destroy();
    });
  }
});

describe('a pod that requests ever new resources', () => {
  it('gets 429 after 600 in a minute, also where the token is in memory and on the fast path', async () => {
    const fixture = openFixture();
    fixture.memory.hasTokens = true;
    const of = (number: number) => `api-version=2018-02-01&resource=api://${number}`;
    const answer = (number: number, ip = '127.0.0.11') =>
      fixture.tokens.handle(exchangeOf(callerAt(ip), of(number)));
    const isFast = (number: number) =>
      new FastConnection(fixture.fastPath, callerAt('127.0.0.11')).ask(`${path}?${of(number)}`);
    for (let number = 0; number < 600; number++) {
      if (number % 2 === 0) assert.equal((await answer(number)).status, 200);
      else assert.ok(isFast(number));
    }
    assert.ok(!isFast(600), 'left to the slow path');
    const { status, reason, retryAfterS, decision } = await answer(600);
    assert.deepEqual([status, reason, retryAfterS], [429, 'caller_throttled', 60]);
    assert.deepEqual([decision.resource, decision.grant?.pod?.uid], ['api://600', 'one']);
    assert.equal((await answer(1)).status, 200);
    assert.ok(isFast(2));
    assert.equal((await answer(600, '127.0.0.12')).status, 200);
    assert.deepEqual(new Set(fixture.limitsExceeded), new Set(['pod one']));
  });
});

describe('a decision that the fast path has made', () => {
  /** Lets the fast path decide a request of pod `one`, which it cannot answer. */
  function handOver(fixture: ReturnType<typeof openFixture>): void {
    const connection = new FastConnection(fixture.fastPath, callerAt('127.0.0.11'));
    assert.equal(connection.ask(`${path}?${vault}`), false);
  }

  it('is never used for another target', async () => {
    const fixture = openFixture();
    handOver(fixture);
    const { decision } = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), other));
    assert.equal(decision.resource, 'https://other.example');
  });

  it('is never used for another pod', async () => {
    const fixture = openFixture();
    handOver(fixture);
    for (const hasTokens of [false, true]) {
      fixture.memory.hasTokens = hasTokens;
      const exchange = exchangeOf(callerAt('127.0.0.12'), vault);
      const { decision } = await fixture.tokens.handle(exchange);
      assert.equal(decision.grant?.pod?.uid, 'two', `cached token: ${hasTokens}`);
    }
    const nobody = exchangeOf(callerAt('127.0.0.99'), vault);
    const answer = fixture.tokens.handle(nobody);
    await nextTurn();
    fixture.clock.advance(2_000);
    assert.equal((await answer).reason, 'pod_unknown');
  });

  it('is never used when an object behind it has changed, or a second later', async () => {
    const fixture = openFixture();
    handOver(fixture);
    fixture.grants.bindings.remove({ namespace: 'default', name: 'one', uid: 'one' });
    const exchange = exchangeOf(callerAt('127.0.0.11'), vault);
    assert.equal((await fixture.tokens.handle(exchange)).reason, 'binding_missing');

    const later = openFixture();
    handOver(later);
    later.clock.advance(1_000);
    const authorize = mock.method(later.grants, 'grantsOf');
    const caller = callerAt('127.0.0.11');
    const request = { method: 'GET', url: `${path}?${vault}` } as IncomingMessage;
    const response = { destroyed: false, closed: false } as ServerResponse;
    await later.tokens.handle(
      new HttpExchange(request, response, caller, later.clock.monotonicMs(), 'id'),
    );
    assert.ok(authorize.mock.callCount() > 0);
  });
});

describe('the fetches of one caller', () => {
  it('release their places when they end, also after an error', async () => {
    const fixture = openFixture();
    const fetchSixteen = (): Promise<PromiseSettledResult<Answer>[]> => {
      const answers = Array.from({ length: 16 }, (_, index) =>
        Promise.resolve(
          fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), `${vault}/${index}`)),
        ),
      );
      return Promise.allSettled(answers);
    };
    fixture.memory.whileFetching = () => {
      throw new RangeError('source');
    };
    for (const { status } of await fetchSixteen()) assert.equal(status, 'rejected');
    fixture.memory.whileFetching = () => undefined;
    for (const round of ['after errors', 'after tokens']) {
      const settled = await fetchSixteen();
      const statuses = settled.map((each) => each.status === 'fulfilled' && each.value.status);
      assert.deepEqual(new Set(statuses), new Set([200]), round);
    }
  });

  it('are counted by pod, also for pods that share the address of the node', async () => {
    const nodeIp = '10.224.0.4';
    const fixture = openFixture();
    for (const name of ['one', 'two']) {
      fixture.pods.upsert(
        createPod({
          name,
          uid: name,
          cgroupUid: name,
          ips: [nodeIp],
          hostNetwork: true,
          labels: { aadpodidbinding: name },
        }),
      );
    }
    const fetched = Promise.withResolvers<void>();
    fixture.memory.whileFetching = () => fetched.promise;
    const answers = { one: [] as Promise<Answer>[], two: [] as Promise<Answer>[] };
    for (const name of ['one', 'two'] as const) {
      const caller = new CallerConnection(
        { remoteIp: nodeIp, localIp: nodeIp },
        { kind: 'attested', cgroupId: 7n },
        () => name,
      );
      for (let index = 0; index < 16; index++) {
        const query = `${vault}/${index}`;
        answers[name].push(Promise.resolve(fixture.tokens.handle(exchangeOf(caller, query))));
      }
      const oneMore = await fixture.tokens.handle(exchangeOf(caller, other));
      assert.equal(oneMore.reason, 'caller_throttled', name);
    }
    fetched.resolve();
    const all = await Promise.all([...answers.one, ...answers.two]);
    assert.deepEqual(new Set(all.map(({ status }) => status)), new Set([200]));
  });
});

describe('an object id that no known identity has', () => {
  it('is searched no longer than a client waits, and the search continues at the next request', async () => {
    const fixture = openFixture();
    const labels = { aadpodidbinding: 'one' };
    fixture.pods.upsert(
      createPod({ name: 'one', uid: 'one', cgroupUid: 'one', ips: ['127.0.0.11'], labels }),
    );
    for (let index = 0; index < 20; index++) {
      const name = `more-${index}`;
      const more = `${index}`.padStart(8, '0') + clientId.slice(8);
      fixture.grants.identities.upsert(createIdentity({ name, uid: name, clientId: more }));
      const binding = { name, uid: name, identityName: name, selector: 'one' };
      fixture.grants.bindings.upsert(createBinding(binding));
    }
    let fetches = 0;
    fixture.memory.whileFetching = () => {
      fetches++;
      fixture.clock.advance(1_500);
    };
    const query = `${vault}&object_id=44444444-4444-4444-8444-444444444444`;
    const answer = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), query));
    assert.deepEqual([answer.status, answer.reason], [503, 'agent_not_synced']);
    assert.equal(fetches, 7);
    assert.deepEqual([...fixture.memory.fetchedResources], ['https://vault.example']);
  });

  it('is searched again when the identity that has it changes meanwhile', async () => {
    const fixture = openFixture();
    let turns = 0;
    fixture.memory.whileFetching = () => {
      turns++;
      if (turns > 1) return;
      const changed = clientId.replace('2', '3');
      fixture.grants.identities.upsert(
        createIdentity({ name: 'one', uid: 'one', clientId: changed }),
      );
    };
    const query = `${vault}&object_id=44444444-4444-4444-8444-444444444444`;
    await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), query));
    assert.equal(turns, 2);
  });

  it('is searched until a fetch fails for a moment, or nobody waits any more', async () => {
    const query = `${vault}&object_id=44444444-4444-4444-8444-444444444444`;
    for (const [reason, expected, fetches] of [
      ['upstream_down', 'upstream_down', 1],
      ['upstream_throttled', 'upstream_throttled', 1],
      ['upstream_refused', 'selector_not_bound', 2],
      ['federation_refused', 'federation_pending', 2],
    ] as const) {
      const fixture = openWithTenants();
      fixture.grants.identities.upsert(createIdentity({ name: 'second', uid: 'second', clientId }));
      const binding = { name: 'second', uid: 'second', identityName: 'second', selector: 'one' };
      fixture.grants.bindings.upsert(createBinding(binding));
      fixture.memory.brokenTenant = 'first.example';
      fixture.memory.reason = reason;
      const exchange = exchangeOf(callerAt('127.0.0.11'), query);
      assert.equal((await fixture.tokens.handle(exchange)).reason, expected);
      assert.equal(fixture.memory.fetches.length, fetches, reason);
      fixture.memory.fetches.length = 0;
      fixture.memory.brokenTenant = '';
      const gone = exchangeOf(callerAt('127.0.0.11'), query);
      fixture.memory.whileFetching = () => Object.assign(gone.response, { destroyed: true });
      assert.equal((await fixture.tokens.handle(gone)).reason, 'agent_not_synced');
      assert.equal(fixture.memory.fetches.length, 1, 'nobody waits');
    }
  });

  it('is refused like an unknown client id', async () => {
    const fixture = openFixture();
    for (const name of ['client_id', 'object_id']) {
      const query = `${vault}&${name}=44444444-4444-4444-8444-444444444444`;
      const answer = await fixture.tokens.handle(exchangeOf(callerAt('127.0.0.11'), query));
      assert.deepEqual([answer.status, answer.reason], [400, 'selector_not_bound'], name);
      const { grant } = answer.decision;
      assert.ok(grant?.kind === 'refused' && !grant.isPending, name);
    }
  });
});

const nodeIp = '10.224.0.4';
const clientIds = {
  one: '22729e47-74ce-4b43-8eea-aab5f2073301',
  two: '22729e47-74ce-4b43-8eea-aab5f2073302',
};
const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://one.example';
const otherTarget =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://two.example';

/** Two pods on the host network, which share the node's address, each bound to an identity. */
function openShared(given: WorldGiven = {}) {
  const clock = new HandClock(1_000_000);
  const { pods, grants, ownerIndex, fastPath, hits } = world({
    ...given,
    clock,
    policy: { graceMs: 0 },
    tokens: {},
  });
  for (const name of ['one', 'two'] as const) {
    pods.upsert(
      createPod({
        name,
        uid: name,
        cgroupUid: name,
        ips: [nodeIp],
        hostNetwork: true,
        labels: { aadpodidbinding: name },
      }),
    );
    grants.identities.upsert(createIdentity({ name, uid: name, clientId: clientIds[name] }));
    grants.bindings.upsert(createBinding({ name, uid: name, identityName: name, selector: name }));
  }
  /** One request of the process in the pod's cgroup on a new connection. @returns its decision. */
  function ask(pod: string, asked = target): GrantedDecision | undefined {
    const attestation = { kind: 'attested', cgroupId: 1n } as const;
    const caller = new CallerConnection(
      { remoteIp: nodeIp, localIp: nodeIp },
      attestation,
      () => pod,
    );
    hits.length = 0;
    new FastConnection(fastPath, caller).ask(asked);
    return hits[0];
  }
  return { clock, pods, grants, ownerIndex, ask };
}

describe('a decision that was made for another connection', () => {
  it('is found by connections of the same pod with the same request', () => {
    const { ask } = openShared();
    const first = ask('one');
    assert.equal(first?.grant.identity?.name, 'one');
    assert.equal(ask('one'), first);
    assert.equal(ask('one', otherTarget)?.query.resource, 'https://two.example');
    assert.equal(ask('one'), first);
  });

  it('is never used for another pod of the same address', () => {
    const { ask } = openShared();
    for (const pod of ['one', 'two', 'one', 'two']) {
      assert.equal(ask(pod)?.grant.identity?.name, pod);
    }
  });

  it('is kept for each of the many requests that a pod repeats, up to a limit', () => {
    const { ask } = openShared();
    const nth = (number: number) => `${target}/${number}`;
    const others = ask('two');
    const decisions = Array.from({ length: 500 }, (_, number) => ask('one', nth(number)));
    for (const [number, decision] of decisions.entries())
      assert.equal(ask('one', nth(number)), decision);
    for (let number = 500; number < 2_000; number++) ask('one', nth(number));
    assert.notEqual(ask('one', nth(0)), decisions[0], 'it had 2,000 requests');
    assert.equal(ask('two'), others, 'the other pod lost its decision');
  });

  it('is not kept for a request that is long', () => {
    const { ask } = openShared();
    const long = `${target}/`.padEnd(512, 'x');
    const first = ask('one', long);
    assert.ok(first !== undefined);
    assert.equal(ask('one', long), first);
    const longer = ask('one', `${long}x`);
    assert.notEqual(ask('one', `${long}x`), longer);
  });

  it('is kept for a limited number of requests of all pods together', () => {
    const { ask, pods } = openShared();
    const first = ask('one');
    const labels = { aadpodidbinding: 'one' };
    for (let pod = 0; pod < 9; pod++) {
      const name = `pod-${pod}`;
      const own = { name, uid: name, cgroupUid: name, ips: [nodeIp], hostNetwork: true, labels };
      pods.upsert(createPod(own));
    }
    const kept = ask('one');
    assert.notEqual(kept, first, 'pods were added since');
    for (let pod = 0; pod < 7; pod++) {
      for (let number = 0; number < 500; number++) ask(`pod-${pod}`, `${target}/${number}`);
    }
    assert.equal(ask('one'), kept);
    for (let number = 0; number < 500; number++) {
      ask('pod-7', `${target}/${number}`);
      ask('pod-8', `${target}/${number}`);
    }
    assert.notEqual(ask('one'), kept, 'there were more than 4,096');
  });

  it('is not used for a cached token when a client requests a new one', () => {
    const { ask } = openShared();
    assert.ok(ask('one') !== undefined);
    assert.equal(ask('one', `${target}&bypass_cache=true`), undefined);
    const hash = `token_sha256_to_refresh=${'ab'.repeat(32)}`;
    assert.equal(ask('one', `${target}&${hash}`), undefined);
  });

  it('ends with a change of an object behind it, and after a second', () => {
    const { ask, grants, clock } = openShared();
    const first = ask('one');
    clock.advance(1_001);
    const second = ask('one');
    assert.notEqual(second, first);
    grants.bindings.remove({ namespace: 'default', name: 'one', uid: 'one' });
    assert.equal(ask('one'), undefined);
  });

  it('ends with the grant of its identity, on the fast path too', () => {
    const owned = { namespaces: ['default'], clientIds: Object.values(clientIds) };
    const { ask, ownerIndex } = openShared({ owners: 'enforce', identityGrants: [owned] });
    assert.equal(ask('one')?.grant.identity?.name, 'one');
    assert.equal(ask('two')?.grant.identity?.name, 'two');
    const left = { namespaces: ['default'], clientIds: [clientIds.two] };
    ownerIndex.grants.replace([createIdentityGrant(left)]);
    assert.equal(ask('one'), undefined);
    assert.equal(ask('two')?.grant.identity?.name, 'two');
  });
});
