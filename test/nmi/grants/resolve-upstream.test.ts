import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { EntraSettings, Identity } from '../../../src/cache/index/objects.ts';
import { resolveAuthority } from '../../../src/nmi/sources/entra/clouds.ts';
import type { EntraIdentity } from '../../../src/nmi/sources/entra/entra-identity.ts';
import { authoritiesOf } from '../../../src/nmi/grants/authorities.ts';
import { identityKey } from '../../../src/nmi/grants/cache-key.ts';
import { UpstreamResolver, type UpstreamChoice } from '../../../src/nmi/grants/resolve-upstream.ts';
import { createIdentity, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { usedHeap } from '../../support/heap.ts';

const clientId = 'AAAAAAAA-1111-4111-8111-111111111111';
const tenantId = 'BBBBBBBB-2222-4222-8222-222222222222';
const managedId =
  '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';
const pod = createPod({ namespace: 'team', name: 'web', serviceAccount: 'robot' });
const directory = new UpstreamResolver((adEndpoint) =>
  resolveAuthority({ adEndpoint, cloud: 'public', allowedHosts: ['login.corp.example:8443'] }),
);

function settings(fields: Partial<EntraSettings> = {}): EntraSettings {
  return {
    tenantId,
    auxiliaryTenantIds: [],
    adEndpoint: '',
    federation: '',
    secretNamespace: '',
    secretName: 'proof',
    ...fields,
  };
}

function identityOf(type: number, fields: Partial<EntraSettings> = {}): Identity {
  return createIdentity({ namespace: 'team', type, clientId, entra: settings(fields) });
}

function entraOf(choice: UpstreamChoice): EntraIdentity {
  assert.ok(choice.kind === 'upstream', JSON.stringify(choice));
  assert.ok(choice.upstream.kind === 'entra');
  return choice.upstream;
}

function problemOf(choice: UpstreamChoice): string {
  assert.ok(choice.kind === 'unusable', JSON.stringify(choice));
  return choice.problem;
}

describe('a revoked AzureIdentity', () => {
  const clock = new HandClock();
  const nowMs = clock.wallMs();
  const resolver = new UpstreamResolver(
    () => ({
      ok: true,
      authority: 'https://login.example',
      audience: 'api://x',
      accountAudience: 'api://x',
    }),
    clock,
  );

  it('has the time in all its upstream identities', () => {
    const revoked = { notBeforeWallMs: nowMs };
    const assigned = { ...createIdentity({ clientId }), ...revoked };
    const byResource = { ...createIdentity({ clientId: '', resourceId: managedId }), ...revoked };
    const auxiliaryTenantIds = ['a.example', 'b.example'];
    const secret = { ...identityOf(1, { auxiliaryTenantIds }), ...revoked };
    for (const identity of [assigned, byResource, secret, { ...identityOf(3), ...revoked }]) {
      const choice = resolver.of(identity, pod);
      assert.ok(choice.kind === 'upstream', JSON.stringify(choice));
      for (const upstream of [choice.upstream, ...choice.auxiliary]) {
        assert.ok(upstream.kind !== 'unnamed');
        assert.equal(upstream.notBeforeWallMs, nowMs);
      }
    }
  });

  it('is unusable while the time is in the future, beyond what clocks differ', () => {
    const in6Minutes = createIdentity({ clientId, notBeforeWallMs: nowMs + 6 * 60_000 });
    const in5Minutes = createIdentity({ clientId, notBeforeWallMs: nowMs + 5 * 60_000 });
    assert.equal(resolver.of(in5Minutes, pod).kind, 'upstream');
    assert.equal(problemOf(resolver.of(in6Minutes, pod)), 'has a spec.notBefore in the future');
    clock.advance(60_000);
    assert.equal(resolver.of(in6Minutes, pod).kind, 'upstream');
  });
});

describe('the upstream identity of an AzureIdentity', () => {
  it('is one object for as long as the AzureIdentity exists, and one per account for pod credentials', () => {
    const robot = pod;
    const other = createPod({ namespace: 'team', name: 'other', serviceAccount: 'other' });
    const same = createPod({ namespace: 'team', name: 'same', serviceAccount: 'robot' });
    const federated = identityOf(3, { federation: 'pod' });
    const first = directory.of(federated, robot);
    assert.equal(directory.of(federated, same), first);
    assert.notEqual(directory.of(federated, other), first);
    assert.notEqual(
      identityKey(entraOf(directory.of(federated, other))),
      identityKey(entraOf(first)),
    );
    const secret = identityOf(1);
    assert.equal(directory.of(secret, robot), directory.of(secret, other));
    assert.notEqual(directory.of(identityOf(1), robot), directory.of(secret, robot));
  });

  it('is kept for one account alone, however many come and go', async () => {
    const chain = {
      applicationId: clientId,
      clientId: '',
      resourceId: '',
      agentIdentity: 'CCCCCCCC-3333-4333-8333-333333333333',
    };
    const identities = [
      identityOf(3),
      identityOf(3, { federation: 'binding' }),
      identityOf(3, { federation: 'node' }),
      identityOf(4, { federation: 'pod', chain }),
      identityOf(4, { chain: { ...chain, clientId } }),
    ];
    // In a separate function, so that its variables are released with it.
    const resolve = (identity: Identity, serviceAccount: string): WeakRef<UpstreamChoice> => {
      const choice = directory.of(identity, { namespace: 'team', serviceAccount });
      entraOf(choice);
      return new WeakRef(choice);
    };
    for (const identity of identities) {
      const choices = Array.from({ length: 50 }, (_, at) => resolve(identity, `job-${at}`));
      await usedHeap();
      assert.equal(choices.filter((each) => each.deref() !== undefined).length, 1);
      assert.ok(choices.at(-1)?.deref() !== undefined, 'of the last one');
    }
  });
});

describe('an identity of type 0', () => {
  it('is requested by client id, or by resource id if it has none', () => {
    const resourceId =
      '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x';
    const byClient = directory.of(createIdentity({ clientId, resourceId }), pod);
    assert.ok(byClient.kind === 'upstream');
    assert.deepEqual(byClient.upstream, { kind: 'client_id', value: clientId });
    const byResource = directory.of(createIdentity({ clientId: '', resourceId }), pod);
    assert.ok(byResource.kind === 'upstream');
    assert.deepEqual(byResource.upstream, { kind: 'resource_id', value: resourceId });
  });

  it('is not requested by an id that upstream could treat as missing', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (client, resource) => {
        const choice = directory.of(
          createIdentity({ clientId: client, resourceId: resource }),
          pod,
        );
        if (choice.kind === 'unusable') return;
        assert.ok(choice.upstream.kind === 'client_id' || choice.upstream.kind === 'resource_id');
        assert.match(choice.upstream.value, /^[\x21-\x7e]{10,}$/);
      }),
    );
  });
});

describe('an identity of Entra ID', () => {
  it('is requested in lower case, with the credential of its type', () => {
    const proofs = [
      [1, {}, { kind: 'secret', secret: { namespace: 'team', name: 'proof' } }],
      [2, {}, { kind: 'certificate', secret: { namespace: 'team', name: 'proof' } }],
      [
        3,
        {},
        {
          kind: 'federated_pod',
          serviceAccount: { namespace: 'team', name: 'robot' },
          audience: 'api://AzureADTokenExchange',
        },
      ],
      [
        3,
        { federation: 'binding' },
        {
          kind: 'federated_binding',
          serviceAccount: { namespace: 'team', name: 'robot' },
          audience: 'api://AKSIdentityBinding',
        },
      ],
      [
        3,
        { federation: 'node', adEndpoint: 'https://login.microsoftonline.us/' },
        { kind: 'federated_node', audience: 'api://AzureADTokenExchangeUSGov' },
      ],
    ] as const;
    for (const [type, fields, credential] of proofs) {
      const identity = entraOf(directory.of(identityOf(type, fields), pod));
      assert.deepEqual(identity.credential, credential);
      assert.equal(identity.clientId, clientId.toLowerCase());
      assert.equal(identity.tenantId, tenantId.toLowerCase());
    }
  });

  it('may have a tenant with a name of 253 characters', () => {
    const label = 'a'.repeat(62);
    const longest = `${label}.${label}.${label}.${'b'.repeat(61)}.co`;
    assert.equal(longest.length, 253);
    assert.equal(
      entraOf(directory.of(identityOf(1, { tenantId: longest }), pod)).tenantId,
      longest,
    );
    const longer = directory.of(identityOf(1, { tenantId: `a${longest}` }), pod);
    assert.match(problemOf(longer), /spec\.tenantID/);
  });

  it('is unusable with fields that are invalid in a request', () => {
    const table: readonly (readonly [number, Partial<EntraSettings>, RegExp])[] = [
      [1, { tenantId: '' }, /spec\.tenantID/],
      [1, { tenantId: 'a/b' }, /spec\.tenantID/],
      [1, { tenantId: 'common' }, /spec\.tenantID/],
      [1, { secretName: '' }, /spec\.clientPassword\.name/],
      [1, { secretName: '../x' }, /spec\.clientPassword\.name/],
      [2, { secretNamespace: 'kube-system' }, /another namespace/],
      [1, { adEndpoint: 'https://evil.example' }, /adEndpoint/],
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
      [5, {}, /the type 5/],
      [-1, {}, /the type -1/],
    ];
    for (const [type, fields, says] of table) {
      assert.match(problemOf(directory.of(identityOf(type, fields), pod)), says);
    }
    const noGuid = { ...identityOf(1), clientId: 'x' };
    assert.match(problemOf(directory.of(noGuid, pod)), /spec\.clientID/);
  });

  it('accepts an authority of the operator’s list', () => {
    const fields = { adEndpoint: 'https://login.corp.example:8443' };
    const identity = entraOf(directory.of(identityOf(1, fields), pod));
    assert.equal(identity.authority, 'https://login.corp.example:8443');
  });

  it('has a token of each auxiliary tenant, with the same credential, only with a secret', () => {
    const fields = { auxiliaryTenantIds: ['One.example', tenantId] };
    const choice = directory.of(identityOf(1, fields), pod);
    assert.ok(choice.kind === 'upstream');
    assert.deepEqual(
      choice.auxiliary.map((each) => [each.tenantId, each.credential.kind]),
      [
        ['one.example', 'secret'],
        [tenantId.toLowerCase(), 'secret'],
      ],
    );
    for (const auxiliaryTenantIds of [['a.example'], ['a.example', 'b.example', 'c.example']]) {
      const one = directory.of(identityOf(1, { auxiliaryTenantIds }), pod);
      assert.ok(one.kind === 'upstream');
      assert.equal(one.auxiliary.length, auxiliaryTenantIds.length);
    }
    const certificate = directory.of(identityOf(2, fields), pod);
    assert.ok(certificate.kind === 'upstream' && certificate.auxiliary.length === 0);
  });
});

describe('the key of an identity', () => {
  it('differs in everything that could make its token different', () => {
    const podOf = (serviceAccount: string) => createPod({ namespace: 'team', serviceAccount });
    const other = 'cccccccc-3333-4333-8333-333333333333';
    const choices = [
      directory.of(createIdentity({ clientId }), pod),
      directory.of(identityOf(1), pod),
      directory.of(identityOf(1, { secretName: 'wrong' }), pod),
      directory.of({ ...identityOf(1), namespace: 'other' }, pod),
      directory.of({ ...identityOf(1), clientId: other }, pod),
      directory.of(identityOf(1, { tenantId: other }), pod),
      directory.of(identityOf(1, { adEndpoint: 'https://login.microsoftonline.us' }), pod),
      directory.of(identityOf(2), pod),
      directory.of(identityOf(3), pod),
      directory.of(identityOf(3), podOf('another')),
      directory.of(identityOf(3, { federation: 'node' }), pod),
    ];
    const keys = choices.map((choice) => {
      assert.ok(choice.kind === 'upstream');
      return identityKey(choice.upstream);
    });
    assert.equal(new Set(keys).size, keys.length, keys.join('\n'));
  });

  it('is the same for two pods of one service account, and for any letter case of the ids', () => {
    const one = entraOf(directory.of(identityOf(3), pod));
    const lower = { ...identityOf(3), clientId: clientId.toLowerCase() };
    const two = entraOf(directory.of(lower, createPod({ ...pod, name: 'b', uid: 'b' })));
    assert.equal(identityKey(one), identityKey(two));
  });
});

describe('the application of a service account', () => {
  it('is federated in the node’s cloud, or unusable', () => {
    const choice = directory.ofServiceAccount(pod, clientId, tenantId);
    assert.equal(entraOf(choice).credential.kind, 'federated_pod');
    assert.match(problemOf(directory.ofServiceAccount(pod, 'x', tenantId)), /GUID/);
    assert.match(problemOf(directory.ofServiceAccount(pod, clientId, '')), /tenant/);
  });

  it('has the audience that the operator has set, as type 3', () => {
    const config = { cloud: 'china', entraAuthorities: [], entraAudience: 'api://own' } as const;
    const own = new UpstreamResolver(authoritiesOf(config));
    for (const choice of [
      own.ofServiceAccount(pod, clientId, tenantId),
      own.of(identityOf(3), pod),
    ]) {
      const { credential } = entraOf(choice);
      assert.ok(credential.kind === 'federated_pod');
      assert.equal(credential.audience, 'api://own');
    }
  });
});
