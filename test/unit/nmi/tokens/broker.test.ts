import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import type { SourceFailure } from '../../../../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import type { CachedToken } from '../../../../src/nmi/tokens/broker.ts';
import { tokenKey } from '../../../../src/nmi/grants/cache-key.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../../support/cache-objects.ts';
import { createEntraIdentity } from '../../../support/entra-identity.ts';
import { hourMs, pass } from '../../../support/token-fixture.ts';
import { world } from '../../../world.ts';
import type { OwnersMode } from '../../../../src/nmi/grants/identity-owners.ts';

const clientIdA = '11111111-1111-4111-8111-111111111111';
const clientIdB = '22222222-2222-4222-8222-222222222222';
const a: UpstreamIdentity = { kind: 'client_id', value: clientIdA };
const b: UpstreamIdentity = { kind: 'client_id', value: clientIdB };
const node: UpstreamIdentity = { kind: 'unnamed' };
const resource = 'https://vault.azure.net';
const audience = 'api://AzureADTokenExchange';
const party = { namespace: 'default', pod: 'pod-a' };

function open(given: { readonly maxEntries?: number; readonly owners?: OwnersMode } = {}) {
  const { maxEntries = 100, owners = 'off' } = given;
  const named = [
    ['a', clientIdA],
    ['b', clientIdB],
  ] as const;
  return world({
    identities: named.map(([name, clientId]) => ({ name, clientId })),
    bindings: named.map(([name]) => ({ name, identityName: name, selector: name })),
    pods: named.map(([name]) => ({ name: `pod-${name}`, labels: { aadpodidbinding: name } })),
    owners,
    identityGrants: [{ namespaces: ['default'], clientIds: [clientIdA, clientIdB] }],
    broker: { maxEntries },
  });
}

type Fixture = ReturnType<typeof open>;

const ask = ({ broker }: Fixture, identity: UpstreamIdentity, of = resource) =>
  broker.get(identity, of, party);

const renew = ({ broker }: Fixture, identity: UpstreamIdentity) =>
  broker.renew(identity, resource, party);

const bypasses = ({ calls }: Fixture) => calls.map(({ bypassCache }) => bypassCache);

const tokenOf = (answer: CachedToken) => (answer.ok ? answer.rendered.token.accessToken : '');

type Credential = EntraIdentity['credential'];
type Leg = Extract<Credential, { readonly kind: 'chained' }>['assertedBy'];

function chainOf(clientId: string, assertedBy: Leg): EntraIdentity {
  return createEntraIdentity({ clientId, credential: { kind: 'chained', assertedBy, audience } });
}

/** An agent identity whose blueprint trusts a service account. */
function agentOf(clientId: string): EntraIdentity {
  const serviceAccount = { namespace: 'n', name: 'robot' };
  const credential = { kind: 'federated_pod', serviceAccount, audience } as const;
  const blueprint = createEntraIdentity({ clientId: `blueprint-${clientId}`, credential });
  const assertedBy = { ...blueprint, credential, agentIdentity: clientId };
  return chainOf(clientId, assertedBy);
}

function cachedTokens({ broker }: Fixture): number | undefined {
  return broker.samples().find(({ metric }) => metric === 'nmi_token_cache_entries')?.value;
}

function isCached({ broker }: Fixture, identity: UpstreamIdentity): boolean {
  return broker.peek(tokenKey(identity, resource)) !== undefined;
}

function failureOf(answer: CachedToken): SourceFailure {
  assert.ok(!answer.ok);
  return answer.failure;
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

describe('the broker', () => {
  it('has one id for a fetch, its request to the source, and the resulting token or failure', async () => {
    const fixture = open();
    const [first, second] = await Promise.all([ask(fixture, a), ask(fixture, a)]);
    const idOf = (cached: CachedToken) => (cached.ok ? cached.rendered.token.fetchId : undefined);
    assert.deepEqual([idOf(first), idOf(second)], ['fetch 1', 'fetch 1']);
    assert.equal(fixture.broker.peek(tokenKey(a, resource))?.token.fetchId, 'fetch 1');
    fixture.upstream.failure = { reason: 'upstream_refused', description: 'no', cooldownMs: 5_000 };
    const failed = await ask(fixture, b);
    assert.equal(failureOf(failed).fetchId, 'fetch 2');
    assert.equal(failureOf(await ask(fixture, b)).fetchId, 'fetch 2');
    assert.deepEqual(
      fixture.calls.map(({ correlationId }) => correlationId),
      ['fetch 1', 'fetch 2'],
    );
    assert.deepEqual(fixture.fetches, [
      [a, true, 0],
      [b, false, 0],
    ]);
  });

  it('has another id for each fetch from Entra ID, which pods see in errors', async () => {
    const fixture = open();
    const identity = createEntraIdentity();
    await ask(fixture, identity);
    await fixture.broker.get(identity, `${resource}/other`, party);
    const ids = fixture.calls.map(({ correlationId }) => correlationId);
    assert.equal(new Set(ids).size, 2);
    for (const id of ids) assert.match(id, /^[0-9a-f-]{36}$/);
  });

  it('identifies an identity by its id in any case, and a resource by its exact spelling', async () => {
    const fixture = open();
    await ask(fixture, a);
    assert.ok(isCached(fixture, { kind: 'client_id', value: clientIdA.toUpperCase() }));
    assert.equal(fixture.broker.peek(tokenKey(a, `${resource}/`)), undefined);
    assert.equal(isCached(fixture, b), false);
    assert.equal(fixture.broker.objectIdOf(a), 'object-id');
  });

  const podA = { name: 'pod-a', labels: { aadpodidbinding: 'a' } };
  const grantOfB = createIdentityGrant({ namespaces: ['default'], clientIds: [clientIdB] });
  const revocations: Readonly<Record<string, (fixture: Fixture) => void>> = {
    pod: ({ pods }) => pods.remove(createPod(podA)),
    'label of the pod': ({ put }) => put({ pods: [{ name: 'pod-a' }] }),
    'running pod': ({ put }) => put({ pods: [{ ...podA, phase: 'Succeeded' }] }),
    binding: ({ grants }) => grants.bindings.remove(createBinding({ name: 'a' })),
    identity: ({ grants }) => grants.identities.remove(createIdentity({ name: 'a' })),
    'client id of the identity': ({ put }) =>
      put({ identities: [{ name: 'a', clientId: clientIdB }] }),
    AzureIdentityGrant: ({ ownerIndex }) => ownerIndex.grants.replace([grantOfB]),
  };
  for (const [what, revoke] of Object.entries(revocations)) {
    it(`drops the tokens of an identity whose last ${what} is deleted, and no others`, async () => {
      const fixture = open({ owners: 'enforce' });
      await ask(fixture, a);
      await ask(fixture, b);
      revoke(fixture);
      await pass(fixture.clock, 0);
      assert.equal(isCached(fixture, a), false);
      assert.equal(isCached(fixture, b), true);
      assert.equal(cachedTokens(fixture), 1);
      assert.equal(fixture.broker.objectIdOf(a), undefined);
      assert.equal(fixture.broker.objectIdOf(b), 'object-id');
    });
  }

  it('reports when its tokens end, and how long ago each source returned one', async () => {
    const fixture = open();
    const valueOf = (metric: string) =>
      fixture.broker
        .samples()
        .filter((sample) => sample.metric === metric)
        .map(({ labels, value }) => [labels?.['source'], Math.round(value)]);
    assert.deepEqual(valueOf('nmi_upstream_last_success_seconds'), [], 'none yet');
    await ask(fixture, a);
    const [[source, lifeS = 0] = []] = valueOf('nmi_token_soonest_expiry_seconds');
    assert.equal(source, 'imds');
    await pass(fixture.clock, 60_000);
    assert.deepEqual(valueOf('nmi_upstream_last_success_seconds'), [['imds', 60]]);
    assert.deepEqual(valueOf('nmi_token_soonest_expiry_seconds'), [['imds', Number(lifeS) - 60]]);
  });

  it('reports from the first failed refresh on that a source refuses an identity', async () => {
    const fixture = open();
    const { broker, clock, upstream, reported } = fixture;
    const seriesOf = () =>
      broker
        .samples()
        .filter(({ metric }) => metric.startsWith('nmi_identit'))
        .map(({ labels, value }) => [...Object.values(labels ?? {}), Math.round(value / 3_600)]);
    await broker.get(a, resource, party);
    await broker.get(b, resource, party);
    assert.deepEqual(seriesOf(), []);
    await pass(clock, 11 * hourMs);
    await broker.get(a, resource, party);
    upstream.failure = { reason: 'identity_not_assigned', description: 'no', cooldownMs: 1_000 };
    await pass(clock, hourMs + 1);
    assert.deepEqual(reported, ['a identity_not_assigned, 12 h left']);
    assert.deepEqual(broker.refusalOf(a, undefined)?.leftMs, broker.refusalOf(a, resource)?.leftMs);
    assert.equal(broker.refusalOf(a, 'https://another.example')?.leftMs, 0);
    assert.equal(broker.refusalOf(b, undefined), undefined, 'unused, so it is not refreshed');
    assert.deepEqual(seriesOf(), [
      ['object', 'identity_not_assigned', 0],
      ['default', 'a', 'object', 'identity_not_assigned', 12],
    ]);
    upstream.failure = undefined;
    await pass(clock, 5 * 60_000);
    assert.deepEqual(reported.at(-1), 'a accepted');
    assert.deepEqual([broker.refusalOf(a, undefined), seriesOf()], [undefined, []]);
  });

  it('reports failing tokens of excepted pods as of the node', async () => {
    const { broker, clock, upstream, reported, grants, pods } = open();
    grants.exceptions.upsert(createException({ name: 'x', podLabels: { app: 'x' } }));
    pods.upsert(createPod({ name: 'excepted', labels: { app: 'x' } }));
    await broker.get(node, resource, party);
    await pass(clock, 11 * hourMs);
    await broker.get(node, resource, party);
    upstream.failure = { reason: 'upstream_down', description: 'no', cooldownMs: 250 };
    await pass(clock, 2 * hourMs);
    const [, sample] = broker.samples().filter(({ metric }) => metric.startsWith('nmi_identit'));
    const labels = { namespace: '', identity: 'node', cause: 'platform', reason: 'upstream_down' };
    assert.deepEqual(sample?.labels, labels);
    assert.deepEqual(reported, []);
  });

  it('keeps what another pod of the node still needs', async () => {
    const fixture = open();
    fixture.pods.upsert(createPod({ name: 'twin', labels: { aadpodidbinding: 'a' } }));
    await ask(fixture, a);
    fixture.pods.remove(createPod({ name: 'pod-a' }));
    await pass(fixture.clock, 0);
    assert.equal(isCached(fixture, a), true);
  });

  it('drops once for many changes, and scans nothing when it is empty', async () => {
    const fixture = open();
    for (let index = 0; index < 10; index++) {
      fixture.pods.upsert(createPod({ name: `early-${index}` }));
    }
    assert.deepEqual(fixture.clock.armed, []);
    await ask(fixture, a);
    const before = fixture.clock.armed.length;
    for (let index = 0; index < 10; index++) {
      fixture.pods.upsert(createPod({ name: `late-${index}` }));
    }
    assert.equal(fixture.clock.armed.length, before + 1);
  });

  it('renews for bound pods, and not for deleted pods', async () => {
    const fixture = open();
    await ask(fixture, a);
    await ask(fixture, b);
    await pass(fixture.clock, 11 * hourMs);
    assert.ok(isCached(fixture, a) && isCached(fixture, b));
    fixture.pods.remove(createPod({ name: 'pod-b' }));
    await pass(fixture.clock, 2 * hourMs);
    assert.deepEqual(
      fixture.calls.map(({ identity }) => identity),
      [a, b, a],
    );
    assert.deepEqual(fixture.refreshes, ['ok']);
  });

  it('drops the tokens of a revoked identity at once, also one that is on its way', async () => {
    const fixture = open();
    const revoke = (notBeforeWallMs: number): UpstreamIdentity => {
      const identity = { name: 'a', clientId: clientIdA, notBeforeWallMs };
      fixture.grants.identities.upsert(createIdentity(identity));
      return { ...a, notBeforeWallMs };
    };
    await ask(fixture, a);
    await ask(fixture, b);
    const since = revoke(1_000);
    assert.ok(!isCached(fixture, since), 'not found from the moment that the object is known');
    await pass(fixture.clock, 0);
    assert.deepEqual([isCached(fixture, a), isCached(fixture, b)], [false, true]);

    const late = ask(fixture, since);
    const again = revoke(2_000);
    await pass(fixture.clock, 0);
    assert.ok((await late).ok);
    assert.ok(!isCached(fixture, since) && !isCached(fixture, again));
    await ask(fixture, again);
    assert.ok(isCached(fixture, again));
    assert.equal(fixture.calls.length, 4);
  });

  it('keeps the tokens of an excepted pod while there is one, and of no revoked identity', async () => {
    const fixture = open();
    fixture.pods.upsert(createPod({ name: 'addon', labels: { app: 'addon' } }));
    fixture.grants.exceptions.upsert(createException({ podLabels: { app: 'addon' } }));
    await ask(fixture, node);
    await ask(fixture, a);
    fixture.pods.remove(createPod({ name: 'pod-a' }));
    await pass(fixture.clock, 0);
    assert.equal(isCached(fixture, a), false, 'it was that of a bound pod');
    assert.equal(isCached(fixture, node), true);
    await ask(fixture, a);
    fixture.pods.upsert(createPod({ name: 'another' }));
    await pass(fixture.clock, 0);
    assert.equal(isCached(fixture, a), true, 'the excepted pod named it');
    fixture.pods.remove(createPod({ name: 'addon' }));
    await pass(fixture.clock, 0);
    assert.equal(cachedTokens(fixture), 0);
  });

  for (const [what, reason, cooldownMs, told, later] of [
    ['of a throttled caller is the rest of the cooldown', 'upstream_throttled', 7_000, 7, 3],
    ['is the advice of a failure without a cooldown', 'upstream_throttled', 0, 7, 7],
    ['is that of a failing upstream with a short cooldown', 'upstream_down', 250, 7, 7],
    ['of a refusal is none', 'upstream_refused', 5_000, undefined, undefined],
  ] as const) {
    it(`reports when to retry, which ${what}`, async () => {
      const fixture = open();
      const failure = { reason, description: 'no', cooldownMs };
      fixture.upstream.failure = told === undefined ? failure : { ...failure, retryAfterS: told };
      assert.equal(failureOf(await ask(fixture, a)).retryAfterS, told);
      await pass(fixture.clock, 4_500);
      assert.equal(failureOf(await ask(fixture, a)).retryAfterS, later);
      const described = fixture.broker.describe([a])[0]?.failure?.retryAfterS;
      if (cooldownMs > 0) assert.equal(described, later);
    });
  }

  it('reports when to retry to a caller for whom there is no room any more', async () => {
    const { clock, broker } = open();
    const told = new Set<string>();
    for (let at = 0; at < 200; at++) {
      void broker.get(a, `${resource}/${at}`, party).then((answer) => {
        if (!answer.ok) told.add(`${answer.failure.reason} ${answer.failure.retryAfterS ?? ''}`);
      });
    }
    await pass(clock, 1);
    assert.deepEqual([...told], ['upstream_throttled 5']);
  });

  it('fetches a new token on request once in ten seconds, and serves all others as before', async () => {
    const fixture = open();
    const anew = async () => tokenOf(await renew(fixture, a));
    const first = tokenOf(await ask(fixture, a));
    const [one, two] = await Promise.all([anew(), anew()]);
    assert.notEqual(one, first);
    assert.equal(one, two);
    assert.deepEqual(bypasses(fixture), [false, true]);
    assert.equal(tokenOf(await ask(fixture, a)), one);
    assert.equal(await anew(), one, 'new enough');
    await pass(fixture.clock, 10_000);
    fixture.upstream.failure = { reason: 'upstream_down', description: 'gone', cooldownMs: 250 };
    assert.equal(await anew(), one, 'better than none');
    const { calls, broker } = open();
    await Promise.all([renew({ ...fixture, broker }, a), renew({ ...fixture, broker }, a)]);
    assert.equal(calls.length, 1, 'also where none was in memory');
  });

  it('fetches a new token for each of several identities whose fetches wait for their turn', async () => {
    const fixture = open();
    const { clock, calls } = fixture;
    for (let at = 0; at < 30; at++) void ask(fixture, a, `${resource}/${at}`);
    const renewed = [renew(fixture, a), renew(fixture, b)];
    const ofRenewed = () => calls.filter((each) => each.resource === resource);
    assert.deepEqual(ofRenewed(), []);
    await pass(clock, 10_000);
    for (const answer of await Promise.all(renewed)) assert.ok(answer.ok);
    assert.deepEqual(
      ofRenewed().map(({ bypassCache }) => bypassCache),
      [true, true],
    );
  });

  it('refreshes a token as usual after a request for a new one was answered from memory', async () => {
    const fixture = open();
    await ask(fixture, a);
    for (let turn = 0; turn < 2; turn++) await renew(fixture, a);
    await pass(fixture.clock, 24 * hourMs);
    await ask(fixture, a);
    assert.deepEqual(bypasses(fixture).slice(0, 3), [false, true, false]);
  });

  it('fetches once more for a request for a new token that joined another fetch', async () => {
    const fixture = open();
    const [early, one, two] = await Promise.all([
      ask(fixture, a),
      renew(fixture, a),
      renew(fixture, a),
    ]);
    assert.ok(early.ok && one.ok && two.ok);
    assert.notEqual(one.rendered, early.rendered);
    assert.equal(one.rendered, two.rendered);
    assert.deepEqual(bypasses(fixture), [false, true]);
    fixture.pods.upsert(createPod({ name: 'another', labels: { aadpodidbinding: 'a' } }));
    await pass(fixture.clock, 24 * hourMs);
    await ask(fixture, a);
    assert.equal(bypasses(fixture).at(-1), false, 'only that request wanted a new one');
  });

  it('replaces a token that its resource has revoked, once for all requests', async () => {
    const fixture = open();
    const bad = tokenOf(await ask(fixture, a));
    const replace = async (token: string) =>
      tokenOf(await fixture.broker.replace(a, resource, party, hashOf(token)));
    assert.equal(await replace('another token'), bad, 'the cached token is not the bad one');
    assert.equal(fixture.calls.length, 1);
    const replaced = new Set(await Promise.all(Array.from({ length: 200 }, () => replace(bad))));
    assert.equal(replaced.size, 1);
    assert.ok(!replaced.has(bad));
    assert.deepEqual(bypasses(fixture), [false, true]);
    const [newer = ''] = replaced;
    assert.equal(await replace(bad), newer, 'for later requests');
    assert.equal(fixture.calls.length, 2);
    assert.equal(await replace(newer), newer, 'one in ten seconds');
    await pass(fixture.clock, 10_000);
    assert.notEqual(await replace(newer), newer);
    assert.equal(fixture.calls.length, 3);
  });

  it('serves fifty resources of one pod at the upstream’s rate, and another pod in between', async () => {
    const fixture = open();
    const startedAtMs = fixture.clock.monotonicMs();
    const serve = async (asked: string, by: typeof party): Promise<number> => {
      const answer = await fixture.broker.get(a, asked, by);
      assert.ok(answer.ok, asked);
      return fixture.clock.monotonicMs() - startedAtMs;
    };
    const many = Array.from({ length: 50 }, (_, index) => serve(`${resource}/${index}`, party));
    await pass(fixture.clock, 500);
    const other = serve(`${resource}/other`, { namespace: 'other', pod: 'pod-b' });
    const shared = serve(`${resource}/49`, { namespace: 'other', pod: 'pod-c' });
    await pass(fixture.clock, 3_000);
    assert.ok(Math.max(...(await Promise.all(many))) <= 3_000);
    assert.ok((await other) <= 1_050, 'its turn comes first');
    assert.ok((await shared) <= 1_050, 'and it joins a fetch that another pod has queued');
    assert.equal(fixture.calls.length, 51);
  });

  it('limits a caller with invented resources to displacing its own tokens', async () => {
    const fixture = open({ maxEntries: 10_000 });
    await ask(fixture, b);
    await ask(fixture, a);
    for (let index = 0; index < 300; index++) {
      await pass(fixture.clock, 100);
      assert.ok(isCached(fixture, a), 'used all the time');
      await fixture.broker.get(a, `${resource}/${index}`, party);
    }
    assert.equal(cachedTokens(fixture), 201);
    assert.ok(isCached(fixture, a) && isCached(fixture, b));
    assert.equal(fixture.broker.peek(tokenKey(a, `${resource}/0`)), undefined);
    assert.ok(fixture.broker.peek(tokenKey(a, `${resource}/299`)) !== undefined);
  });

  it('drops the tokens of an identity when its credential is found deleted', async () => {
    const fixture = open();
    for (const each of [a, b]) await ask(fixture, each);
    const reason = 'credential_missing';
    fixture.upstream.failure = { reason, description: 'gone', cooldownMs: 5_000 };
    await fixture.broker.get(a, `${resource}/other`, party);
    assert.equal(isCached(fixture, a), false);
    assert.ok(isCached(fixture, b));
  });

  it('tracks the Secrets behind its tokens, and drops the tokens of one of them', async () => {
    const fixture = open();
    const secret = { namespace: 'default', name: 'shared' };
    const identities = [
      { kind: 'secret', secret },
      { kind: 'certificate', secret: { ...secret } },
      { kind: 'secret', secret: { ...secret, namespace: 'other' } },
    ].map((credential, at) =>
      createEntraIdentity({ clientId: `${at}`, credential: credential as Credential }),
    );
    for (const identity of [...identities, a]) await ask(fixture, identity);
    assert.deepEqual(fixture.broker.secretsInUse(), [
      secret,
      { namespace: 'other', name: 'shared' },
    ]);
    fixture.broker.dropTokensBySecret({ ...secret });
    assert.deepEqual(
      identities.map((identity) => isCached(fixture, identity)),
      [false, false, true],
    );
    assert.ok(isCached(fixture, a));
    assert.deepEqual(fixture.broker.secretsInUse(), [{ namespace: 'other', name: 'shared' }]);
  });

  it('does not let a hanging authority, or kind of credential, delay any other', async () => {
    const { broker, upstream } = open();
    const at = (authority: string, clientId: string) =>
      createEntraIdentity({ authority, clientId });
    upstream.hanging = 'https://one.example';
    for (let count = 0; count < 10; count++)
      void broker.get(at(upstream.hanging, `${count}`), 'r', party);
    void broker.get(at(upstream.hanging, 'other'), 'r', party);
    assert.ok((await broker.get(at('https://two.example', '1'), 'r', party)).ok);
    assert.ok((await broker.get(a, 'r', party)).ok);
  });

  it('gets the assertion of a chain as a token of its own, and asks nobody without it', async () => {
    const chain = chainOf('app', a);
    const { broker, calls, upstream, clock } = open();
    const sent = () =>
      calls.map((request) => [request.identity.kind, request.resource, request.assertion]);
    assert.ok((await broker.get(chain, resource, party)).ok);
    const first = broker.peek(tokenKey(a, audience))?.token.accessToken;
    assert.ok(first !== undefined);
    assert.ok((await broker.get(chain, 'https://other', party)).ok);
    assert.deepEqual(sent(), [
      ['client_id', audience, undefined],
      ['entra', resource, first],
      ['entra', 'https://other', first],
    ]);

    calls.length = 0;
    upstream.failure = { reason: 'upstream_throttled', description: 'no', cooldownMs: 5_000 };
    const without = chainOf('app', b);
    for (const wanted of [resource, 'https://other', resource]) {
      const failure = failureOf(await broker.get(without, wanted, party));
      assert.equal(failure.reason, 'upstream_throttled');
      assert.match(failure.description, /^no \[earlier leg of the chain: managed identity 2222/);
      assert.equal(failure.retryAfterS, 5);
    }
    assert.deepEqual(sent(), [['client_id', audience, undefined]]);
    clock.advance(4_000);
    const later = failureOf(await broker.get(without, 'https://late', party));
    assert.equal(later.retryAfterS, 1, 'what is left of the cooldown of the leg');
    upstream.failure = undefined;
    clock.advance(1_001);
    for (const wanted of [resource, 'https://late'])
      assert.ok((await broker.get(without, wanted, party)).ok);
  });

  it('does not let chains that wait for the node delay those that begin by federation', async () => {
    const { broker, upstream } = open();
    upstream.isNodeHanging = true;
    for (let count = 0; count < 10; count++) void broker.get(chainOf(`${count}`, a), 'r', party);
    assert.ok((await broker.get(agentOf('1'), 'r', party)).ok);
  });

  it('occupies no slot while it waits after a refusal of an earlier leg', async () => {
    const { broker, upstream, clock, calls } = open();
    upstream.failure = { reason: 'federation_refused', description: 'no', cooldownMs: 250 };
    const pending = ['1', '2', '3', '4'].map((id) => broker.get(agentOf(id), 'r', party));
    await pass(clock, 0);
    upstream.failure = undefined;
    assert.ok((await broker.get(agentOf('5'), 'r', party)).ok);
    assert.deepEqual(
      calls.map(({ identity }) => identity.kind === 'entra' && identity.clientId),
      ['blueprint-1', 'blueprint-2', 'blueprint-3', 'blueprint-4', 'blueprint-5', '5'],
    );
    await pass(clock, 251);
    assert.ok((await Promise.all(pending)).every(({ ok }) => ok));
  });

  it('reports a source that throws, and uses it again', async () => {
    const fixture = open();
    fixture.upstream.error = new Error('bug');
    await assert.rejects(ask(fixture, a), /bug/);
    assert.equal(fixture.sourceBugs.length, 1);
    fixture.upstream.error = undefined;
    assert.ok((await ask(fixture, a)).ok);
  });

  it('arms nothing and follows nothing once it is disposed', async () => {
    const fixture = open();
    await ask(fixture, a);
    fixture.pods.upsert(createPod({ name: 'another' }));
    await ask(fixture, createEntraIdentity());
    const mayRetry = () => fixture.retries.map((take) => take());
    assert.deepEqual(mayRetry(), [true, true]);
    fixture.broker[Symbol.dispose]();
    assert.deepEqual(mayRetry(), [false, false], 'nothing that is under way is tried again');
    fixture.pods.upsert(createPod({ name: 'yet another' }));
    assert.deepEqual(fixture.clock.armed, []);
    assert.equal(failureOf(await ask(fixture, a)).reason, 'upstream_down');
    assert.equal(fixture.calls.length, 2);
  });
});
