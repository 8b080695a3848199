/** Which identity upstream is asked for, by which authority, and under which key its token is kept. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { EntraSettings, Identity } from '../../../../src/cache/index/objects.ts';
import { authoritiesOf } from '../../../../src/nmi/grants/authorities.ts';
import { identityKey, tokenKey } from '../../../../src/nmi/grants/cache-key.ts';
import {
  UpstreamResolver,
  type UpstreamChoice,
} from '../../../../src/nmi/grants/resolve-upstream.ts';
import { parseTokenQuery } from '../../../../src/nmi/server/token-query.ts';
import { resolveAuthority } from '../../../../src/nmi/sources/entra/clouds.ts';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { usedHeap } from '../../../support/heap.ts';

const clientId = 'AAAAAAAA-1111-4111-8111-111111111111';
const otherId = 'cccccccc-3333-4333-8333-333333333333';
const tenantId = 'BBBBBBBB-2222-4222-8222-222222222222';
const resourceId =
  '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';
const pod = createPod({ namespace: 'team', name: 'web', serviceAccount: 'robot' });
const clock = new HandClock();
const resolver = new UpstreamResolver(
  (adEndpoint) =>
    resolveAuthority({ adEndpoint, cloud: 'public', allowedHosts: ['login.corp.example:8443'] }),
  clock,
);

function identityOf(
  type: number,
  entra: Partial<EntraSettings> = {},
  fields: Partial<Identity> = {},
): Identity {
  const settings: EntraSettings = {
    tenantId,
    auxiliaryTenantIds: [],
    adEndpoint: '',
    federation: '',
    secretNamespace: '',
    secretName: 'proof',
    ...entra,
  };
  return createIdentity({ namespace: 'team', type, clientId, entra: settings, ...fields });
}

function upstreamOf(choice: UpstreamChoice) {
  assert.ok(choice.kind === 'upstream', JSON.stringify(choice));
  return choice;
}

function entraOf(choice: UpstreamChoice): EntraIdentity {
  const { upstream } = upstreamOf(choice);
  assert.ok(upstream.kind === 'entra');
  return upstream;
}

function problemOf(choice: UpstreamChoice): string {
  assert.ok(choice.kind === 'unusable', JSON.stringify(choice));
  return choice.problem;
}

describe('the operator’s authorities', () => {
  const plain = { cloud: 'public', entraAuthorities: [], entraAudience: '' } as const;
  const own = 'https://login.corp.example:8443';
  const next = 'https://login.next.example';
  const china = { ...plain, cloud: 'china' } as const;

  it('are those of the cloud, or of the operator’s list, which an identity need not name', () => {
    const listed = { ...plain, entraAuthorities: [own, next] };
    for (const [config, adEndpoint, expected] of [
      [plain, '', 'https://login.microsoftonline.com'],
      [china, '', 'https://login.partner.microsoftonline.cn'],
      [listed, '', own],
      [listed, own, own],
      [listed, next, next],
      [listed, 'https://login.microsoftonline.us', 'https://login.microsoftonline.us'],
      [listed, 'https://login.other.example', undefined],
      // Another port makes another authority.
      [listed, 'https://login.corp.example', undefined],
    ] as const) {
      const resolved = authoritiesOf(config)(adEndpoint);
      assert.equal(resolved.ok ? resolved.authority : undefined, expected, adEndpoint);
    }
    const resolved = authoritiesOf(china)('');
    assert.ok(resolved.ok && resolved.audience === 'api://AzureADTokenExchangeChina');
  });

  it('have the audience from the configuration, also for pods and their accounts', () => {
    const resolve = authoritiesOf({ ...plain, entraAudience: 'api://own' });
    for (const adEndpoint of ['', 'https://login.microsoftonline.us']) {
      const resolved = resolve(adEndpoint);
      assert.ok(resolved.ok && resolved.accountAudience === 'api://own');
    }
    const upstreams = new UpstreamResolver(authoritiesOf({ ...china, entraAudience: 'api://own' }));
    for (const choice of [
      upstreams.ofServiceAccount(pod, clientId, tenantId),
      upstreams.of(identityOf(3), pod),
    ]) {
      const { credential } = entraOf(choice);
      assert.ok(credential.kind === 'federated_pod' && credential.audience === 'api://own');
    }
  });
});

describe('a revoked AzureIdentity', () => {
  const nowMs = clock.wallMs();

  it('has the time in all its upstream identities', () => {
    const revoked = { notBeforeWallMs: nowMs };
    for (const identity of [
      createIdentity({ clientId, ...revoked }),
      createIdentity({ clientId: '', resourceId, ...revoked }),
      identityOf(1, { auxiliaryTenantIds: ['a.example', 'b.example'] }, revoked),
      identityOf(3, {}, revoked),
    ]) {
      const { upstream, auxiliary } = upstreamOf(resolver.of(identity, pod));
      for (const each of [upstream, ...auxiliary]) {
        assert.ok(each.kind !== 'unnamed');
        assert.equal(each.notBeforeWallMs, nowMs);
      }
    }
  });

  it('is unusable while the time is in the future, beyond what clocks differ', () => {
    const inMinutes = (minutes: number) =>
      createIdentity({ clientId, notBeforeWallMs: nowMs + minutes * 60_000 });
    const in6Minutes = inMinutes(6);
    assert.equal(resolver.of(inMinutes(5), pod).kind, 'upstream');
    assert.equal(problemOf(resolver.of(in6Minutes, pod)), 'has a spec.notBefore in the future');
    clock.advance(60_000);
    assert.equal(resolver.of(in6Minutes, pod).kind, 'upstream');
  });
});

describe('the upstream identity of an AzureIdentity', () => {
  it('is one object as long as that exists, and one per account for pod credentials', () => {
    const other = createPod({ namespace: 'team', name: 'other', serviceAccount: 'other' });
    const same = createPod({ namespace: 'team', name: 'same', serviceAccount: 'robot' });
    const federated = identityOf(3, { federation: 'pod' });
    const first = resolver.of(federated, pod);
    assert.equal(resolver.of(federated, same), first);
    assert.notEqual(resolver.of(federated, other), first);
    const secret = identityOf(1);
    assert.equal(resolver.of(secret, pod), resolver.of(secret, other));
    assert.notEqual(resolver.of(identityOf(1), pod), resolver.of(secret, pod));
  });

  it('is kept for one account alone, however many come and go', async () => {
    const agentIdentity = 'CCCCCCCC-3333-4333-8333-333333333333';
    const chain = { applicationId: clientId, clientId: '', resourceId: '', agentIdentity };
    // In a separate function, so that its variables are released with it.
    const resolve = (identity: Identity, serviceAccount: string): WeakRef<UpstreamChoice> => {
      const choice = resolver.of(identity, { namespace: 'team', serviceAccount });
      entraOf(choice);
      return new WeakRef(choice);
    };
    for (const identity of [
      identityOf(3),
      identityOf(3, { federation: 'binding' }),
      identityOf(3, { federation: 'node' }),
      identityOf(4, { federation: 'pod', chain }),
      identityOf(4, { chain: { ...chain, clientId } }),
    ]) {
      const choices = Array.from({ length: 50 }, (_, at) => resolve(identity, `job-${at}`));
      await usedHeap();
      assert.equal(choices.filter((each) => each.deref() !== undefined).length, 1);
      assert.ok(choices.at(-1)?.deref() !== undefined, 'of the last one');
    }
  });
});

describe('an identity of type 0', () => {
  it('is requested by client id, or by resource id if it has none', () => {
    for (const [fields, upstream] of [
      [
        { clientId, resourceId },
        { kind: 'client_id', value: clientId },
      ],
      [
        { clientId: '', resourceId },
        { kind: 'resource_id', value: resourceId },
      ],
    ] as const)
      assert.deepEqual(upstreamOf(resolver.of(createIdentity(fields), pod)).upstream, upstream);
  });

  it('is not requested by an id that upstream could treat as missing', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (client, resource) => {
        const identity = createIdentity({ clientId: client, resourceId: resource });
        const choice = resolver.of(identity, pod);
        if (choice.kind === 'unusable') return;
        assert.ok(choice.upstream.kind === 'client_id' || choice.upstream.kind === 'resource_id');
        assert.match(choice.upstream.value, /^[\x21-\x7e]{10,}$/);
      }),
    );
  });
});

describe('an identity of Entra ID', () => {
  it('is requested in lower case, with the credential of its type', () => {
    const secret = { namespace: 'team', name: 'proof' };
    const serviceAccount = { namespace: 'team', name: 'robot' };
    const audience = 'api://AzureADTokenExchange';
    const adEndpoint = 'https://login.microsoftonline.us/';
    for (const [type, fields, credential] of [
      [1, {}, { kind: 'secret', secret }],
      [2, {}, { kind: 'certificate', secret }],
      [3, {}, { kind: 'federated_pod', serviceAccount, audience }],
      [
        3,
        { federation: 'binding' },
        { kind: 'federated_binding', serviceAccount, audience: 'api://AKSIdentityBinding' },
      ],
      [
        3,
        { federation: 'node', adEndpoint },
        { kind: 'federated_node', audience: 'api://AzureADTokenExchangeUSGov' },
      ],
    ] as const) {
      const identity = entraOf(resolver.of(identityOf(type, fields), pod));
      assert.deepEqual(identity.credential, credential);
      assert.equal(identity.clientId, clientId.toLowerCase());
      assert.equal(identity.tenantId, tenantId.toLowerCase());
    }
    const { authority } = entraOf(
      resolver.of(identityOf(1, { adEndpoint: 'https://login.corp.example:8443' }), pod),
    );
    assert.equal(authority, 'https://login.corp.example:8443');
  });

  it('is unusable with fields that are invalid in a request', () => {
    const label = 'a'.repeat(62);
    const longest = `${label}.${label}.${label}.${'b'.repeat(61)}.co`;
    assert.equal(longest.length, 253);
    const { tenantId: tenant } = entraOf(resolver.of(identityOf(1, { tenantId: longest }), pod));
    assert.equal(tenant, longest);
    const table: readonly (readonly [number, Partial<EntraSettings>, RegExp])[] = [
      [1, { tenantId: `a${longest}` }, /spec\.tenantID/],
      [1, { tenantId: 'common' }, /spec\.tenantID/],
      [1, { secretName: '' }, /spec\.clientPassword\.name/],
      [1, { secretName: '../x' }, /spec\.clientPassword\.name/],
      [2, { secretNamespace: 'kube-system' }, /another namespace/],
      [1, { adEndpoint: 'http://login.microsoftonline.com' }, /adEndpoint/],
      [3, { federation: 'cluster' }, /none of "pod", "node" and "binding"/],
      [3, { federation: 'Binding' }, /none of "pod", "node" and "binding"/],
      [
        3,
        { federation: 'binding', adEndpoint: 'https://login.microsoftonline.us' },
        /has a spec\.adEndpoint, and federation binding uses none/,
      ],
      [1, { auxiliaryTenantIds: ['a.example', 'b.example', 'c.example', 'd.example'] }, /than 3/],
      [1, { auxiliaryTenantIds: ['nowhere'] }, /no tenants/],
      [4, {}, /no spec\.application/],
      [-1, {}, /the type -1/],
    ];
    for (const [type, fields, says] of table) {
      assert.match(problemOf(resolver.of(identityOf(type, fields), pod)), says);
    }
    const noGuid = identityOf(1, {}, { clientId: 'x' });
    assert.match(problemOf(resolver.of(noGuid, pod)), /spec\.clientID/);
  });

  it('has a token of each auxiliary tenant, with the same credential, only with a secret', () => {
    const auxiliaryOf = (type: number, auxiliaryTenantIds: readonly string[]) =>
      upstreamOf(resolver.of(identityOf(type, { auxiliaryTenantIds }), pod)).auxiliary.map(
        (each) => `${each.tenantId} ${each.credential.kind}`,
      );
    assert.deepEqual(auxiliaryOf(1, ['One.example', tenantId]), [
      'one.example secret',
      `${tenantId.toLowerCase()} secret`,
    ]);
    assert.equal(auxiliaryOf(1, ['a.example']).length, 1);
    assert.equal(auxiliaryOf(1, ['a.example', 'b.example', 'c.example']).length, 3);
    assert.deepEqual(auxiliaryOf(2, ['a.example']), []);
  });
});

describe('the key of an identity', () => {
  const keyOf = (choice: UpstreamChoice): string => identityKey(upstreamOf(choice).upstream);

  it('is its id in any ASCII letter case, separate for each kind of id', () => {
    const key = (kind: 'client_id' | 'object_id' | 'resource_id', value: string) =>
      identityKey({ kind, value });
    assert.equal(key('client_id', 'AB-c'), key('client_id', 'ab-C'));
    assert.equal(identityKey({ kind: 'unnamed' }), '');
    for (const [one, other] of [
      [key('client_id', 'ab-c'), key('object_id', 'ab-c')],
      [key('client_id', 'ab-c'), key('client_id', 'ab-d')],
      // The Kelvin sign is not a k.
      [key('resource_id', '/\u212a'), key('resource_id', '/k')],
      [key('resource_id', '/A\u212a'), key('resource_id', '/ak')],
      [key('resource_id', '/É'), key('resource_id', '/é')],
    ])
      assert.notEqual(one, other);
  });

  it('differs in everything that could make its token different', () => {
    const another = createPod({ namespace: 'team', serviceAccount: 'another' });
    const choices = [
      resolver.of(createIdentity({ clientId }), pod),
      resolver.of(identityOf(1), pod),
      resolver.of(identityOf(1, { secretName: 'wrong' }), pod),
      resolver.of(identityOf(1, {}, { namespace: 'other' }), pod),
      resolver.of(identityOf(1, {}, { clientId: otherId }), pod),
      resolver.of(identityOf(1, { tenantId: otherId }), pod),
      resolver.of(identityOf(1, { adEndpoint: 'https://login.microsoftonline.us' }), pod),
      resolver.of(identityOf(2), pod),
      resolver.of(identityOf(3), pod),
      resolver.of(identityOf(3), another),
      resolver.of(identityOf(3, { federation: 'node' }), pod),
      resolver.ofServiceAccount(pod, otherId, tenantId),
      resolver.ofServiceAccount(pod, clientId, otherId),
      resolver.ofServiceAccount({ ...pod, namespace: 'other' }, clientId, tenantId),
    ];
    const keys = choices.map(keyOf);
    assert.equal(new Set(keys).size, keys.length, keys.join('\n'));
  });

  it('is the same for two pods of one service account, and for any letter case of the ids', () => {
    const key = keyOf(resolver.of(identityOf(3), pod));
    const begin = `https://login.microsoftonline.com/${tenantId}/${clientId} `.toLowerCase();
    assert.ok(key.startsWith(begin), key);
    const lower = identityOf(3, {}, { clientId: clientId.toLowerCase() });
    const twin = createPod({ ...pod, name: 'b', uid: 'b' });
    assert.equal(keyOf(resolver.of(lower, twin)), key);
    assert.equal(
      keyOf(resolver.ofServiceAccount(pod, clientId, tenantId)),
      keyOf(resolver.ofServiceAccount(pod, clientId.toLowerCase(), tenantId.toLowerCase())),
    );
  });

  it('is another one for each revocation, so that earlier tokens are not found', () => {
    const credential = { kind: 'federated_node', audience: 'api://x' } as const;
    for (const identity of [
      { kind: 'client_id', value: 'a' },
      { kind: 'entra', authority: 'https://l', tenantId: 't', clientId: 'c', credential },
    ] as const) {
      const keys = [{}, { notBeforeWallMs: 1 }, { notBeforeWallMs: 2 }].map((revoked) =>
        identityKey({ ...identity, ...revoked }),
      );
      assert.equal(new Set(keys).size, 3);
    }
    // And none that an excepted pod can request.
    const revoked = identityKey({ kind: 'client_id', value: 'a', notBeforeWallMs: 1 });
    const suffix = revoked.slice(identityKey({ kind: 'client_id', value: 'a' }).length);
    const query = `api-version=2018-02-01&resource=r&client_id=${encodeURIComponent(`a${suffix}`)}`;
    assert.equal(parseTokenQuery(query).kind, 'refused');
  });

  it('is in that of a token, with its source, and its resource exactly as requested', () => {
    const named = { kind: 'client_id', value: 'A' } as const;
    assert.equal(tokenKey({ kind: 'unnamed' }, 'https://X/'), 'imds\n\nhttps://X/');
    assert.equal(tokenKey(named, 'r'), 'imds\nclient_id=a\nr');
  });
});
