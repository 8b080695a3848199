import assert from 'node:assert/strict';
import { constants, createHash, verify, X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import { ConfidentialClientApplication } from '@azure/msal-node';
import { systemClock } from '../../../../src/base/time/clock.ts';
import {
  createExchange,
  scopeOf,
  type ExchangeRequest,
} from '../../../../src/nmi/sources/entra/token-exchange.ts';
import { openEntraNetwork, type EntraNetwork } from '../../../../src/nmi/sources/entra/network.ts';
import type { ClientCredential } from '../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import type { SourceResult } from '../../../../src/nmi/sources/source.ts';
import {
  createCertificate,
  json,
  jwtOf,
  openTokenServer,
  raw,
  type Answer,
  type TokenServer,
} from './token-server.ts';

const clientId = '11111111-2222-3333-4444-555555555555';
const tenantId = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const secretCredential: ClientCredential = { clientSecret: 'p~Q8 ca/na+ry' };
const assertionCredential = {
  clientAssertion: jwtOf({ sub: 'system:serviceaccount:a:b' }),
} as const satisfies ClientCredential;
const { certificatePem, privateKeyPem, thumbprintSha256 } = createCertificate();
const issuerPem = createCertificate().certificatePem;
const certificateCredential = {
  clientCertificate: {
    thumbprintSha256,
    privateKey: privateKeyPem,
    x5c: `${certificatePem}${issuerPem}`,
  },
} as const satisfies ClientCredential;

const correlationId = '0a1b2c3d-0000-4000-8000-000000000009';
const clientCredentials: readonly ClientCredential[] = [
  secretCredential,
  assertionCredential,
  certificateCredential,
];

interface Fixture extends AsyncDisposable {
  readonly server: TokenServer;
  fetch(request?: Partial<ExchangeRequest>, signal?: AbortSignal): Promise<SourceResult>;
}

async function openFixture(): Promise<Fixture> {
  const server = await openTokenServer();
  const network = openEntraNetwork({
    timeoutMs: 3_000,
    userAgent: 'nmi/test',
    caPem: server.caPem,
    environment: {},
    clock: systemClock,
  });
  const exchange = createExchange({ network, clock: systemClock });
  const identity = identityAt(server.authority);
  return {
    server,
    fetch: (request = {}, signal = AbortSignal.timeout(5_000)) =>
      exchange(
        {
          identity,
          resource: 'https://r',
          clientCredential: secretCredential,
          correlationId,
          ...request,
        },
        signal,
      ),
    async [Symbol.asyncDispose]() {
      await network[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

function identityAt(authority: string): EntraIdentity {
  return {
    kind: 'entra',
    authority,
    tenantId,
    clientId,
    credential: { kind: 'secret', secret: { namespace: 'a', name: 's' } },
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
  it('goes to the tenant’s v2 endpoint, once, and without any other request', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    const result = await fixture.fetch({ resource: 'https://Vault.azure.net' });
    assert.ok(result.ok);
    const nowS = Date.now() / 1000;
    assert.equal(result.token.clientId, clientId);
    assert.equal(result.token.resource, 'https://Vault.azure.net');
    assert.ok(Math.abs(result.token.expiresAtWallS - nowS - lifeS) < 5);
    assert.ok(Math.abs((result.token.refreshAtWallS ?? 0) - nowS - lifeS / 2) < 5);
    assert.equal(fixture.server.received.length, 1);
    const [{ method, target, headers, form }] = fixture.server.received as [
      TokenServer['received'][0],
    ];
    assert.equal(method, 'POST');
    assert.equal(target, `/${tenantId}/oauth2/v2.0/token?client-request-id=${correlationId}`);
    assert.equal(form.get('grant_type'), 'client_credentials');
    assert.equal(form.get('client_id'), clientId);
    assert.equal(form.get('scope'), 'https://Vault.azure.net/.default');
    assert.equal(form.get('client_secret'), 'p~Q8 ca/na+ry');
    assert.equal(form.has('resource'), false);
    assert.equal(form.has('client_assertion'), false);
    assert.equal(headers['user-agent'], 'nmi/test');
  });

  const scopes = [
    ['https://management.azure.com/', 'https://management.azure.com//.default'],
    ['https://management.azure.com', 'https://management.azure.com/.default'],
    ['https://management.azure.com//', 'https://management.azure.com///.default'],
    ['https://vault.azure.net/.default', 'https://vault.azure.net/.default'],
    ['https://vault.azure.net//.default', 'https://vault.azure.net//.default'],
    ['api://My-App', 'api://My-App/.default'],
    ['00000003-0000-0000-C000-000000000000', '00000003-0000-0000-C000-000000000000/.default'],
    ['https://a?b=c&d=ä%20', 'https://a?b=c&d=ä%20/.default'],
  ] as const;
  for (const [resource, scope] of scopes) {
    it(`for ${resource} has the scope ${scope}`, async () => {
      await using fixture = await openFixture();
      fixture.server.answerWith(token());
      const result = await fixture.fetch({ resource });
      assert.ok(result.ok && result.token.resource === resource);
      assert.equal(scopeOf(resource), scope);
      assert.deepEqual(fixture.server.received[0]?.form.getAll('scope'), [scope]);
    });
  }

  it('passes on a service account’s token unchanged', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    assert.ok((await fixture.fetch({ clientCredential: assertionCredential })).ok);
    const form = fixture.server.received[0]?.form;
    assert.equal(form?.get('client_assertion'), assertionCredential.clientAssertion);
    assert.equal(
      form.get('client_assertion_type'),
      'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    );
    assert.equal(form.has('client_secret'), false);
  });

  it('is signed with the certificate: PS256, its thumbprint and its chain', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    assert.ok((await fixture.fetch({ clientCredential: certificateCredential })).ok);
    const assertion = fixture.server.received[0]?.form.get('client_assertion') ?? '';
    const [head = '', payload = '', signature = ''] = assertion.split('.');
    const parse = (part: string): Record<string, unknown> =>
      JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>;
    const { raw: der, publicKey } = new X509Certificate(certificatePem);
    assert.deepEqual(parse(head), {
      alg: 'PS256',
      typ: 'JWT',
      'x5t#S256': createHash('sha256').update(der).digest('base64url'),
      x5c: [der.toString('base64'), new X509Certificate(issuerPem).raw.toString('base64')],
    });
    const key = { key: publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    const signed = Buffer.from(`${head}.${payload}`);
    assert.ok(verify('sha256', signed, key, Buffer.from(signature, 'base64url')));
    const claims = parse(payload);
    assert.equal(claims['iss'], clientId);
    assert.equal(claims['sub'], clientId);
    assert.equal(claims['aud'], `${fixture.server.authority}/${tenantId}/oauth2/v2.0/token`);
    const lives = Number(claims['exp']) - Date.now() / 1000;
    assert.ok(lives > 590 && lives < 610, `${lives} s`);
  });

  it('goes to its host, whatever the environment contains', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(token());
    process.env['MSAL_FORCE_REGION'] = 'westeurope';
    try {
      assert.ok((await fixture.fetch()).ok);
    } finally {
      delete process.env['MSAL_FORCE_REGION'];
    }
    assert.equal(fixture.server.received.length, 1);
  });

  it('takes its credential to no other address, even if MSAL names one', async (t) => {
    await using fixture = await openFixture();
    const { prototype } = ConfidentialClientApplication;
    t.mock.method(
      prototype,
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

  for (const host of [
    'login.microsoftonline.com',
    'login.windows.net',
    'login.microsoft.com',
    'sts.windows.net',
    'login.microsoftonline.us',
    'login-us.microsoftonline.com',
    'login.partner.microsoftonline.cn',
    'login.microsoftonline.eaglex.ic.gov',
    'login.microsoftonline.microsoft.scloud',
    'login.contoso.example:8443',
  ]) {
    it(`is the only one to ${host}: no discovery`, async () => {
      const urls: string[] = [];
      const network: Pick<EntraNetwork, 'postForm'> = {
        postForm(url) {
          urls.push(url.split('?')[0] ?? '');
          return Promise.resolve({ status: 503, body: '', retryAfterS: undefined });
        },
      };
      const exchange = createExchange({ network, clock: systemClock });
      const identity = identityAt(`https://${host}`);
      const request = {
        identity,
        resource: 'r',
        clientCredential: secretCredential,
        correlationId,
      };
      await exchange(request, AbortSignal.timeout(5_000));
      assert.deepEqual(urls, [`https://${host}/${tenantId}/oauth2/v2.0/token`]);
    });
  }

  it('is not made with a key that cannot sign', async () => {
    await using fixture = await openFixture();
    const short = createCertificate(1024);
    const { clientCertificate } = certificateCredential;
    const unfit: readonly ClientCredential[] = [
      { clientCertificate: { ...clientCertificate, privateKey: short.privateKeyPem } },
      { clientCertificate: { ...clientCertificate, privateKey: 'PEM canary' } },
      { clientCertificate: { ...clientCertificate, thumbprintSha256: '' } },
      { clientSecret: '' },
      { clientAssertion: '' },
    ];
    for (const clientCredential of unfit) {
      const result = await fixture.fetch({ clientCredential });
      assert.ok(
        !result.ok && result.failure.reason === 'credential_invalid',
        String(Object.keys(clientCredential)),
      );
      assert.match(result.failure.description, /cannot be used.*\((?!undefined)[A-Za-z_]+\)$/);
    }
    assert.equal(fixture.server.received.length, 0);
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
  const failing: readonly (readonly [name: string, Answer, reason: string])[] = [
    ['500011', json(400, refusal(500011, 'invalid_resource')), 'resource_refused'],
    ['7000215', json(401, refusal(7000215)), 'credential_refused'],
    ['70021', json(400, refusal(70021)), 'federation_refused'],
    // MSAL would treat this as an interaction, and report no status.
    ['53003', json(400, refusal(53003, 'interaction_required')), 'policy_refused'],
    ['65001', json(400, refusal(65001, 'invalid_grant')), 'policy_refused'],
    ['a refusal of status 200', json(200, refusal(700016)), 'identity_refused'],
    ['429', json(429, refusal(90055), { 'Retry-After': '7' }), 'upstream_throttled'],
    ['429 of a gateway', raw(429, 'slow down'), 'upstream_throttled'],
    ['a 400 with Retry-After', json(400, refusal(90033), { 'Retry-After': '60' }), 'upstream_down'],
    ['503', json(503, refusal(90033, 'temporarily_unavailable')), 'upstream_down'],
    ['an HTML 502', raw(502, '<html>Bad Gateway</html>'), 'upstream_down'],
    ['an HTML 200', raw(200, '<html>Welcome</html>'), 'upstream_down'],
    ['a redirect', raw(302, '', { Location: 'https://evil.example' }), 'upstream_down'],
    ['a token without expiry', json(200, { access_token: 'opaque' }), 'upstream_down'],
    ['a cut connection', (response) => response.destroy(), 'upstream_down'],
  ];
  for (const [name, answer, reason] of failing) {
    it(`of ${name} is one request, ${reason}, and does not affect others`, async () => {
      await using fixture = await openFixture();
      fixture.server.answerWith(answer, token());
      const result = await fixture.fetch();
      assert.ok(!result.ok);
      assert.equal(result.failure.reason, reason);
      assert.equal(fixture.server.received.length, 1);
      // At once, and for the same scope: MSAL would refuse it for 60 s without a request.
      assert.ok((await fixture.fetch()).ok);
      assert.equal(fixture.server.received.length, 2);
    });
  }

  it('keeps Retry-After and the details of Entra ID beside the error', async () => {
    await using fixture = await openFixture();
    fixture.server.answerWith(failing[6]![1], failing[1]![1]);
    const throttled = await fixture.fetch();
    assert.ok(!throttled.ok);
    assert.equal(throttled.failure.retryAfterS, 7);
    assert.equal(throttled.failure.cooldownMs, 7_000);
    const refused = await fixture.fetch();
    assert.ok(!refused.ok);
    assert.equal(refused.failure.description, 'AADSTS7000215: No. Trace ID: t');
    assert.deepEqual(refused.failure.details, {
      errorCodes: [7000215],
      timestamp: '2026-01-02 03:04:05Z',
      traceId: 't',
      correlationId: 'c',
    });
  });

  it('ends with the caller’s signal', async () => {
    await using fixture = await openFixture();
    const abort = new AbortController();
    const reason = new Error('enough');
    fixture.server.answerWith(() => {
      abort.abort(reason);
    });
    await assert.rejects(fixture.fetch({}, abort.signal), (error) => error === reason);
  });

  it('never exposes the client credential, whatever is echoed', async () => {
    await using fixture = await openFixture();
    const echo = (status: number): Answer => {
      return (response, { form }) => {
        const sent = form.get('client_secret') ?? form.get('client_assertion') ?? '';
        const fields = { ...refusal(7000215, sent, sent), trace_id: sent, correlation_id: sent };
        json(status, fields)(response, { form } as TokenServer['received'][0]);
      };
    };
    for (const status of [200, 400, 401, 429, 503]) {
      for (const clientCredential of clientCredentials) {
        fixture.server.answerWith(echo(status));
        const result: SourceResult = await fixture.fetch({ clientCredential });
        assert.ok(!result.ok);
        const told = JSON.stringify(result);
        const form = fixture.server.received.at(-1)!.form;
        const sent = form.get('client_secret') ?? form.get('client_assertion')!;
        for (const part of [sent, sent.slice(-30), privateKeyPem.slice(60, 100)]) {
          assert.equal(
            told.includes(part),
            false,
            `${String(Object.keys(clientCredential))} ${status}`,
          );
        }
        assert.match(result.failure.description, /withheld$/);
      }
    }
  });
});

describe('after a request', () => {
  it('MSAL keeps no state: no application, and so no token, no throttle and no credential', async () => {
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
