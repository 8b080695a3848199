import assert from 'node:assert/strict';
import {
  constants,
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  randomUUID,
  sign,
  type KeyObject,
} from 'node:crypto';
import { after, before, beforeEach, describe, it } from 'node:test';
import { Agent, request } from 'undici';
import {
  createEntraApplication,
  type EntraApplication,
} from '../../../../../lab/fakes/entra/applications.ts';
import type { PublishedKey } from '../../../../../lab/fakes/entra/assertions.ts';
import { openFakeEntra, type FakeEntra } from '../../../../../lab/fakes/entra/fake-entra.ts';
import { fakeIssuer } from '../../../../../lab/fakes/kube/tokens.ts';
import {
  createLabAuthority,
  type ClientCertificate,
  type LabAuthority,
} from '../../../../../lab/fakes/authority.ts';
import { exchangeIssuer } from '../../../../../lab/fakes/exchange-tokens.ts';
import { createLabIdentity, labTenantId } from '../../../../../lab/fakes/identity.ts';
import {
  createTokenSigner,
  decodeLabToken,
  type LabClaims,
  type LabIdentity,
  type TokenGrant,
} from '../../../../../lab/fakes/token.ts';
import { HandClock } from '../../../../support/hand-clock.ts';

const clock = new HandClock(Date.now());
const secret = 'lab-secret-value';
const resource = 'https://vault.azure.net';
const scope = `${resource}/.default`;
const audience = 'api://AzureADTokenExchange';
const subject = 'system:serviceaccount:shop:web';
const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

let authority: LabAuthority;
let certificate: ClientCertificate;
let untrusted: ClientCertificate;
let entra: FakeEntra;
let agent: Agent;
let web: EntraApplication;

before(async () => {
  authority = await createLabAuthority(clock);
  certificate = await authority.issueClient('web');
  untrusted = await authority.issueClient('untrusted');
  entra = await openFakeEntra({ tls: await authority.issueServer(['127.0.0.1']), clock });
  agent = new Agent({ connect: { ca: authority.certificatePem } });
});
after(async () => {
  await agent.close();
  await entra[Symbol.asyncDispose]();
});
beforeEach(() => {
  entra.reset();
  web = createEntraApplication('web', {
    secrets: [
      { value: 'lab-secret-expired', expiresAtWallMs: clock.wallMs() },
      { value: secret, expiresAtWallMs: clock.wallMs() + 1000 },
    ],
    certificates: [certificate.certificatePem],
    federatedCredentials: [
      { issuer: fakeIssuer, subject: 'system:serviceaccount:shop:other', audience },
      { issuer: fakeIssuer, subject, audience },
    ],
  });
  entra.register(web);
});

type Form = Readonly<Record<string, string | undefined>>;

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** A valid request with a secret, with these changes; undefined removes a field. */
async function ask(changes: Form = {}, tenant = labTenantId, method = 'POST'): Promise<Answer> {
  const form = new URLSearchParams();
  const base: Form = {
    client_id: web.clientId,
    scope,
    grant_type: 'client_credentials',
    client_secret: secret,
  };
  for (const [name, value] of Object.entries({ ...base, ...changes })) {
    if (value !== undefined) form.set(name, value);
  }
  const response = await request(`${entra.authority}/${tenant}/oauth2/v2.0/token`, {
    dispatcher: agent,
    method,
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    ...(method === 'GET' ? {} : { body: form.toString() }),
  });
  const text = await response.body.text();
  const isJson = String(response.headers['content-type']).startsWith('application/json');
  const body = (isJson ? JSON.parse(text) : {}) as Answer['body'];
  return { status: response.statusCode, text, body };
}

function withAssertion(assertion: string): Form {
  return {
    client_secret: undefined,
    client_assertion: assertion,
    client_assertion_type: assertionType,
  };
}

async function assertRefused(changes: Form, status: number, code: number, says = /./) {
  const answer = await ask(changes);
  assertRefusal(answer, status, code, says);
  return answer;
}

function assertRefusal(answer: Answer, status: number, code: number, says = /./): void {
  const { error_codes: codes, error_description: description } = answer.body;
  assert.deepEqual([answer.status, codes], [status, [code]], answer.text);
  assert.match(String(description), new RegExp(`^AADSTS${code}: `));
  assert.match(String(description), says);
  assert.equal(entra.requests().at(-1)?.code, code);
}

interface Jwt {
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
}

function signJwt({ header, claims }: Jwt, key: KeyObject | string): string {
  const text = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  const pss = {
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
  };
  const signer = typeof key === 'string' ? createPrivateKey(key) : key;
  const options = { key: signer, ...(header['alg'] === 'PS256' ? pss : {}) };
  return `${text}.${sign('sha256', Buffer.from(text), options).toString('base64url')}`;
}

/** An assertion of `web`, with these changes. */
function ownAssertion(
  claims: Jwt['claims'] = {},
  header: Jwt['header'] = {},
  signer: ClientCertificate = certificate,
): string {
  const nowSec = Math.floor(clock.wallMs() / 1000);
  const thumbprint = Buffer.from(signer.thumbprintSha256, 'hex').toString('base64url');
  return signJwt(
    {
      header: { alg: 'PS256', typ: 'JWT', 'x5t#S256': thumbprint, ...header },
      claims: {
        iss: web.clientId,
        sub: web.clientId,
        aud: `${entra.authority}/${labTenantId}/oauth2/v2.0/token`,
        jti: randomUUID(),
        nbf: nowSec,
        exp: nowSec + 600,
        ...claims,
      },
    },
    signer.keyPem,
  );
}

/** Asks with an assertion in place of the secret. */
const prove = (assertion: string): Promise<Answer> => ask(withAssertion(assertion));

describe('fake Entra ID', () => {
  it('refuses in the form of the real one, and repeats no credential', async () => {
    const id = randomUUID();
    const wrong = { client_secret: 'nonsense', 'client-request-id': id };
    const { body } = await assertRefused(wrong, 401, 7000215);
    const { timestamp, trace_id: trace, error_description: description } = body;
    const end = ` Trace ID: ${String(trace)} Correlation ID: ${id} Timestamp: ${String(timestamp)}`;
    assert.ok(String(description).endsWith(end), String(description));
    assert.equal(body['error_uri'], `${entra.authority}/error?code=7000215`);
    assert.ok(!JSON.stringify(body).includes('nonsense'));
  });

  const cases: readonly [string, Form, number, number, RegExp][] = [
    ['no grant type', { grant_type: undefined }, 400, 900144, /'grant_type'/],
    ['another grant type', { grant_type: 'password' }, 400, 70003, /'password'/],
    ['no client id', { client_id: undefined }, 400, 900144, /'client_id'/],
    ['an unknown application', { client_id: randomUUID() }, 400, 700016, /was not found in the/],
    ['a v1 resource', { resource }, 400, 901002, /The 'resource' request parameter/],
    ['no scope', { scope: undefined }, 400, 900144, /'scope'/],
    ['two scopes', { scope: `${scope} ${scope}` }, 400, 70011, /The scope https.* is not valid/],
    ['a scope without /.default', { scope: resource }, 400, 1002012, /\/\.default suffixed/],
    ['a scope of nothing', { scope: '/.default' }, 400, 1002012, /\/\.default suffixed/],
    ['no credential', { client_secret: undefined }, 401, 7000218, /client_assertion/],
    ['a wrong secret', { client_secret: 'nonsense' }, 401, 7000215, /Invalid client secret/],
    ['an expired secret', { client_secret: 'lab-secret-expired' }, 401, 7000222, /are expired/],
    ['an unknown resource', { scope: 'https://nobody.invalid/.default' }, 400, 500011, /named h/],
    ['no JWT', withAssertion('nonsense'), 400, 50027, /JWT token is invalid/],
    [
      'an assertion of no type',
      { ...withAssertion('a.b.c'), client_assertion_type: undefined },
      ...([400, 900144, /'client_assertion_type'/] as const),
    ],
  ];
  for (const [name, changes, status, code, says] of cases) {
    it(`${code} for ${name}`, async () => {
      await assertRefused(changes, status, code, says);
    });
  }

  it('90002 for an unknown tenant, 900561 for another verb', async () => {
    assertRefusal(await ask({}, randomUUID()), 400, 90002, /Tenant '[0-9a-f-]{36}' not found/);
    assertRefusal(await ask({}, labTenantId, 'GET'), 400, 900561, /Received a GET request/);
  });

  it('7000112 for a disabled application, 53003 for one that a policy blocks', async () => {
    entra.register({ ...web, disabled: true });
    await assertRefused({}, 400, 7000112);
    entra.register({ ...web, blockedByPolicy: true });
    const { body } = await assertRefused({}, 400, 53003);
    assert.deepEqual([body['error'], body['suberror']], ['interaction_required', 'message_only']);
    // The credential is checked first.
    await assertRefused({ client_secret: 'nonsense' }, 401, 7000215);
  });
});

describe('fake Entra ID: assertions of the application itself', () => {
  const thumbprint = (hex: string, form: 'base64' | 'base64url'): string =>
    Buffer.from(hex, 'hex').toString(form);

  it('700021, 700023, 700024: another subject, audience or time', async () => {
    const nowSec = Math.floor(clock.wallMs() / 1000);
    const elsewhere = 'https://login.microsoftonline.com/common/oauth2/v2.0/token';
    const time = /Current time: \d{4}-.*, assertion valid from .+, expiry time of assertion .+\./;
    for (const [code, claims, says] of [
      [700021, { sub: randomUUID() }, /./],
      [700023, { aud: elsewhere }, /./],
      [700024, { exp: nowSec - 301 }, time],
      [700024, { nbf: nowSec + 302 }, time],
      [700024, { exp: undefined }, time],
      [700024, { exp: 1e300 * 1e10 }, time],
      [700024, { nbf: 'x' }, time],
    ] as const) {
      assertRefusal(await prove(ownAssertion(claims)), 401, code, says);
    }
  });

  it('700027: a certificate that is not registered, has expired, or did not sign', async () => {
    const pretended = { 'x5t#S256': thumbprint(certificate.thumbprintSha256, 'base64url') };
    // Signed with one algorithm, declared as the other.
    const [, payload, signature] = ownAssertion({}, { alg: 'RS256' }).split('.');
    const [header] = ownAssertion({}, { alg: 'PS256' }).split('.');
    for (const [assertion, says] of [
      [ownAssertion({}, {}, untrusted), new RegExp(`key was not.*'${untrusted.thumbprintSha256}'`)],
      [ownAssertion({}, pretended, untrusted), /did not match/],
      [[header, payload, signature].join('.'), /did not match/],
      [ownAssertion({}, { alg: 'none' }), /./],
    ] as const) {
      assertRefusal(await prove(assertion), 401, 700027, says);
    }
    const old = await authority.issueClient('web', {
      validity: { fromWallMs: clock.wallMs() - 7_200_000, toWallMs: clock.wallMs() - 3_600_000 },
    });
    entra.register({ ...web, certificates: [old.certificatePem] });
    assertRefusal(await prove(ownAssertion({}, {}, old)), 401, 700027, /expired/);
  });
});

describe('fake Entra ID: federated assertions', () => {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const kid = createHash('sha256').update('a key').digest('base64url');
  const { n = '', e = '' } = publicKey.export({ format: 'jwk' });
  const key: PublishedKey = { kty: 'RSA', kid, n, e };

  function foreignAssertion(claims: Jwt['claims'] = {}, header: Jwt['header'] = {}): string {
    const nowSec = Math.floor(clock.wallMs() / 1000);
    const base = { iss: fakeIssuer, sub: subject, aud: [audience], nbf: nowSec, exp: nowSec + 600 };
    const jwt = { header: { alg: 'RS256', kid, ...header }, claims: { ...base, ...claims } };
    return signJwt(jwt, privateKey);
  }
  beforeEach(() => {
    entra.trustIssuer(fakeIssuer, () => Promise.resolve([{ kty: 'EC', kid }, key]));
  });

  it('are refused with another issuer, subject, audience, time, key or signature', async () => {
    const [header, , signature] = foreignAssertion().split('.');
    const [, payload] = foreignAssertion({ extra: 1 }).split('.');
    const usGov = 'api://AzureADTokenExchangeUSGov';
    for (const [code, assertion, says] of [
      [700211, foreignAssertion({ iss: `${fakeIssuer}/` }), /assertion issuer 'https:.*\/lab\/'/],
      [700213, foreignAssertion({ sub: subject.toUpperCase() }), /assertion subject 'SYSTEM:/],
      [700212, foreignAssertion({ aud: [usGov] }), /presented assertion audience 'api:/],
      [700024, foreignAssertion({ exp: Math.floor(clock.wallMs() / 1000) - 301 }), /./],
      [7000272, foreignAssertion({}, { kid: 'other' }), /identifier other used .* provider https:/],
      [50013, [header, payload, signature].join('.'), /./],
      [50013, foreignAssertion({}, { alg: 'PS256' }), /./],
    ] as const) {
      assertRefusal(await prove(assertion), 401, code, says);
    }
  });

  it('70021, 90061: the application has no federated credential at all, no keys are available', async () => {
    entra.trustIssuer(fakeIssuer, () => Promise.reject(new Error('down')));
    assertRefusal(await prove(foreignAssertion()), 503, 90061);
    entra.register({ ...web, federatedCredentials: [] });
    const says = new RegExp(`Assertion Subject: '${subject}'. Assertion Audience: '${audience}'`);
    assertRefusal(await prove(foreignAssertion()), 400, 70021, says);
  });
});

describe('fake Entra ID: chains', () => {
  const managed = createLabIdentity('managed');
  const exchangeScope = `${audience}/.default`;
  const other = '7e570000-1ab0-4000-8000-0000000000aa';
  const signToken = createTokenSigner();
  const trusting = (identity: LabIdentity) => [
    { issuer: exchangeIssuer(labTenantId), subject: identity.objectId, audience },
  ];

  function tokenOf(identity: LabIdentity, changes: Partial<TokenGrant> = {}): string {
    const base = { audience, tenantId: labTenantId, lifetimeMs: 600_000 };
    return signToken({ identity, ...base, issuedAtWallMs: clock.wallMs(), ...changes });
  }

  function claimsIn(token: string): LabClaims {
    const claims = decodeLabToken(token);
    assert.ok(claims !== undefined);
    return claims;
  }

  async function tokenFrom(form: Form, tenant?: string): Promise<string> {
    const { status, body, text } = await ask(form, tenant);
    assert.equal(status, 200, text);
    return String(body['access_token']);
  }

  it('begin with a managed identity that the application trusts, in another tenant too', async () => {
    const form = withAssertion(tokenOf(managed));
    await assertRefused(form, 401, 700211);
    entra.register({ ...web, federatedCredentials: trusting(managed) });
    assert.equal(claimsIn(await tokenFrom(form)).lab_identity, 'web');
    const there = { ...web, tenantId: other, federatedCredentials: trusting(managed) };
    entra.register(there);
    assert.equal(claimsIn(await tokenFrom(form, other)).tid, other);
    await assertRefused(withAssertion(tokenOf(createLabIdentity('else'))), 401, 700213);
    const unsigned = tokenOf(managed).replace(/[^.]+$/, 'AAAA');
    await assertRefused(withAssertion(unsigned), 401, 50013);
  });

  it('700236: the application is registered in the other tenant', async () => {
    const details = { tenantId: other, homeTenantId: other };
    entra.register({ ...web, ...details, federatedCredentials: trusting(managed) });
    const answer = await ask(withAssertion(tokenOf(managed)), other);
    assert.deepEqual(answer.body['error_codes'], [700236]);
  });

  it('700231: the assertion came by federation', async () => {
    const first = createEntraApplication('first', { federatedCredentials: trusting(managed) });
    entra.register(first);
    const byFirst = {
      ...withAssertion(tokenOf(managed)),
      client_id: first.clientId,
      scope: exchangeScope,
    };
    const second = await tokenFrom(byFirst);
    entra.register({ ...web, federatedCredentials: trusting(first) });
    const says = /^AADSTS700231: Token obtained using another federated identity credential/;
    await assertRefused(withAssertion(second), 401, 700231, says);
  });

  it('end with an agent identity by the token that its own blueprint got for it', async () => {
    const own = createEntraApplication('own', { blueprint: web.clientId });
    const foreign = createEntraApplication('foreign', { blueprint: managed.clientId });
    for (const each of [own, foreign]) entra.register(each);
    entra.register({ ...web, federatedCredentials: trusting(managed) });
    const byManaged = { ...withAssertion(tokenOf(managed)), scope: exchangeScope };
    const first = await tokenFrom({ ...byManaged, fmi_path: own.clientId });
    assert.match(claimsIn(first).sub ?? '', new RegExp(`^/eid1/c/pub/t/.*/${own.clientId}$`));
    assert.equal(entra.requests().at(-1)?.fmiPath, own.clientId);
    const asOwn = { ...withAssertion(first), client_id: own.clientId };
    assert.equal(claimsIn(await tokenFrom(asOwn)).lab_identity, 'own');

    const withoutPath = { ...withAssertion(await tokenFrom(byManaged)), client_id: own.clientId };
    await assertRefused(withoutPath, 401, 700213);
    const forForeign = await tokenFrom({ ...byManaged, fmi_path: foreign.clientId });
    const asForeign = { ...withAssertion(forForeign), client_id: foreign.clientId };
    await assertRefused(asForeign, 401, 700213);
    await assertRefused({ ...asOwn, client_id: foreign.clientId }, 401, 700213);
    await assertRefused({ ...byManaged, scope, fmi_path: own.clientId }, 400, 70011);
    await assertRefused({ client_id: own.clientId }, 401, 7000215);
  });
});
