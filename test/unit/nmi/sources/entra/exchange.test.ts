import assert from 'node:assert/strict';
import { constants, createHash, generateKeyPairSync, verify, X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import { ConfidentialClientApplication } from '@azure/msal-node';
import { systemClock } from '../../../../../src/base/time/clock.ts';
import { PodIndex } from '../../../../../src/cache/index/pod-index.ts';
import type { Token } from '../../../../../src/cache/token/token.ts';
import type { KubeClient } from '../../../../../src/nmi/kube/api/client.ts';
import type {
  ClientCredential,
  ClientCredentialResult,
} from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import type { EntraCredential } from '../../../../../src/nmi/sources/entra/credentials/kinds.ts';
import { cloudNames, cloudOf } from '../../../../../src/nmi/sources/entra/clouds.ts';
import {
  createEntraSource,
  openEntraUpstream,
} from '../../../../../src/nmi/sources/entra/entra.ts';
import { openEntraNetwork } from '../../../../../src/nmi/sources/entra/network.ts';
import {
  createExchange,
  scopeOf,
  type Exchange,
  type ExchangeRequest,
} from '../../../../../src/nmi/sources/entra/token-exchange.ts';
import type { FailureReason, SourceResult } from '../../../../../src/nmi/sources/source.ts';
import { createEntraIdentity } from '../../../../support/entra-identity.ts';
import { HandClock } from '../../../../support/hand-clock.ts';
import { jwtOf } from '../../../../support/jwt.ts';
import { authority, json, openTokenServer, raw, type Answer } from './token-server.ts';

const clientId = '11111111-2222-3333-4444-555555555555';
const tenantId = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const correlationId = '0a1b2c3d-0000-4000-8000-000000000009';
const secret = { clientSecret: 'p~Q8 ca/na+ry' } as const;
const assertion = { clientAssertion: jwtOf({ sub: 'system:serviceaccount:a:b' }) } as const;
const issued = await authority.issueClient('app', { signedBy: 'authority' });
const clientCertificate = {
  thumbprintSha256: issued.thumbprintSha256,
  privateKey: issued.keyPem,
  x5c: `${issued.certificatePem}${issued.issuerPem}`,
};
const clientCredentials: readonly ClientCredential[] = [secret, assertion, { clientCertificate }];

const identityAt = (origin: string) =>
  createEntraIdentity({ authority: origin, tenantId, clientId });

async function openFixture() {
  const server = await openTokenServer();
  const clock = systemClock;
  const caPem = authority.certificatePem;
  const options = { timeoutMs: 3_000, userAgent: 'nmi/test', caPem, environment: {}, clock };
  const network = openEntraNetwork(options);
  const exchange = createExchange({ network, clock });
  const request = { identity: identityAt(server.authority), resource: 'https://r', correlationId };
  return {
    server,
    network,
    exchange,
    request,
    fetch: (own: Partial<ExchangeRequest> = {}, signal = AbortSignal.timeout(5_000)) =>
      exchange({ ...request, clientCredential: secret, ...own }, signal),
    async [Symbol.asyncDispose]() {
      await network[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

const lifeS = 3_600;

function token(): Answer {
  const exp = Math.floor(Date.now() / 1000) + lifeS;
  const accessToken = jwtOf({ exp, nbf: exp - lifeS - 300 });
  const body = { token_type: 'Bearer', expires_in: lifeS, access_token: accessToken };
  return json(200, { ...body, ext_expires_in: lifeS, refresh_in: lifeS / 2 });
}

describe('a request for a token', () => {
  it('goes to the tenant’s v2 endpoint, once, whatever the environment contains', async (t) => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    process.env['MSAL_FORCE_REGION'] = 'westeurope';
    t.after(() => delete process.env['MSAL_FORCE_REGION']);
    const result = await fixture.fetch({ resource: 'https://Vault.azure.net' });
    assert.ok(result.ok);
    const nowS = Date.now() / 1000;
    assert.equal(result.token.clientId, clientId);
    assert.equal(result.token.resource, 'https://Vault.azure.net');
    assert.ok(Math.abs(result.token.expiresAtWallS - nowS - lifeS) < 5);
    assert.ok(Math.abs((result.token.refreshAtWallS ?? 0) - nowS - lifeS / 2) < 5);
    assert.equal(fixture.server.received.length, 1);
    const { method, target, headers, form } = fixture.server.received[0]!;
    assert.equal(method, 'POST');
    assert.equal(target, `/${tenantId}/oauth2/v2.0/token?client-request-id=${correlationId}`);
    assert.equal(headers['user-agent'], 'nmi/test');
    const sent = {
      grant_type: 'client_credentials',
      client_id: clientId,
      scope: 'https://Vault.azure.net/.default',
      client_secret: secret.clientSecret,
    };
    const fields = Object.fromEntries(form);
    assert.deepEqual({ ...fields, ...sent }, fields);
    for (const field of ['resource', 'client_assertion']) assert.ok(!(field in fields));
  });

  it('has the resource as its scope', () => {
    for (const [resource, scope] of [
      ['https://management.azure.com/', 'https://management.azure.com//.default'],
      ['https://management.azure.com', 'https://management.azure.com/.default'],
      ['https://management.azure.com//', 'https://management.azure.com///.default'],
      ['https://vault.azure.net/.default', 'https://vault.azure.net/.default'],
      ['https://vault.azure.net//.default', 'https://vault.azure.net//.default'],
      ['api://My-App', 'api://My-App/.default'],
      ['00000003-0000-0000-C000-000000000000', '00000003-0000-0000-C000-000000000000/.default'],
      ['https://a?b=c&d=ä%20', 'https://a?b=c&d=ä%20/.default'],
    ] as const) {
      assert.equal(scopeOf(resource), scope);
    }
  });

  it('passes on a service account’s token unchanged', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    assert.ok((await fixture.fetch({ clientCredential: assertion })).ok);
    const form = Object.fromEntries(fixture.server.received[0]!.form);
    const type = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
    assert.equal(form['client_assertion'], assertion.clientAssertion);
    assert.deepEqual([form['client_assertion_type'], form['client_secret']], [type, undefined]);
  });

  it('is signed with the certificate: PS256, its thumbprint and its chain', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    assert.ok((await fixture.fetch({ clientCredential: { clientCertificate } })).ok);
    const sent = fixture.server.received[0]?.form.get('client_assertion') ?? '';
    const [head = '', payload = '', signature = ''] = sent.split('.');
    const parse = (part: string): Record<string, unknown> =>
      JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>;
    const { raw: der, publicKey } = new X509Certificate(issued.certificatePem);
    assert.deepEqual(parse(head), {
      alg: 'PS256',
      typ: 'JWT',
      'x5t#S256': createHash('sha256').update(der).digest('base64url'),
      x5c: [der, new X509Certificate(issued.issuerPem).raw].map((each) => each.toString('base64')),
    });
    const key = { key: publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    const signed = Buffer.from(`${head}.${payload}`);
    assert.ok(verify('sha256', signed, key, Buffer.from(signature, 'base64url')));
    const { iss, sub, aud, exp } = parse(payload);
    const endpoint = `${fixture.server.authority}/${tenantId}/oauth2/v2.0/token`;
    assert.deepEqual([iss, sub, aud], [clientId, clientId, endpoint]);
    const lives = Number(exp) - Date.now() / 1000;
    assert.ok(lives > 590 && lives < 610, `${lives} s`);
  });

  it('takes its credential to no other address, even if MSAL names one', async (t) => {
    await using fixture = await openFixture();
    t.mock.method(
      ConfidentialClientApplication.prototype,
      'acquireTokenByClientCredential',
      function (this: ConfidentialClientApplication) {
        const url = `${fixture.server.authority}/other/oauth2/v2.0/token`;
        return this['config'].system.networkClient.sendPostRequestAsync(url);
      },
    );
    const result = await fixture.fetch();
    assert.ok(!result.ok && result.failure.reason === 'credential_invalid');
    assert.equal(fixture.server.received.length, 0);
  });

  it('is the only one, to every cloud: no discovery', async () => {
    const urls: string[] = [];
    const postForm = (url: string) => {
      urls.push(url.split('?')[0] ?? '');
      return Promise.resolve({ status: 503, body: '', retryAfterS: undefined });
    };
    const exchange = createExchange({ network: { postForm }, clock: systemClock });
    const others = ['https://login.windows.net', 'https://login.contoso.example:8443'];
    const origins = [...cloudNames.map((name) => cloudOf(name).authority), ...others];
    for (const origin of origins) {
      const request = { identity: identityAt(origin), resource: 'r', correlationId };
      await exchange({ ...request, clientCredential: secret }, AbortSignal.timeout(5_000));
    }
    assert.deepEqual(
      urls,
      origins.map((origin) => `${origin}/${tenantId}/oauth2/v2.0/token`),
    );
  });

  it('is not made with a key that cannot sign', async () => {
    await using fixture = await openFixture();
    const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
    const privateKey = short.export({ type: 'pkcs8', format: 'pem' });
    for (const clientCredential of [
      { clientCertificate: { ...clientCertificate, privateKey } },
      { clientCertificate: { ...clientCertificate, privateKey: 'PEM canary' } },
      { clientCertificate: { ...clientCertificate, thumbprintSha256: '' } },
      { clientSecret: '' },
      { clientAssertion: '' },
    ]) {
      const result = await fixture.fetch({ clientCredential });
      assert.ok(!result.ok && result.failure.reason === 'credential_invalid');
      assert.match(result.failure.description, /cannot be used.*\((?!undefined)[A-Za-z_]+\)$/);
    }
    assert.equal(fixture.server.received.length, 0);
  });

  it('leaves no state of MSAL: no application, and so no token, throttle or credential', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    for (let call = 0; call < 10; call++) {
      const clientCredential = clientCredentials[call % clientCredentials.length]!;
      assert.ok((await fixture.fetch({ resource: `https://r${call}`, clientCredential })).ok);
    }
    await fixture.fetch();
    const kept = new ConfidentialClientApplication({
      auth: { clientId, clientSecret: 's', authority: 'https://login.microsoftonline.com/t' },
    });
    // Collects garbage first; the object made here shows that the count works.
    assert.equal(queryObjects(ConfidentialClientApplication, { format: 'count' }), 1);
    assert.ok(kept);
  });
});

describe('a failing request', () => {
  const refusal = (code: number, error = 'invalid_client', text = ''): object => ({
    error,
    error_description: `AADSTS${code}: No.${text}\r\nTrace ID: t`,
    error_codes: [code],
    timestamp: '2026-01-02 03:04:05Z',
    trace_id: 't',
    correlation_id: 'c',
  });

  it('is one request with one reason, and does not affect others', async () => {
    await using fixture = await openFixture();
    const { server } = fixture;
    const busy = { 'Retry-After': '60' };
    const away = { Location: 'https://evil.example' };
    const waits = [7, 10];
    const ids = { timestamp: '2026-01-02 03:04:05Z', traceId: 't', correlationId: 'c' };
    for (const [answer, reason] of [
      [json(401, refusal(7000215)), 'credential_refused'],
      // MSAL would treat this as an interaction, and report no status.
      [json(400, refusal(53003, 'interaction_required')), 'policy_refused'],
      [json(200, refusal(700016)), 'identity_refused'],
      [json(429, refusal(90055), { 'Retry-After': '7' }), 'upstream_throttled'],
      [raw(429, 'slow down'), 'upstream_throttled'],
      [json(400, refusal(90033), busy), 'upstream_down'],
      [raw(200, '<html>Welcome</html>'), 'upstream_down'],
      [raw(302, '', away), 'upstream_down'],
      [json(200, { access_token: 'opaque' }), 'upstream_down'],
      [(response) => response.destroy(), 'upstream_down'],
    ] satisfies readonly (readonly [Answer, FailureReason])[]) {
      server.answerWith(answer, token());
      const before = server.received.length;
      const result = await fixture.fetch();
      assert.ok(!result.ok);
      const { failure } = result;
      assert.equal(failure.reason, reason);
      if (reason === 'upstream_throttled') assert.equal(failure.retryAfterS, waits.shift());
      if (reason === 'credential_refused') {
        assert.equal(failure.description, 'AADSTS7000215: No. Trace ID: t');
        assert.deepEqual(failure.details, { errorCodes: [7000215], ...ids });
      }
      assert.equal(server.received.length, before + 1);
      // At once, and for the same scope: MSAL would refuse it for 60 s without a request.
      assert.ok((await fixture.fetch()).ok);
      assert.equal(server.received.length, before + 2);
    }
  });

  it('never exposes the client credential, whatever is echoed', async () => {
    await using fixture = await openFixture();
    const sentIn = (form: URLSearchParams) =>
      form.get('client_secret') ?? form.get('client_assertion') ?? '';
    for (const status of [200, 400, 401, 429, 503]) {
      for (const clientCredential of clientCredentials) {
        fixture.server.answerWith((response, received) => {
          const sent = sentIn(received.form);
          const ids = { trace_id: sent, correlation_id: sent };
          json(status, { ...refusal(7000215, sent, sent), ...ids })(response, received);
        });
        const result: SourceResult = await fixture.fetch({ clientCredential });
        assert.ok(!result.ok);
        const told = JSON.stringify(result);
        const sent = sentIn(fixture.server.received.at(-1)!.form);
        for (const part of [sent, sent.slice(-30), issued.keyPem.slice(60, 100)]) {
          const what = `${Object.keys(clientCredential).join()} ${status}`;
          assert.equal(told.includes(part), false, what);
        }
        assert.match(result.failure.description, /withheld$/);
      }
    }
  });
});

describe('a fetch from Entra ID', () => {
  const done: SourceResult = { ok: true, token: { accessToken: 'tok' } as Token };
  const request = { identity: identityAt('https://e'), resource: 'r', correlationId };
  const mayRetry = () => true;
  const failure = (reason: FailureReason): SourceResult & ClientCredentialResult => ({
    ok: false,
    failure: { reason, description: 'no', cooldownMs: 1 },
  });
  const credentialOf = (clientSecret: string): ClientCredentialResult => ({
    ok: true,
    clientCredential: { clientSecret },
  });
  const refused = failure('credential_refused');

  interface Script {
    /** One per call; the last one repeats. */
    readonly gets?: readonly (
      ClientCredentialResult | ((signal: AbortSignal) => Promise<ClientCredentialResult>)
    )[];
    readonly exchanges?: readonly (SourceResult | Exchange)[];
    readonly forgets?: boolean;
  }

  /** A source with a scripted provider and exchange, and a record of its calls. */
  function play({ gets = [credentialOf('p')], exchanges = [done], forgets = true }: Script = {}) {
    const did: string[] = [];
    const next = <T>(list: readonly T[], word: string): T => {
      const calls = did.filter((each) => each.startsWith(word)).length;
      return list[Math.min(calls, list.length) - 1]!;
    };
    const clock = new HandClock();
    const source = createEntraSource({
      clientCredentials: {
        get({ kind }: EntraCredential, signal: AbortSignal) {
          did.push(`get ${kind}`);
          const step = next(gets, 'get');
          return typeof step === 'function' ? step(signal) : Promise.resolve(step);
        },
        forget({ kind }: EntraCredential) {
          did.push(`forget ${kind}`);
          return forgets;
        },
      },
      timeoutMs: 10_000,
      clock,
      exchange(asked, signal) {
        did.push(`exchange ${Object.values(asked.clientCredential).join()}`);
        const step = next(exchanges, 'exchange');
        return typeof step === 'function' ? step(asked, signal) : Promise.resolve(step);
      },
    });
    return { source, did, clock };
  }

  it('gets a client credential and exchanges it, once more if a cached one was refused', async () => {
    const once = ['get secret', 'exchange p'];
    const [old, renewed] = [credentialOf('old'), credentialOf('new')];
    const twice = ['get secret', 'exchange old', 'forget secret', 'get secret', 'exchange new'];
    const missing = failure('credential_missing');
    const reasons = ['identity_refused', 'federation_refused', 'upstream_down'] as const;
    const kept = reasons.map(
      (reason) => [{ exchanges: [failure(reason)] }, once, failure(reason)] as const,
    );
    const table: readonly (readonly [Script, readonly string[], SourceResult])[] = [
      [{}, once, done],
      [{ gets: [missing] }, ['get secret'], missing],
      ...kept,
      [{ gets: [old, renewed], exchanges: [refused, done] }, twice, done],
      [{ gets: [old, renewed], exchanges: [refused] }, twice, refused],
      [{ gets: [old, missing], exchanges: [refused] }, twice.slice(0, 4), missing],
      // It was just read.
      [{ exchanges: [refused], forgets: false }, [...once, 'forget secret'], refused],
    ];
    for (const [script, steps, result] of table) {
      const { source, did } = play(script);
      assert.deepEqual(await source.fetch(request, mayRetry), result);
      assert.deepEqual(did, steps);
    }
  });

  it('is not repeated beyond the budget, and then not remembered as refused', async () => {
    const { source, did } = play({ exchanges: [refused] });
    const untried = await source.fetch(request, () => false);
    assert.ok(!untried.ok && untried.failure.reason === 'upstream_throttled');
    assert.equal(untried.failure.cooldownMs, 0);
    assert.deepEqual(did, ['get secret', 'exchange p', 'forget secret']);
  });

  it('ends in time when a step hangs, and leaves nothing armed', async () => {
    const untilAbort = (signal: AbortSignal): Promise<never> => {
      const { promise, reject } = Promise.withResolvers<never>();
      signal.addEventListener('abort', () => {
        reject(signal.reason);
      });
      return promise;
    };
    const hangs: Exchange = (_, signal) => untilAbort(signal);
    for (const script of [
      { gets: [untilAbort] },
      // It heeds no signal.
      { gets: [() => new Promise<never>(() => undefined)] },
      { exchanges: [hangs] },
      { exchanges: [refused, hangs] },
    ]) {
      const { source, clock } = play(script);
      const fetching = source.fetch(request, mayRetry);
      // Completes every step that can complete.
      await new Promise(setImmediate);
      clock.advance(9_999);
      assert.equal(clock.armed.length, 1);
      clock.advance(1);
      const description = 'no token of Entra ID (e:443) came within 10000 ms, as behind a firewall';
      assert.deepEqual(await fetching, {
        ok: false,
        failure: { reason: 'upstream_down', description, cooldownMs: 1_000 },
      });
      assert.deepEqual(clock.armed, []);
    }
  });

  it('never rejects, and contains no message of others', async () => {
    const throwing = (): never => {
      throw new RangeError('canary');
    };
    const rejecting = () => Promise.reject(new RangeError('canary'));
    for (const script of [
      { gets: [throwing] },
      { gets: [rejecting] },
      { exchanges: [throwing] },
      { exchanges: [rejecting] },
    ]) {
      const { source, clock } = play(script);
      const result = await source.fetch(request, mayRetry);
      assert.ok(!result.ok && result.failure.reason === 'upstream_down');
      assert.equal(result.failure.description, 'Entra ID (e:443) is unreachable (RangeError)');
      assert.deepEqual(clock.armed, []);
    }
  });

  it('gets a token over the network, signs each time anew, and closes its connections', async () => {
    await using fixture = await openFixture();
    const given = { ok: true, clientCredential: { clientCertificate } } as const;
    const source = createEntraSource({
      clientCredentials: { get: () => Promise.resolve(given), forget: () => true },
      exchange: fixture.exchange,
      timeoutMs: 5_000,
      clock: systemClock,
    });
    const outlived = { error: 'invalid_client', error_codes: [700024] };
    fixture.server.answerWith(json(401, outlived), token());
    assert.ok((await source.fetch(fixture.request, mayRetry)).ok);
    const sent = fixture.server.received.map(({ form }) => form.get('client_assertion'));
    assert.equal(new Set(sent).size, 2);
    await fixture.network[Symbol.asyncDispose]();
    const closed = await source.fetch(fixture.request, mayRetry);
    assert.ok(!closed.ok && closed.failure.reason === 'upstream_down');
  });
});

describe('the whole source of Entra ID', () => {
  function open() {
    const clock = new HandClock();
    const listeners = new Set<() => void>();
    const source = openEntraUpstream({
      timeoutMs: 1_000,
      userAgent: 'test',
      caPem: undefined,
      onCertificate: () => undefined,
      client: {} as KubeClient,
      clusterId: '',
      tokenClient: {} as KubeClient,
      pods: new PodIndex(clock),
      demand: {
        isCredentialNeeded: () => false,
        onChange: (listener) => {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      },
      clock,
      environment: {},
    });
    return { clock, listeners, source };
  }

  it('follows changes of need, a burst at once, until the end', async () => {
    const { clock, listeners, source } = open();
    assert.equal(listeners.size, 1);
    for (const listener of [...listeners, ...listeners]) listener();
    assert.deepEqual(clock.armed, [0]);
    clock.advance(0);
    assert.deepEqual(clock.armed, []);
    for (const listener of listeners) listener();
    await source[Symbol.asyncDispose]();
    assert.deepEqual([listeners.size, clock.armed.length], [0, 0]);
  });
});
