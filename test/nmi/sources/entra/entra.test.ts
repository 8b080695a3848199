import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { Token } from '../../../../src/cache/token/token.ts';
import { createEntraSource } from '../../../../src/nmi/sources/entra/entra.ts';
import {
  openEntraNetwork,
  type EntraNetworkOptions,
} from '../../../../src/nmi/sources/entra/network.ts';
import { createExchange } from '../../../../src/nmi/sources/entra/token-exchange.ts';
import type { Exchange } from '../../../../src/nmi/sources/entra/token-exchange.ts';
import type {
  ClientCredential,
  ClientCredentialResult,
} from '../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import type { FailureReason, SourceResult } from '../../../../src/nmi/sources/source.ts';
import type { EntraCredential } from '../../../../src/nmi/sources/entra/credentials/kinds.ts';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import { createCertificate, json, jwtOf, openTokenServer } from './token-server.ts';

const token: Token = {
  accessToken: 'tok',
  clientId: 'c',
  resource: 'r',
  expiresAtWallS: 2_000_000_000,
  notBeforeWallS: 1_700_000_000,
  extExpiresAtWallS: undefined,
};
const secret = { namespace: 'ns', name: 'n' };
const audience = 'api://AzureADTokenExchange';
const credentials: readonly EntraCredential[] = [
  { kind: 'secret', secret },
  { kind: 'certificate', secret },
  { kind: 'federated_pod', serviceAccount: secret, audience },
  { kind: 'federated_node', audience },
];

function identityWith(credential: EntraCredential, authority = 'https://e'): EntraIdentity {
  return { kind: 'entra', authority, tenantId: 't', clientId: 'c', credential };
}

const identity = identityWith(credentials[0]!);
const correlationId = '0a1b2c3d-0000-4000-8000-000000000009';
const request = { identity, resource: 'r', correlationId };
const mayRetry = (): boolean => true;

function failure(reason: FailureReason): SourceResult {
  return { ok: false, failure: { reason, description: 'no', cooldownMs: 1 } };
}

function credentialOf(clientSecret: string): ClientCredentialResult {
  return { ok: true, clientCredential: { clientSecret } };
}

interface Script {
  /** One per call; the last one repeats. */
  readonly gets?: readonly (
    ClientCredentialResult | ((signal: AbortSignal) => Promise<ClientCredentialResult>)
  )[];
  readonly exchanges?: readonly (SourceResult | Exchange)[];
  readonly forgets?: boolean;
}

/** A source with a scripted provider and exchange, and a record of its calls. */
function play({
  gets = [credentialOf('p')],
  exchanges = [{ ok: true, token }],
  forgets = true,
}: Script) {
  const did: string[] = [];
  const exchangedCredentials: ClientCredential[] = [];
  const next = <T>(list: readonly T[], index: number): T => list[Math.min(index, list.length - 1)]!;
  let got = 0;
  let exchanged = 0;
  const clientCredentials = {
    get({ kind }: EntraCredential, signal: AbortSignal) {
      did.push(`get ${kind}`);
      const step = next(gets, got++);
      return typeof step === 'function' ? step(signal) : Promise.resolve(step);
    },
    forget({ kind }: EntraCredential) {
      did.push(`forget ${kind}`);
      return forgets;
    },
  };
  const clock = new HandClock();
  const source = createEntraSource({
    clientCredentials,
    timeoutMs: 10_000,
    clock,
    exchange(asked, signal) {
      did.push('exchange');
      exchangedCredentials.push(asked.clientCredential);
      const step = next(exchanges, exchanged++);
      return typeof step === 'function' ? step(asked, signal) : Promise.resolve(step);
    },
  });
  return { source, did, clientCredentials: exchangedCredentials, clock };
}

function untilAbort(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  signal.addEventListener('abort', () => {
    reject(signal.reason);
  });
  return promise;
}

describe('a fetch from Entra ID', () => {
  for (const credential of credentials) {
    it(`requests the client credential of ${credential.kind}, and exchanges it`, async () => {
      const { source, did } = play({});
      const asked = { ...request, identity: identityWith(credential) };
      assert.deepEqual(await source.fetch(asked, mayRetry), { ok: true, token });
      assert.deepEqual(did, [`get ${credential.kind}`, 'exchange']);
    });
  }

  it('ends when there is no client credential', async () => {
    const missing = failure('credential_missing');
    assert.ok(!missing.ok);
    const { source, did } = play({ gets: [missing] });
    assert.deepEqual(await source.fetch(request, mayRetry), missing);
    assert.deepEqual(did, ['get secret']);
  });

  it('is repeated, once, with a new client credential when a cached one was refused', async () => {
    const { source, did, clientCredentials } = play({
      gets: [credentialOf('old'), credentialOf('new')],
      exchanges: [failure('credential_refused'), { ok: true, token }],
    });
    assert.deepEqual(await source.fetch(request, mayRetry), { ok: true, token });
    assert.deepEqual(did, ['get secret', 'exchange', 'forget secret', 'get secret', 'exchange']);
    assert.deepEqual(
      clientCredentials.map(
        (clientCredential) => 'clientSecret' in clientCredential && clientCredential.clientSecret,
      ),
      ['old', 'new'],
    );
  });

  it('stops after the second refusal', async () => {
    const { source, did } = play({ exchanges: [failure('credential_refused')] });
    assert.deepEqual(await source.fetch(request, mayRetry), failure('credential_refused'));
    assert.equal(did.filter((step) => step === 'exchange').length, 2);
    assert.equal(did.filter((step) => step === 'forget secret').length, 1);
  });

  it('is not repeated with a credential that was just read, or beyond the budget', async () => {
    const fresh = play({ exchanges: [failure('credential_refused')], forgets: false });
    await fresh.source.fetch(request, mayRetry);
    assert.deepEqual(fresh.did, ['get secret', 'exchange', 'forget secret']);
    const late = play({ exchanges: [failure('credential_refused')] });
    const untried = await late.source.fetch(request, () => false);
    assert.ok(
      !untried.ok && untried.failure.reason === 'upstream_throttled',
      'not remembered as refused',
    );
    assert.equal(untried.failure.cooldownMs, 0);
    assert.deepEqual(late.did, ['get secret', 'exchange', 'forget secret']);
  });

  for (const reason of [
    'resource_refused',
    'identity_refused',
    'federation_refused',
    'policy_refused',
    'upstream_refused',
    'upstream_throttled',
    'upstream_down',
  ] as const) {
    it(`keeps the client credential after ${reason}`, async () => {
      const { source, did } = play({ exchanges: [failure(reason)] });
      assert.deepEqual(await source.fetch(request, mayRetry), failure(reason));
      assert.deepEqual(did, ['get secret', 'exchange']);
    });
  }

  const hanging: readonly (readonly [name: string, Script])[] = [
    ['its provider', { gets: [untilAbort] }],
    ['a provider that heeds no signal', { gets: [() => new Promise(() => undefined)] }],
    ['its exchange', { exchanges: [(_, signal) => untilAbort(signal)] }],
    [
      'the second exchange',
      { exchanges: [failure('credential_refused'), (_, signal) => untilAbort(signal)] },
    ],
  ];
  for (const [name, script] of hanging) {
    it(`ends in time when ${name} hangs, and leaves nothing armed`, async () => {
      const { source, clock } = play(script);
      const fetching = source.fetch(request, mayRetry);
      // Completes every step that can complete.
      await new Promise(setImmediate);
      clock.advance(9_999);
      assert.equal(clock.armed.length, 1);
      clock.advance(1);
      const result = await fetching;
      assert.ok(!result.ok);
      assert.deepEqual(result.failure, {
        reason: 'upstream_down',
        description: 'there is no token of Entra ID after 10000 ms',
        cooldownMs: 1_000,
      });
      assert.deepEqual(clock.armed, []);
    });
  }

  it('never rejects, and contains no message of others', async () => {
    const throwing = (): never => {
      throw new RangeError('canary');
    };
    const scripts: readonly Script[] = [
      { gets: [throwing] },
      { gets: [() => Promise.reject(new RangeError('canary'))] },
      { exchanges: [throwing] },
      { exchanges: [() => Promise.reject(new RangeError('canary'))] },
    ];
    for (const script of scripts) {
      const { source, clock } = play(script);
      const result = await source.fetch(request, mayRetry);
      assert.ok(!result.ok);
      assert.equal(result.failure.reason, 'upstream_down');
      assert.equal(result.failure.description, 'Entra ID is unreachable (RangeError)');
      assert.deepEqual(clock.armed, []);
    }
  });
});

describe('the source of Entra ID', () => {
  const authorityIdentity = (authority: string): EntraIdentity => ({
    ...identityWith(credentials[1]!, authority),
    tenantId: 'contoso.com',
    clientId: '11111111-2222-3333-4444-555555555555',
  });

  it('gets a token over the network, after a rotation too, and closes its connections', async () => {
    await using server = await openTokenServer();
    const { certificatePem, privateKeyPem, thumbprintSha256 } = createCertificate();
    const { clientCredentials, did } = credentialsOf({
      clientCertificate: { thumbprintSha256, privateKey: privateKeyPem, x5c: certificatePem },
    });
    const source = openSource({
      clientCredentials,
      timeoutMs: 5_000,
      userAgent: 'nmi/test',
      caPem: server.caPem,
      environment: {},
      clock: systemClock,
    });
    const exp = Math.floor(Date.now() / 1000) + 3_600;
    const outlived = { error: 'invalid_client', error_codes: [700024] };
    server.answerWith(json(401, outlived), json(200, { access_token: jwtOf({ exp }) }));
    const asked = {
      ...request,
      identity: authorityIdentity(server.authority),
      resource: 'https://r/',
    };
    const result = await source.fetch(asked, mayRetry);
    assert.ok(result.ok && result.token.expiresAtWallS === exp);
    assert.deepEqual(did, ['get', 'forget', 'get']);
    const ids = server.received.map(({ form }) => form.get('client_assertion'));
    assert.equal(new Set(ids).size, 2);
    await source[Symbol.asyncDispose]();
    const closed = await source.fetch(asked, mayRetry);
    assert.ok(!closed.ok && closed.failure.reason === 'upstream_down');
  });

  it('ends in time when Entra ID hangs', async () => {
    await using server = await openTokenServer();
    const { clientCredentials } = credentialsOf({ clientSecret: 's' });
    await using source = openSource({
      clientCredentials,
      timeoutMs: 500,
      userAgent: 'nmi/test',
      caPem: server.caPem,
      environment: {},
      clock: systemClock,
    });
    server.answerWith(() => undefined);
    using time = new OwnTime();
    const asked = { ...request, identity: authorityIdentity(server.authority) };
    const result = await source.fetch(asked, mayRetry);
    assert.ok(!result.ok && result.failure.reason === 'upstream_down');
    assert.ok(time.nowMs() < 1_500);
  });
});

/** The source with its network. */
function openSource(
  options: EntraNetworkOptions & Pick<ReturnType<typeof credentialsOf>, 'clientCredentials'>,
) {
  const network = openEntraNetwork(options);
  const exchange = createExchange({ network, clock: options.clock });
  return {
    ...createEntraSource({ ...options, exchange }),
    [Symbol.asyncDispose]: () => network[Symbol.asyncDispose](),
  };
}

function credentialsOf(clientCredential: ClientCredential) {
  const did: string[] = [];
  const clientCredentials = {
    get() {
      did.push('get');
      return Promise.resolve({ ok: true, clientCredential } as const);
    },
    forget() {
      did.push('forget');
      return true;
    },
  };
  return { clientCredentials, did };
}
