import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { EntraSettings, Pod } from '../../../../src/cache/index/objects.ts';
import type { Outcome } from '../../../../src/nmi/explain/explanation.ts';
import { parseExplainQuery } from '../../../../src/nmi/explain/question.ts';
import type { ServiceAccounts } from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import type { SourceFailure } from '../../../../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import { hourMs, minuteMs, pass } from '../../../support/token-fixture.ts';
import { tokenMark, world, type World } from '../../../world.ts';

const clientIdA = '11111111-1111-4111-8111-111111111111';
const clientIdB = '22222222-2222-4222-8222-222222222222';
const tenantId = '33333333-3333-4333-8333-333333333333';
const a: UpstreamIdentity = { kind: 'client_id', value: clientIdA };
const party = { namespace: 'default', pod: 'pod-a' };
const vault = 'https://vault.azure.net';
const labels = { aadpodidbinding: 'app' };
const forVault = `pod=default/p&resource=${encodeURIComponent(vault)}`;
const excepted = { exceptions: [{ name: 'x', podLabels: labels }] };

/** A pod at 10.0.0.1 of the default namespace. */
function addPod(fixture: World, fields: Partial<Pod> = {}): void {
  fixture.put({ pods: [{ name: 'p', ips: ['10.0.0.1'], ...fields }] });
}

function bind(fixture: World, name: string, clientId: string, createdAtWallMs = 0): void {
  fixture.put({
    identities: [{ name, clientId, createdAtWallMs }],
    bindings: [{ name, identityName: name, selector: 'app' }],
  });
}

function openBound(given: Parameters<typeof world>[0] = {}, pod: Partial<Pod> = {}): World {
  const fixture = world(given);
  bind(fixture, 'a', clientIdA);
  addPod(fixture, { labels, ...pod });
  return fixture;
}

/** `200 a by only`, `400 no_binding_label`, `unreachable host-network`. */
function inWords(outcome: Outcome | undefined): string {
  switch (outcome?.kind) {
    case 'granted': {
      const from = outcome.from === undefined ? '' : ` from ${outcome.from}`;
      return `200 ${outcome.identity} by ${outcome.by}${from}`;
    }
    case 'refused':
      return `${outcome.refusal.status} ${outcome.refusal.reason}`;
    case 'unreachable':
      return `unreachable ${outcome.why}`;
    case undefined:
      return 'nothing';
  }
}

function outcomesOf(fixture: World, search = 'pod=default/p'): readonly string[] {
  return fixture.askPod(search).requests.map(({ outcome }) => inWords(outcome));
}

describe('the query of an explanation', () => {
  it('names a pod or none, and the rest of a request beside the pod', () => {
    const rest = { selector: { kind: 'none' }, resource: undefined };
    const who = { kind: 'pod', namespace: 'a', name: 'b' };
    const selector = { kind: 'client_id', value: 'ID' };
    for (const [search, query] of [
      ['', { who: { kind: 'node' }, ...rest }],
      ['pod=a%2Fb', { who, ...rest }],
      ['pod=a/b&client_id=', { who, ...rest }],
      ['pod=a/b&resource=https%3A%2F%2Fr&client_id=ID', { who, selector, resource: 'https://r' }],
    ] as const)
      assert.deepEqual(parseExplainQuery(search), { ok: true, query });
  });

  it('is refused with the reason', () => {
    for (const [search, reason] of [
      ...['', 'a', 'a/', '/b', 'a/b/c'].map((pod) => [`pod=${pod}`, /NAMESPACE\/NAME/] as const),
      ['ip=10.0.0.1', /ip is not known/],
      ['resource=r', /one pod/],
      ['client_id=r', /one pod/],
      ['pod=a/b&pod=a/c', /twice/],
      ['pod=a/b&object_id=x', /object_id is not known/],
      ['pod=a/b&resource=', /resource/],
      ['pod=a/b&resource=a%0Ab', /resource/],
      [`pod=a/b&client_id=${'x'.repeat(2_000)}`, /client_id/],
    ] as const) {
      const result = parseExplainQuery(search);
      assert.match(result.ok ? '' : result.problem, reason, search);
    }
  });

  it('is checked for any text, and its problem is printable', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (search) => {
        const result = parseExplainQuery(search);
        assert.ok(result.ok || /^[\x20-\x7e]+$/.test(result.problem));
      }),
    );
  });
});

describe('the explanation of a pod', () => {
  it('has the request that names no identity beside the one that does', () => {
    const fixture = openBound();
    bind(fixture, 'older', clientIdB, -1_000);
    fixture.put({ bindings: [{ name: 'd', identityName: 'gone', selector: 'app' }] });
    const search = `pod=default/p&client_id=${clientIdA}`;
    const { addresses, label, bindings, identities, requests } = fixture.askPod(search);
    assert.deepEqual([addresses, label], [[{ ip: '10.0.0.1', refusal: undefined }], 'app']);
    assert.deepEqual(
      bindings.map(({ name, identityExists }) => `${name} ${identityExists}`),
      ['a true', 'older true', 'd false'],
    );
    assert.deepEqual(
      identities.map(({ name, upstream }) => `${name} ${upstream?.source ?? ''}`),
      ['older imds', 'a imds'],
    );
    const selectors = requests.map(({ selector }) => selector);
    assert.deepEqual(selectors, ['', `client_id=${clientIdA}`]);
    const outcomes = ['200 older by default', '200 a by client_id'];
    assert.deepEqual(outcomesOf(fixture, search), outcomes);
  });

  it('lists a hundred bindings and identities, those that a request would select first', () => {
    const fixture = world();
    for (let at = 0; at < 101; at++)
      bind(fixture, `i-${at}`, clientIdA.replace(/...$/, `${100 + at}`), at);
    addPod(fixture, { labels });
    const { bindings, identities } = fixture.askPod('pod=default/p');
    assert.deepEqual([bindings.length, identities.length], [100, 100]);
    assert.deepEqual([identities[0]?.name, identities[99]?.name], ['i-0', 'i-99']);
  });

  it('shows the source of each type, and its credential, but no secret of it', () => {
    const fixture = world();
    addPod(fixture, { labels, serviceAccount: 'robot' });
    const none = { adEndpoint: '', federation: '', secretNamespace: '', secretName: '' };
    const login = 'https://login.example';
    const evil = { secretName: 's', adEndpoint: 'https://evil.example' };
    const twoTenants = { secretName: 's', auxiliaryTenantIds: [tenantId] };
    const rows: readonly (readonly [number, Partial<EntraSettings>, string])[] = [
      [1, twoTenants, `secret default/s ${login} ${tenantId} ${tenantId}`],
      [2, { secretName: 'c' }, `certificate default/c ${login} ${tenantId} `],
      [3, {}, `federated_pod default/robot ${login} ${tenantId} `],
      [3, { federation: 'binding' }, `federated_binding default/robot  ${tenantId} `],
      [3, { federation: 'node' }, `federated_node  ${login} ${tenantId} `],
      [1, evil, 'identity_invalid'],
      [7, {}, 'identity_unsupported'],
    ];
    for (const [at, [type, settings]] of rows.entries()) {
      const entra = { tenantId, auxiliaryTenantIds: [], ...none, ...settings };
      bind(fixture, `i-${at}`, clientIdA);
      fixture.put({ identities: [{ name: `i-${at}`, type, clientId: clientIdA, entra }] });
    }
    const { identities } = fixture.askPod('pod=default/p');
    for (const [at, [, , expected]] of rows.entries()) {
      const { refusal, upstream: of } = identities.find(({ name }) => name === `i-${at}`) ?? {};
      const whole = [of?.source, of?.credential, of?.authority, of?.tenantId];
      const shown = [...whole, String(of?.auxiliaryTenantIds)].join(' ');
      assert.equal(refusal?.reason ?? shown, expected);
    }
  });

  it('has the application of a service account with its tenant', () => {
    const account = { clientId: clientIdA, tenantId };
    const accounts: ServiceAccounts = {
      generation: 0,
      peek: () => account,
      peekFresh: () => ({ kind: 'known', account }),
      onChange: () => () => undefined,
    };
    const fixture = world({ accounts });
    addPod(fixture, { labels: { 'azure.workload.identity/use': 'true' }, serviceAccount: 'robot' });
    const { identities, findings } = fixture.askPod('pod=default/p');
    assert.deepEqual(outcomesOf(fixture), ['200 robot by service account']);
    assert.deepEqual(
      identities.map(({ kind, name, clientId, upstream }) => [
        ...[kind, name, clientId],
        ...[upstream?.source, upstream?.tenantId, upstream?.credential],
      ]),
      [['service-account', 'robot', clientIdA, 'federated_pod', tenantId, 'default/robot']],
    );
    assert.deepEqual(findings, []);
  });

  // Those of every agent and cluster are in test/situations.
  const results: readonly (readonly [string, string, (fixture: World) => void])[] = [
    [
      'is asked about before the watches are in step',
      '503 agent_not_synced',
      ({ state }) => (state.isSynced = false),
    ],
    [
      'is known by an address that is not believed any more',
      '503 agent_not_synced',
      ({ state }) => (state.trusts = false),
    ],
    [
      'has rights that are too old',
      '503 agent_not_synced',
      ({ state }) => (state.rightsProblem = 'not proven current: bindings for 1 d 0 h'),
    ],
    [
      'cannot be looked up now',
      '503 agent_not_synced',
      ({ agent }) => (agent.whyUnavailable = 'nobody answers'),
    ],
    [
      'has no address yet',
      'unreachable no-address',
      (fixture) => addPod(fixture, { labels, ips: [], phase: 'Pending' }),
    ],
    [
      'has only an IPv6 address, which no request comes from',
      '200 a by only',
      (fixture) => addPod(fixture, { labels, ips: ['fd00::1'] }),
    ],
    ['is excepted', '200 node by exception x', ({ put }) => put(excepted)],
  ];
  for (const [what, expected, arrange] of results) {
    it(`reports the result for a pod that ${what}`, () => {
      const fixture = openBound();
      arrange(fixture);
      assert.deepEqual(outcomesOf(fixture), [expected]);
    });
  }

  it('has addresses for a running pod with a network of its own only', () => {
    const addressesOf = (fields: Partial<Pod>) =>
      openBound({}, fields).askPod('pod=default/p').addresses.length;
    const pods = [{}, { hostNetwork: true }, { phase: 'Failed' }] as const;
    assert.deepEqual(pods.map(addressesOf), [1, 0, 0]);
  });

  it('identifies pods on the host network if the kernel records callers, unless it lets them through', () => {
    for (const [letsNodePodsThrough, podLabels, outcome] of [
      [false, {}, '200 node by host network'],
      [false, labels, '200 a by only'],
      [true, {}, 'unreachable host-network'],
      [true, labels, '200 a by only'],
    ] as const) {
      const pod = { labels: podLabels, hostNetwork: true };
      const fixture = openBound({ mode: 'ebpf', letsNodePodsThrough }, pod);
      assert.deepEqual(outcomesOf(fixture), [outcome]);
      if (letsNodePodsThrough) continue;
      fixture.state.isSynced = false;
      assert.deepEqual(outcomesOf(fixture), ['503 agent_not_synced']);
      fixture.state.isSynced = true;
      fixture.agent.whyUnavailable = 'nobody answers';
      assert.deepEqual(outcomesOf(fixture), ['503 agent_not_synced']);
    }
  });

  it('contains the text and the wait of a refusal', () => {
    const fixture = world();
    addPod(fixture, { labels, createdAtWallMs: fixture.clock.wallMs() });
    const [request] = fixture.askPod('pod=default/p').requests;
    assert.ok(request?.outcome.kind === 'refused');
    const { description, ...rest } = request.outcome.refusal;
    assert.deepEqual(rest, {
      reason: 'binding_pending',
      status: 503,
      error: 'temporarily_unavailable',
      text: 'Identity not found: pod default/p has the label aadpodidbinding=app, and no AzureIdentityBinding in namespace default has that selector.',
      fix: 'Create one: kubectl nmi identity assign IDENTITY -n default --selector app --apply',
      retryAfterS: 2,
      isWaitedFor: true,
    });
    assert.match(description, /^Identity not found: pod default\/p has the label/);
  });
});

describe('the explanation of an unknown pod', () => {
  it('reports that the node has no such pod, or that it is not known yet', () => {
    const fixture = openBound();
    const behind = 'the watch is 3 s behind';
    for (const [isSynced, whyBehind, problem] of [
      [true, undefined, 'node node-1 has no running pod default/q'],
      [true, behind, `node node-1 has no running pod default/q, but pods: ${behind}`],
      [false, undefined, 'pod default/q is not known yet: the agent is still reading the cluster'],
      [false, behind, `pod default/q is not known yet: all: ${behind}`],
    ] as const) {
      Object.assign(fixture.state, { isSynced, whyBehind });
      const told = fixture.ask('pod=default/q');
      assert.equal(told.kind === 'no-pod' && told.problem, problem);
    }
  });
});

describe('the explanation of a node', () => {
  const ask = (fixture: World) => {
    const told = fixture.ask('');
    assert.ok(told.kind === 'node');
    return told;
  };

  it('has a line for each pod, in order of their names, with its clients', () => {
    const fixture = openBound();
    addPod(fixture, { name: 'b', namespace: 'z', ips: ['10.0.0.2'] });
    addPod(fixture, { name: 'a', namespace: 'z', ips: ['10.0.0.3'] });
    addPod(fixture, { name: 'd', namespace: 'z-1', ips: [] });
    addPod(fixture, { name: 'c', namespace: 'z-1', ips: [] });
    addPod(fixture, { name: 'z', namespace: 'a', ips: [] });
    const clients = ['azsdk-js-identity/4.2.1'];
    fixture.agent.clients = { 'uid-p': clients };
    const told = ask(fixture);
    const unlabeled = [undefined, '400 no_binding_label', []] as const;
    assert.deepEqual(
      told.pods.map(({ namespace, name, ip, label, outcome, clients: ofPod }) => [
        `${namespace}/${name} ${ip}`,
        ...[label, inWords(outcome), ofPod],
      ]),
      [
        ['a/z ', ...unlabeled],
        ['default/p 10.0.0.1', 'app', '200 a by only', clients],
        ['z/a 10.0.0.3', ...unlabeled],
        ['z/b 10.0.0.2', ...unlabeled],
        ['z-1/c ', ...unlabeled],
        ['z-1/d ', ...unlabeled],
      ],
    );
    assert.deepEqual([told.schema, told.omitted], [2, 0]);
    assert.equal(told.agent?.version, '1.2.3');
    assert.deepEqual(told.agent.flags, { redirect: 'iptables' });
    assert.deepEqual(fixture.askPod('pod=default/p').clients, clients);
  });

  it('is limited in size', () => {
    const fixture = world();
    for (let index = 0; index < 1_010; index++) addPod(fixture, { name: `pod-${index}`, ips: [] });
    const { pods, omitted } = ask(fixture);
    assert.deepEqual([pods.length, omitted], [1_000, 10]);
  });
});

describe('the explanation of tokens', () => {
  const fail = (
    { upstream }: World,
    reason: SourceFailure['reason'],
    cooldownMs: number,
    description = 'is away',
  ): void => {
    upstream.failure = { reason, description, cooldownMs };
  };

  it('follows a token through its life', async () => {
    const fixture = openBound();
    const tokensOf = () => fixture.askPod(forVault).identities[0]?.tokens;
    assert.deepEqual(outcomesOf(fixture, forVault), ['200 a by only from upstream']);
    assert.deepEqual(tokensOf(), []);
    await fixture.broker.get(a, vault, party);
    assert.deepEqual(outcomesOf(fixture, forVault), ['200 a by only from memory']);
    assert.deepEqual(tokensOf(), [
      {
        resource: vault,
        tenantId: '',
        isFetching: false,
        failure: undefined,
        token: {
          state: 'fresh',
          isServed: true,
          failedRefreshes: 0,
          ageMs: 0,
          expiresInMs: 24 * hourMs,
          refreshInMs: 12 * hourMs,
        },
      },
    ]);
    fail(fixture, 'upstream_down', 250);
    await pass(fixture.clock, 24 * hourMs - 4 * minuteMs);
    assert.deepEqual(outcomesOf(fixture, forVault), ['200 a by only from memory-or-upstream']);
    await pass(fixture.clock, 5 * minuteMs);
    assert.deepEqual(tokensOf()?.[0]?.token, undefined);
  });

  it('has an active failure as the answer to a request, with the remaining cooldown', async () => {
    const fixture = openBound();
    fixture.upstream.failure = {
      reason: 'upstream_throttled',
      description: 'slow down',
      retryAfterS: 7,
      cooldownMs: 7_000,
    };
    await fixture.broker.get(a, vault, party);
    await pass(fixture.clock, 2_500);
    const told = fixture.askPod(forVault);
    assert.deepEqual(told.identities[0]?.tokens?.[0]?.failure, {
      reason: 'upstream_throttled',
      description: 'slow down',
      heldForMs: 4_500,
    });
    const outcome = told.requests[0]?.outcome;
    assert.equal(inWords(outcome), '429 upstream_throttled');
    assert.ok(outcome?.kind === 'refused');
    assert.deepEqual([outcome.refusal.retryAfterS, outcome.refusal.isWaitedFor], [5, false]);
    await pass(fixture.clock, 5_000);
    assert.deepEqual(outcomesOf(fixture, forVault), ['429 upstream_throttled'], 'until a try');
    fixture.clock.advance(15 * minuteMs);
    assert.deepEqual(outcomesOf(fixture, forVault), ['200 a by only from upstream']);
    assert.equal(fixture.calls.length, 1, 'an explanation causes no fetch');
  });

  it('is granted until the cached token ends while its source refuses it, and refused after', async () => {
    const fixture = openBound();
    const none = { code: '', severity: '', object: '', text: '', details: [] };
    const ofIdentity = ['identity_not_assigned', 'info', 'AzureIdentity default/a'];
    const startMs = fixture.clock.wallMs();
    const timeOf = (ms: number) => new Date(startMs + ms).toISOString().replace('.000Z', 'Z');
    await fixture.broker.get(a, vault, party);
    await fixture.broker.get(a, 'https://graph.microsoft.com', party);
    fail(fixture, 'identity_not_assigned', 5_000);
    await pass(fixture.clock, 11 * hourMs);
    // What no pod uses is not refreshed.
    await fixture.broker.get(a, vault, party);
    await pass(fixture.clock, 2 * hourMs);
    for (const search of [forVault, 'pod=default/p']) {
      const { requests, findings } = fixture.askPod(search);
      const outcome = requests[0]?.outcome;
      assert.ok(outcome?.kind === 'granted');
      const { at, refusal } = outcome.until ?? {};
      assert.deepEqual([at, refusal?.reason], [timeOf(24 * hourMs), 'identity_not_assigned']);
      const [{ code, severity, object, text, details } = none, ...others] = findings;
      assert.deepEqual([code, severity, object, others], [...ofIdentity, []]);
      assert.match(text, /Cached tokens are valid until 2026-01-02T00:00:00Z, then .* HTTP 400\.$/);
      assert.match(details[0] ?? '', /^Refused since 2026-01-01T1[0-3]:\S+Z, the last/);
    }
    const another = fixture.askPod('pod=default/p&resource=https://storage.azure.com');
    assert.equal(inWords(another.requests[0]?.outcome), '400 identity_not_assigned', 'none cached');
    await pass(fixture.clock, 10 * hourMs + 30 * minuteMs);
    const severitiesOf = () =>
      fixture.askPod(forVault).findings.map(({ object, severity }) => `${object} ${severity}`);
    assert.deepEqual(severitiesOf(), ['AzureIdentity default/a warning']);
    await pass(fixture.clock, hourMs);
    assert.deepEqual(outcomesOf(fixture, forVault), ['400 identity_not_assigned']);
    assert.deepEqual(severitiesOf(), ['Pod default/p error', 'AzureIdentity default/a error']);
    fixture.upstream.failure = undefined;
    await pass(fixture.clock, minuteMs);
    await fixture.broker.get(a, vault, party);
    const { requests, findings } = fixture.askPod(forVault);
    assert.deepEqual([inWords(requests[0]?.outcome), findings], ['200 a by only from memory', []]);
  });

  it('has a finding for another identity of the pod that is refused', async () => {
    const fixture = openBound();
    bind(fixture, 'b', clientIdB, 1);
    const b: UpstreamIdentity = { kind: 'client_id', value: clientIdB };
    fail(fixture, 'identity_not_assigned', 0);
    await fixture.broker.get(b, vault, party);
    const { requests, findings } = fixture.askPod('pod=default/p');
    assert.equal(inWords(requests[0]?.outcome), '200 a by default');
    assert.deepEqual(
      findings.map(({ code, object, severity }) => [code, object, severity]),
      [
        ['identity_not_assigned', 'AzureIdentity default/b', 'error'],
        ['identity_by_age', 'Pod default/p', 'info'],
      ],
    );
    assert.match(findings[0]?.text ?? '', /No cached token is left: pods get HTTP 400\.$/);
  });

  it('does not serve a token that has expired by the wall clock, which may run ahead', async () => {
    const fixture = openBound();
    await fixture.broker.get(a, vault, party);
    const expiresInMs = (leftMs: number) => {
      fixture.clock.jumpWall(24 * hourMs - leftMs);
      const from = inWords(fixture.askPod(forVault).requests[0]?.outcome);
      fixture.clock.jumpWall(leftMs - 24 * hourMs);
      return from.split(' from ')[1];
    };
    assert.deepEqual([1, 0].map(expiresInMs), ['memory-or-upstream', 'upstream']);
    fixture.clock.jumpWall(25 * hourMs);
    const told = fixture.askPod(forVault);
    const [token] = told.identities[0]?.tokens ?? [];
    assert.equal(token?.token?.expiresInMs, -hourMs, 'it is still in memory');
    assert.equal(inWords(told.requests[0]?.outcome), '200 a by only from upstream');
  });

  it('is for the given resource, else for all of them, up to a readable number', async () => {
    const fixture = openBound();
    for (let index = 0; index < 30; index++) {
      await fixture.broker.get(a, `https://r${index}.example`, party);
      await pass(fixture.clock, 1_000);
    }
    const resourcesOf = (search: string) =>
      fixture.askPod(search).identities[0]?.tokens?.map(({ resource }) => resource);
    assert.equal(resourcesOf('pod=default/p')?.length, 20);
    assert.deepEqual(resourcesOf('pod=default/p&resource=https://r29.example'), [
      'https://r29.example',
    ]);
  });

  it('never contains the token, nor text of a pod in place of a resource', async () => {
    const fixture = openBound();
    const stray = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';
    await fixture.broker.get(a, vault, party);
    fail(fixture, 'resource_refused', 5_000, `no ${stray}`);
    await fixture.broker.get(a, stray, party);
    const text = JSON.stringify(['pod=default/p', forVault, ''].map(fixture.ask));
    assert.ok(text.includes('[unusual]') && text.includes('resource_refused'));
    assert.ok(!text.includes('eyJ'));
    assert.ok(!text.includes(tokenMark));
  });
});
