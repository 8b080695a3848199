import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it, mock } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Answer } from '../../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import type { GrantedDecision } from '../../../../src/nmi/server/decision-cache.ts';
import type { HttpExchange } from '../../../../src/nmi/server/request.ts';
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
const unknownId = '44444444-4444-4444-8444-444444444444';

const nodeIp = '10.224.0.4';
const bindingOfOne = { namespace: 'default', name: 'one', uid: 'one' };

function podOf(name: string, ip: string, hostNetwork = false): Pod {
  const labels = { aadpodidbinding: name };
  return createPod({ name, uid: name, cgroupUid: name, ips: [ip], hostNetwork, labels });
}

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
    fixture.pods.upsert(podOf(name, `127.0.0.1${index + 1}`));
    fixture.grants.identities.upsert(createIdentity({ name, uid: name, clientId }));
    fixture.grants.bindings.upsert(
      createBinding({ name, uid: name, identityName: name, selector: name }),
    );
  }
  const ask = (query = vault, from: Parameters<typeof fixture.reply>[1] = '127.0.0.11') =>
    fixture.reply(query, from);
  return { ...fixture, clock, memory, ask };
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
    const { status, decision } = fixture.ask() as TokenAnswer;
    const { grant, cache, resource } = decision;
    assert.deepEqual(
      [status, grant?.kind, cache, resource],
      [200, 'granted', 'hit', 'https://vault.example'],
    );
  });

  it('is not used for a request that is refused, which is at once', () => {
    for (const [query, expected] of [
      ['resource=r', 'parameter_missing'],
      [`${vault}&client_id=${unknownId}`, 'selector_not_bound'],
    ] as const) {
      const answer = openFixture().ask(query);
      assert.ok(!(answer instanceof Promise));
      assert.equal(answer.reason, expected);
    }
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
      assert.equal((await fixture.ask(`${vault}&${parameter}`)).status, 200);
      assert.deepEqual(fixture.memory.fetches, [fetch]);
      assert.deepEqual([...fixture.memory.fetchedResources], ['https://vault.example']);
    });
  }
});

describe('an identity with further tenants', () => {
  const tokensIn = ({ body }: Answer): number => (JSON.parse(body) as unknown[]).length;

  it('is answered with a token of each tenant, at once when memory has them', async () => {
    const fixture = openWithTenants();
    assert.equal(tokensIn(await fixture.ask()), tenants.length);
    const each = tenants.map((tenant) => `get ${tenant}`);
    assert.deepEqual(fixture.memory.fetches, each);
    fixture.memory.hasTokens = true;
    assert.equal(tokensIn(fixture.ask() as Answer), tenants.length);
    assert.deepEqual(fixture.memory.fetches, each);
  });

  for (const tenant of tenants) {
    it(`waits for a token of ${tenant} that memory does not have, and is refused without`, async () => {
      const fixture = openWithTenants();
      Object.assign(fixture.memory, { hasTokens: true, absentTenant: tenant });
      assert.equal(tokensIn(await fixture.ask()), tenants.length);
      assert.ok(fixture.memory.fetches.includes(`get ${tenant}`));
      fixture.memory.brokenTenant = tenant;
      const { status, reason, decision } = await fixture.ask();
      assert.deepEqual([status, reason, decision.cache], [503, 'upstream_down', 'miss']);
    });
  }
});

describe('a permission that ends while its token is fetched', () => {
  it('prevents the answer, whatever the fetch returned', async () => {
    const fixture = openFixture();
    fixture.memory.whileFetching = () => {
      fixture.grants.bindings.remove(bindingOfOne);
    };
    const answer = await fixture.ask();
    assert.equal(answer.reason, 'binding_missing');
  });

  it('prevents the answer when it was a grant of the identity to the namespace', async () => {
    const identityGrants = [{ namespaces: ['default'], clientIds: [clientId] }];
    const fixture = openFixture({ owners: 'enforce', identityGrants });
    const { ask } = fixture;
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
    const moved = await fixture.ask();
    assert.equal(moved.reason, 'ok');
    const { grant } = moved.decision;
    assert.equal(grant?.kind === 'granted' && grant.identity?.name, 'other');
    fixture.memory.whileFetching = () => bind('two');
    const twin = (await fixture.ask()).decision.grant;
    assert.equal(twin?.kind === 'granted' && twin.identity?.name, 'two', 'of the same client id');
    turns = 0;
    fixture.memory.whileFetching = () => bind(turns++ % 2 === 0 ? 'one' : 'other');
    const restless = await fixture.ask();
    assert.equal(restless.reason, 'agent_not_synced');
    assert.match(restless.body, /keep changing/);
    assert.equal(turns, 4);
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
    const answer = (number: number, ip = '127.0.0.11') => fixture.ask(of(number), ip);
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

  it('is never used for another target or pod', async () => {
    const fixture = openFixture();
    handOver(fixture);
    const { decision } = await fixture.ask(other);
    assert.equal(decision.resource, 'https://other.example');
    for (const hasTokens of [false, true]) {
      fixture.memory.hasTokens = hasTokens;
      const { decision: ofTwo } = await fixture.ask(vault, '127.0.0.12');
      assert.equal(ofTwo.grant?.pod?.uid, 'two', `cached token: ${hasTokens}`);
    }
    const answer = fixture.ask(vault, '127.0.0.99');
    await nextTurn();
    fixture.clock.advance(2_000);
    assert.equal((await answer).reason, 'pod_unknown');
  });

  it('is never used when an object behind it has changed, or a second later', async () => {
    const fixture = openFixture();
    handOver(fixture);
    fixture.grants.bindings.remove(bindingOfOne);
    assert.equal((await fixture.ask()).reason, 'binding_missing');
    const later = openFixture();
    handOver(later);
    later.clock.advance(1_000);
    const authorize = mock.method(later.grants, 'grantsOf');
    await later.ask();
    assert.ok(authorize.mock.callCount() > 0);
  });
});

describe('the fetches of one caller', () => {
  it('release their places when they end, also after an error', async () => {
    const fixture = openFixture();
    const fetchSixteen = (): Promise<PromiseSettledResult<Answer>[]> => {
      const answers = Array.from({ length: 16 }, (_, index) =>
        Promise.resolve(fixture.ask(`${vault}/${index}`)),
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
    const fixture = openFixture();
    for (const name of ['one', 'two']) fixture.pods.upsert(podOf(name, nodeIp, true));
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
        answers[name].push(Promise.resolve(fixture.ask(query, caller)));
      }
      const oneMore = await fixture.ask(other, caller);
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
    const query = `${vault}&object_id=${unknownId}`;
    const answer = await fixture.ask(query);
    assert.deepEqual([answer.status, answer.reason], [503, 'agent_not_synced']);
    assert.equal(fetches, 7);
    assert.deepEqual([...fixture.memory.fetchedResources], ['https://vault.example']);
  });

  it('is searched again when the identity that has it changes meanwhile', async () => {
    const fixture = openFixture();
    let turns = 0;
    fixture.memory.whileFetching = () => {
      const changed = { name: 'one', uid: 'one', clientId: clientId.replace('2', '3') };
      if (++turns === 1) fixture.grants.identities.upsert(createIdentity(changed));
    };
    await fixture.ask(`${vault}&object_id=${unknownId}`);
    assert.equal(turns, 2);
  });

  it('is searched until a fetch fails for a moment, or nobody waits any more', async () => {
    const query = `${vault}&object_id=${unknownId}`;
    for (const [reason, expected, fetches] of [
      ['upstream_down', 'upstream_down', 1],
      ['upstream_throttled', 'upstream_throttled', 1],
      ['upstream_refused', 'selector_not_bound', 2],
      ['identity_not_assigned', 'selector_not_bound', 2],
      ['federation_refused', 'federation_pending', 2],
    ] as const) {
      const fixture = openWithTenants();
      fixture.grants.identities.upsert(createIdentity({ name: 'second', uid: 'second', clientId }));
      const binding = { name: 'second', uid: 'second', identityName: 'second', selector: 'one' };
      fixture.grants.bindings.upsert(createBinding(binding));
      fixture.memory.brokenTenant = 'first.example';
      fixture.memory.reason = reason;
      assert.equal((await fixture.ask(query)).reason, expected);
      assert.equal(fixture.memory.fetches.length, fetches, reason);
      fixture.memory.fetches.length = 0;
      fixture.memory.brokenTenant = '';
      const gone = exchangeOf(callerAt('127.0.0.11'), query);
      fixture.memory.whileFetching = () => Object.assign(gone.response, { destroyed: true });
      assert.equal((await fixture.tokens.handle(gone)).reason, 'agent_not_synced');
      assert.equal(fixture.memory.fetches.length, 1, 'nobody waits');
    }
  });
});

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
    pods.upsert(podOf(name, nodeIp, true));
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
  const labels = { aadpodidbinding: 'one' };

  it('is found by connections of the same pod with the same request', () => {
    const { ask } = openShared();
    const first = ask('one');
    assert.equal(first?.grant.identity?.name, 'one');
    assert.equal(ask('one'), first);
    assert.equal(ask('one', otherTarget)?.query.resource, 'https://two.example');
    assert.equal(ask('two')?.grant.identity?.name, 'two', 'of the same address');
    assert.equal(ask('one'), first);
  });

  it('is kept for the latest requests of a pod, and of all pods together, unless they are long', () => {
    const { ask, pods } = openShared();
    for (let at = 0; at < 9; at++) pods.upsert({ ...podOf(`pod-${at}`, nodeIp, true), labels });
    const askMany = (pod: string, from: number, to: number) =>
      Array.from({ length: to - from }, (_, at) => ask(pod, `${target}/${from + at}`));
    const others = ask('two');
    const decisions = askMany('one', 0, 500);
    assert.deepEqual(askMany('one', 0, 500), decisions);
    for (const [at, decision] of askMany('one', 0, 500).entries())
      assert.equal(decision, decisions[at]);
    askMany('one', 500, 2_000);
    assert.notEqual(ask('one', `${target}/0`), decisions[0], 'it had 2,000 requests');
    assert.equal(ask('two'), others, 'the other pod lost its decision');
    for (let at = 0; at < 7; at++) askMany(`pod-${at}`, 0, 500);
    assert.equal(ask('two'), others);
    for (let at = 7; at < 9; at++) askMany(`pod-${at}`, 0, 500);
    assert.notEqual(ask('two'), others, 'there were more than 4,096');
    const long = `${target}/`.padEnd(512, 'x');
    assert.equal(ask('two', long), ask('two', long));
    assert.notEqual(ask('two', `${long}x`), ask('two', `${long}x`));
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
    grants.bindings.remove(bindingOfOne);
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
