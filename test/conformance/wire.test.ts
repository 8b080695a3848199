/** The cases that need only HTTP: against our own agent, or any other address. */
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { caseTitle } from './cases.ts';
import { exchange, RawConnection, valuesOf, type RawReply } from '../support/raw-connection.ts';
import { assertHeaderMissing, assertRefused, assertToken, claimsOf, say } from './reply-rules.ts';
import {
  metadata,
  renderRequest,
  tokenPath,
  tokenQuery,
  tokenTarget,
  type RequestOptions,
} from './requests.ts';
import { openTarget, type Target } from './target.ts';

let target: Target;
before(async () => {
  target = await openTarget();
});
after(() => target[Symbol.asyncDispose]());

async function ask(
  path: string,
  options: RequestOptions = {},
  place = target.place,
): Promise<RawReply> {
  await target.turn();
  return exchange(place, renderRequest(path, options), options.method);
}

/** The usual request with something added to its query. */
function askToken(more = '', options: RequestOptions = {}): Promise<RawReply> {
  return ask(tokenTarget(target, more), options);
}

/** A value that the target may lack; without it the case is reported as skipped. */
function given<T>(t: TestContext, value: T | undefined, variable: string): T | undefined {
  if (value === undefined) t.skip(`NMI_CONFORMANCE_${variable} is not set`);
  return value;
}

describe('probe and header rules', () => {
  const probes: readonly RequestOptions[] = [
    { fields: [] },
    { fields: [['Accept', 'application/json']] },
    { fields: [['X-Metadata', 'true']] },
    { fields: [['Metadata', 'false']] },
  ];

  it(caseTitle(1), async () => {
    for (const probe of probes) {
      assertHeaderMissing(await ask(tokenPath, probe));
      assertHeaderMissing(await ask(`${tokenPath}?api-version=2018-02-01`, probe));
    }
  });

  it(caseTitle(2), async () => {
    for (const probe of probes) assertHeaderMissing(await askToken('', probe));
  });

  it(caseTitle(3), async () => {
    assertHeaderMissing(await askToken('msi-res-id=x', { fields: [] }));
    assertHeaderMissing(await askToken('resource=twice', { fields: [] }));
  });

  it(caseTitle(4), async (t) => {
    const place = given(t, target.unknownPlace, 'UNKNOWN_SOURCE_IP');
    if (place === undefined) return;
    for (const path of [tokenPath, tokenTarget(target)]) {
      const reply = await ask(path, { fields: [] }, place);
      assertHeaderMissing(reply);
      assert.ok(reply.ownMs < 300, 'SDKs wait 300 ms for it');
    }
  });

  it(caseTitle(6), async () => {
    for (const name of ['metadata', 'METADATA', 'mEtAdAtA']) {
      assertToken(await askToken('', { fields: [[name, 'true']] }), target.resource);
    }
  });

  it(caseTitle(7), async () => {
    const values = ['True', 'TRUE', '1', '', 'true,true', 'true, true', '"true"', 'yes', 'true;'];
    for (const value of values) {
      assertHeaderMissing(await askToken('', { fields: [['Metadata', value]] }));
    }
    for (const second of ['true', 'false', '']) {
      const fields = [...metadata, ['metadata', second] as const];
      assertHeaderMissing(await askToken('', { fields }));
    }
  });

  it(caseTitle(8), async () => {
    for (const [name, value] of [
      ['X-Forwarded-For', '10.0.0.1'],
      ['x-forwarded-for', '127.0.0.1'],
      ['X-FORWARDED-FOR', 'unknown, 10.0.0.1'],
      ['X-Forwarded-For', ''],
    ] as const) {
      for (const fields of [
        [...metadata, [name, value] as const],
        [[name, value] as const, ...metadata],
      ]) {
        const reply = await askToken('', { fields });
        assertRefused(reply, { status: 400, error: 'invalid_request' });
      }
    }
  });

  it(caseTitle(9), async () => {
    const type = ['Content-Type', 'application/x-www-form-urlencoded;charset=utf-8'] as const;
    assertToken(await askToken('', { fields: [...metadata, type] }), target.resource);
    const length = ['Content-Length', '0'] as const;
    assertToken(await askToken('', { fields: [...metadata, type, length] }), target.resource);
  });

  it(caseTitle(10), async () => {
    for (const accept of ['text/html, image/gif, image/jpeg, *; q=.2', 'text/plain', '']) {
      const fields = [...metadata, ['Accept', accept] as const];
      assertToken(await askToken('', { fields }), target.resource);
    }
    const fields = [...metadata, ['Accept-Encoding', 'gzip,deflate,br'] as const];
    assertToken(await askToken('', { fields }), target.resource);
  });

  it(caseTitle(11), async () => {
    const type = ['Content-Type', 'application/x-www-form-urlencoded'] as const;
    const body = tokenQuery(encodeURIComponent(target.resource));
    const form = { method: 'POST', fields: [...metadata, type], body };
    for (const path of [tokenPath, tokenTarget(target)]) {
      const reply = await ask(path, form);
      assertRefused(reply, { status: 405 });
      assert.deepEqual(valuesOf(reply, 'Allow'), ['GET']);
    }
  });

  it(caseTitle(12), async () => {
    for (const method of ['HEAD', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE']) {
      const reply = await askToken('', { method });
      assertRefused(reply, { status: 405, method });
      assert.deepEqual(valuesOf(reply, 'Allow'), ['GET'], method);
    }
  });

  it(caseTitle(13), async () => {
    for (const options of [
      { version: '1.0' },
      { version: '1.0', host: null },
      { fields: [...metadata, ['Connection', 'close']] },
    ] as const satisfies readonly RequestOptions[]) {
      using connection = await RawConnection.open(target.place);
      connection.send(renderRequest(tokenTarget(target), options));
      assertToken(await connection.readReply(), target.resource);
      assert.equal((await connection.readToEnd()).length, 0, 'more than one answer');
    }
    using kept = await RawConnection.open(target.place);
    for (let request = 0; request < 100; request++) {
      await target.turn();
      kept.send(renderRequest(tokenTarget(target)));
      assertToken(await kept.readReply(), target.resource);
    }
  });
});

describe('paths', () => {
  const query = (): string => tokenQuery(encodeURIComponent(target.resource));

  it(caseTitle(14), async () => {
    assertToken(await ask(`${tokenPath}/?${query()}`), target.resource);
    assertHeaderMissing(await ask(`${tokenPath}/`, { fields: [] }));
  });

  it(caseTitle(15), async () => {
    for (const first of ['Metadata', 'METADATA', 'mEtadata']) {
      const path = tokenPath.replace('metadata', first);
      assertToken(await ask(`${path}?${query()}`), target.resource);
    }
  });

  it(caseTitle(16), async () => {
    for (const path of [
      '/metadata/Identity/oauth2/token',
      '/metadata/identity/OAuth2/token',
      '/metadata/identity/oauth2/Token',
      '/metadata/IDENTITY/OAUTH2/TOKEN',
    ]) {
      assertRefused(await ask(`${path}?${query()}`), { status: [400, 404] });
    }
  });

  it(caseTitle(17), async () => {
    for (const path of [`/${tokenPath}`, `//${tokenPath}`, tokenPath.replaceAll('/', '//')]) {
      assertToken(await ask(`${path}?${query()}`), target.resource);
    }
  });

  it(caseTitle(18), async () => {
    for (const path of [
      '/metadata/identity\\oauth2\\token',
      '/metadata\\identity\\oauth2\\token',
      '\\metadata\\identity\\oauth2\\token',
      '/metadata/identity%5coauth2%5Ctoken',
      '/metadata/identity%2foauth2%2Ftoken',
      '/metadata/identity/./oauth2/token',
      '/metadata/identity/x/../oauth2/token',
      '/metadata/identity/%2e/oauth2/token',
      '/metadata/instance/../identity/oauth2/token',
      '/metadata/instance/..%2fidentity/oauth2/token',
      '/metadata/instance/..%5cidentity/oauth2/token',
      '/metadata/instance/%2e%2e/identity/oauth2/token',
      '/metadata/instance/%252e%252e/identity/oauth2/token',
      '/metadata/instance\\..\\identity\\oauth2\\token',
      '/metadata/versions/..\\identity/oauth2/token',
      '/metadata/identity/oauth2/token;x',
      '/metadata/identity/oauth2/token%00',
      '/metadata/identity/oauth2/token/x',
      '/metadata/identity/oauth2%20/token',
      '/metadata/identity//oauth2/%2574oken',
    ]) {
      assertRefused(await ask(`${path}?${query()}`), { status: [400, 404] });
    }
  });

  it(caseTitle(19), async () => {
    for (const authority of ['http://169.254.169.254', 'HTTP://another.host:8080']) {
      const reply = await ask(`${authority}${tokenTarget(target)}`);
      assertToken(reply, target.resource);
    }
  });

  it(caseTitle(20), async () => {
    const path = '/metadata/identity/getplatformmetadata?cred-api-version=2.0';
    for (const fields of [[], metadata]) {
      assertRefused(await ask(path, { fields }), { status: 404 });
    }
    const issue = '/metadata/identity/issuecredential?cred-api-version=2.0';
    assertRefused(await ask(issue, { method: 'POST', body: '{}' }), { status: 404 });
  });

  /** Relayed as JSON, or refused; the policy decides which. */
  async function assertRelayedOrClosed(path: string): Promise<void> {
    const reply = await ask(`${path}?api-version=2021-02-01`);
    if (reply.status !== 200) {
      assertRefused(reply, { status: 403 });
      return;
    }
    assert.doesNotThrow(() => JSON.parse(reply.text) as unknown, say(reply));
    assert.match(valuesOf(reply, 'Server')[0] ?? '', /IMDS/);
  }

  it(caseTitle(21), async () => {
    await assertRelayedOrClosed('/metadata/instance');
    await assertRelayedOrClosed('/metadata/instance/compute');
  });

  it(caseTitle(22), async () => {
    for (const area of ['attested/document', 'scheduledevents', 'loadbalancer']) {
      await assertRelayedOrClosed(`/metadata/${area}`);
    }
  });

  it(caseTitle(23), async () => {
    for (const [path, options] of [
      ['/latest/meta-data/', { fields: [] }],
      ['/latest/meta-data/iam/security-credentials/', { fields: [] }],
      ['/latest/api/token', { method: 'PUT', fields: [] }],
      ['/computeMetadata/v1/', { fields: [['Metadata-Flavor', 'Google']] }],
      ['/opc/v2/instance/', { fields: [] }],
      ['/', { fields: [] }],
    ] as const satisfies readonly (readonly [string, RequestOptions])[]) {
      const replies = [await ask(path, options), await ask(path, options)];
      for (const reply of replies) assertRefused(reply, { status: [400, 403, 404, 405] });
      const slowestMs = Math.max(...replies.map(({ ownMs }) => ownMs));
      assert.ok(slowestMs < 100, `${path} took ${slowestMs} ms`);
    }
  });
});

describe('parameters', () => {
  it(caseTitle(24), async () => {
    for (const version of ['2018-02-01', '2019-08-01', '2019-11-01', '2020-06-01', '2021-12-13']) {
      const path = tokenTarget(target).replace('2018-02-01', version);
      assertToken(await ask(path), target.resource);
    }
    for (const query of ['', '&api-version=', '&api-version=latest']) {
      const path = `${tokenPath}?resource=${encodeURIComponent(target.resource)}${query}`;
      assertRefused(await ask(path), { status: 400 });
    }
  });

  it(caseTitle(25), async () => {
    for (const query of ['api-version=2018-02-01', tokenQuery(''), tokenQuery('', 'foo=1')]) {
      assertRefused(await ask(`${tokenPath}?${query}`), {
        status: 400,
        error: 'invalid_request',
        says: /^Required query variable 'resource' is missing/,
      });
    }
  });

  it(caseTitle(26), async () => {
    const { resource } = target;
    const spelt = [resource, encodeURIComponent(resource), resource.replaceAll('/', '%2f')];
    const bodies = [];
    for (const each of spelt) {
      const reply = await ask(`${tokenPath}?${tokenQuery(each)}`);
      bodies.push(assertToken(reply, resource));
    }
    assert.equal(new Set(bodies.map((body) => body['expires_on'])).size, 1, 'one token for all');
  });

  it(caseTitle(27), async () => {
    for (const resource of target.spellings) {
      const encoded = await ask(`${tokenPath}?${tokenQuery(encodeURIComponent(resource))}`);
      assertToken(encoded, resource);
      assert.ok(encoded.body.includes(JSON.stringify(resource)), 'to the byte');
    }
  });

  it(caseTitle(28), async () => {
    const pairs = [
      `resource=${encodeURIComponent(target.resource)}`,
      'api-version=2018-02-01',
      ...(target.own.clientId === undefined ? [] : [`client_id=${target.own.clientId}`]),
    ];
    for (let turn = 0; turn < pairs.length; turn++) {
      const order = [...pairs.slice(turn), ...pairs.slice(0, turn)];
      for (const each of [order, order.toReversed()]) {
        assertToken(await ask(`${tokenPath}?${each.join('&')}`), target.resource);
      }
    }
  });

  it(caseTitle(29), async (t) => {
    const clientId = given(t, target.own.clientId, 'CLIENT_ID');
    if (clientId === undefined) return;
    for (const each of inAnyCase(clientId)) {
      const body = assertToken(await askToken(`client_id=${each}`), target.resource);
      assert.equal(body['client_id']?.toLowerCase(), clientId.toLowerCase());
      const { appid } = claimsOf(body);
      if (appid !== undefined) assert.equal(appid, clientId.toLowerCase());
    }
  });

  const notFound = { status: 400, error: 'invalid_request', says: /^Identity not found/ } as const;

  it(caseTitle(30), async () => {
    for (const clientId of [...inAnyCase(target.foreign.clientId ?? ''), 'no-guid']) {
      assertRefused(await askToken(`client_id=${clientId}`), notFound);
    }
  });

  it(caseTitle(31), async (t) => {
    assertRefused(await askToken(`object_id=${target.foreign.objectId ?? ''}`), notFound);
    const objectId = given(t, target.own.objectId, 'OBJECT_ID');
    if (objectId === undefined) return;
    for (const each of inAnyCase(objectId)) {
      const body = assertToken(await askToken(`object_id=${each}`), target.resource);
      assert.equal(body['object_id']?.toLowerCase(), objectId.toLowerCase());
      const { oid } = claimsOf(body);
      if (oid !== undefined) assert.equal(oid, objectId.toLowerCase());
    }
  });

  it(caseTitle(32), async (t) => {
    const { foreign, own } = target;
    for (const name of ['msi_res_id', 'mi_res_id']) {
      if (foreign.resourceId === undefined) break;
      assertRefused(await askToken(`${name}=${foreign.resourceId}`), notFound);
    }
    const resourceId = given(t, own.resourceId, 'RESOURCE_ID');
    if (resourceId === undefined) return;
    for (const name of ['msi_res_id', 'mi_res_id']) {
      for (const each of inAnyCase(resourceId)) {
        for (const value of [each, encodeURIComponent(each)]) {
          const body = assertToken(await askToken(`${name}=${value}`), target.resource);
          assert.equal(body['msi_res_id']?.toLowerCase(), resourceId.toLowerCase());
          const { appid } = claimsOf(body);
          if (appid !== undefined && own.clientId !== undefined) assert.equal(appid, own.clientId);
        }
      }
    }
  });

  it(caseTitle(33), async () => {
    const { clientId, objectId, resourceId } = { ...target.foreign, ...definedOf(target.own) };
    const names = [`client_id=${clientId ?? 'x'}`, `object_id=${objectId ?? 'x'}`];
    const ids = [...names, `msi_res_id=${encodeURIComponent(resourceId ?? '/x')}`];
    for (const first of ids) {
      for (const second of ids) {
        if (first === second) continue;
        const reply = await askToken(`${first}&${second}`);
        assertRefused(reply, { status: 400, error: 'invalid_request' });
      }
    }
    for (const pair of [...ids, 'api-version=2018-02-01', 'resource=x', 'foo=1']) {
      const reply = await askToken(`${pair}&${pair}`);
      assertRefused(reply, { status: 400, error: 'invalid_request' });
    }
  });

  it(caseTitle(34), async () => {
    const plain = assertToken(await askToken(), target.resource);
    for (const name of ['client_id', 'object_id', 'msi_res_id', 'mi_res_id']) {
      const body = assertToken(await askToken(`${name}=`), target.resource);
      assert.equal(body['client_id'], plain['client_id']);
    }
  });

  it(caseTitle(35), async () => {
    const hash = '0'.repeat(64);
    for (const more of [
      'xms_cc=CP1',
      'foo=1',
      'foo',
      '&&',
      `token_sha256_to_refresh=${hash}`,
      'claims=%7B%7D',
      'x=%F0%9F%98%80',
    ]) {
      assertToken(await askToken(more), target.resource);
    }
  });
});

describe('success body', () => {
  it(caseTitle(37), async () => {
    const body = assertToken(await askToken(), target.resource);
    assert.ok((body['access_token'] ?? '').length > 20);
  });

  it(caseTitle(38), async () => {
    const { text } = await askToken();
    const [inAt, onAt] = [text.indexOf('"expires_in"'), text.indexOf('"expires_on"')];
    assert.ok(inAt > 0 && inAt < onAt, '.NET takes the last of the two');
  });

  it(caseTitle(39), async () => {
    const body = assertToken(await askToken(), target.resource);
    for (const [name, value] of Object.entries(body)) {
      if (/^(?:ext_)?expires|^not_before|_in$/.test(name)) assert.match(value, /^[0-9]+$/, name);
    }
  });

  it(caseTitle(40), async () => {
    assert.match((await askToken()).text, /"token_type":"Bearer"/);
  });

  it(caseTitle(41), async () => {
    const { body } = await askToken();
    assert.ok(body.includes(`"resource":${JSON.stringify(target.resource)}`));
  });

  it(caseTitle(42), async () => {
    for (let turn = 0; turn < 3; turn++) {
      const body = assertToken(await askToken(), target.resource);
      const left = Number(body['expires_on']) - Date.now() / 1000 - Number(body['expires_in']);
      if (target.isOurs) assert.ok(Math.abs(left) <= 2, `${left} s off`);
    }
  });

  it(caseTitle(43), async () => {
    using connection = await RawConnection.open(target.place);
    const next = async () => {
      connection.send(renderRequest(tokenTarget(target)));
      return assertToken(await connection.readReply(), target.resource);
    };
    const startedAtMs = performance.now();
    const first = await next();
    await delay(2_100);
    const second = await next();
    const passedS = (performance.now() - startedAtMs) / 1000;
    const kept = ['access_token', 'expires_on', 'not_before', 'client_id', 'resource'];
    for (const name of kept) assert.ok(second[name] === first[name], `${name} changed`);
    const counted = Number(first['expires_in']) - Number(second['expires_in']);
    assert.ok(counted >= 2 && counted <= passedS + 1, `counted ${counted} s`);
  });

  it(caseTitle(45), async () => {
    const ids = new Set<string>();
    for (let turn = 0; turn < 5; turn++) {
      const reply = await askToken();
      assertToken(reply, target.resource);
      ids.add(valuesOf(reply, 'x-ms-request-id')[0] ?? '');
    }
    assert.equal(ids.size, 5);
  });

  it(caseTitle(46), async () => {
    const body = assertToken(await askToken(), target.resource);
    assert.ok(Number(body['not_before']) * 1000 <= Date.now() + 300_000);
  });
});

describe('errors', () => {
  it(caseTitle(53), async (t) => {
    const place = given(t, target.unboundPlace, 'UNBOUND_SOURCE_IP');
    if (place === undefined) return;
    const reply = await ask(tokenTarget(target), {}, place);
    assertRefused(reply, { status: 400, error: 'invalid_request', says: /^Identity not found/ });
    assert.ok(reply.ownMs < 1_000, 'permanent: nothing to wait for');
  });

  const head = `Host: h\r\nMetadata: true\r\n`;
  const malformed: readonly (readonly [name: string, bytes: string])[] = [
    ['no request line', 'GARBAGE\r\n\r\n'],
    ['a method alone', 'GET\r\n\r\n'],
    ['HTTP/0.9', `GET ${tokenPath}\r\n\r\n`],
    ['another protocol', `GET ${tokenPath} SIP/2.0\r\n${head}\r\n`],
    ['a version that is none', `GET ${tokenPath} HTTP/9.9\r\n${head}\r\n`],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['a hello of TLS', '\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03'],
    ['an unknown method', `BREW ${tokenPath} HTTP/1.1\r\n${head}\r\n`],
    ['a method in lower case', `get ${tokenPath} HTTP/1.1\r\n${head}\r\n`],
    ['a tunnel', `CONNECT h:80 HTTP/1.1\r\n${head}\r\n`],
    ['a control character in the target', `GET ${tokenPath}\x01 HTTP/1.1\r\n${head}\r\n`],
    ['a space in a field name', `GET ${tokenPath} HTTP/1.1\r\nA B: c\r\n${head}\r\n`],
    ['a space after a field name', `GET ${tokenPath} HTTP/1.1\r\nMetadata : true\r\n${head}\r\n`],
    ['no field name', `GET ${tokenPath} HTTP/1.1\r\n: true\r\n${head}\r\n`],
    ['a zero byte in a field', `GET ${tokenPath} HTTP/1.1\r\nX: a\0b\r\n${head}\r\n`],
    ['a folded field', `GET ${tokenPath} HTTP/1.1\r\nX: a\r\n b\r\nY\r\n${head}\r\n`],
    ['a length below zero', `GET ${tokenPath} HTTP/1.1\r\nContent-Length: -1\r\n${head}\r\n`],
    [
      'two lengths',
      `GET ${tokenPath} HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n${head}\r\nxx`,
    ],
    [
      'a length and chunks',
      `GET ${tokenPath} HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n${head}\r\n0\r\n\r\n`,
    ],
    ['a huge field', `GET ${tokenPath} HTTP/1.1\r\nX: ${'x'.repeat(70_000)}\r\n${head}\r\n`],
    ['a huge target', `GET ${tokenPath}?${'x'.repeat(70_000)} HTTP/1.1\r\n${head}\r\n`],
    [
      'many fields',
      `GET ${tokenPath} HTTP/1.1\r\n${head}${'X-Y: 0123456789\r\n'.repeat(4_000)}\r\n`,
    ],
    ['an expectation', `GET ${tokenPath} HTTP/1.1\r\nExpect: tea\r\n${head}\r\n`],
  ];

  it(caseTitle(54), async (t) => {
    for (const [path, options, status] of [
      ['/nothing', {}, 404],
      [tokenPath, {}, 400],
      [tokenPath, { method: 'PUT' }, 405],
      ['*', { method: 'OPTIONS' }, [400, 404, 405]],
    ] as const) {
      assertRefused(await ask(path, options), { status });
    }
    for (const [name, bytes] of malformed) {
      await t.test(name, async () => {
        await target.turn();
        using connection = await RawConnection.open(target.place);
        connection.send(Buffer.from(bytes, 'latin1'));
        const reply = await connection.readReply();
        assertRefused(reply, { status: [400, 405, 413, 414, 417, 431, 501, 505] });
        const more = await connection.readToEnd();
        assert.equal(more.toString('latin1'), '', 'more than one answer, or no end');
      });
    }
    await t.test('and then serves a request', async () => {
      assertToken(await askToken(), target.resource);
    });
  });

  it(caseTitle(55), async () => {
    const replies = [
      await askToken(),
      await ask(tokenPath, { fields: [] }),
      await ask(tokenPath),
      await askToken(`client_id=${target.foreign.clientId ?? ''}`),
      await ask('/metadata/attested/document?api-version=2021-02-01'),
      await ask('/nothing'),
      await askToken('', { method: 'POST' }),
    ];
    for (const reply of replies) {
      assert.ok(reply.status < 429, say(reply));
      assert.deepEqual(valuesOf(reply, 'Retry-After'), [], say(reply));
    }
  });
});

describe('beyond the cases', () => {
  it('a resource sent as raw UTF-8 is echoed to the byte or refused, never mangled', async (t) => {
    const resource = target.spellings.find((each) => Buffer.byteLength(each) > each.length);
    if (resource === undefined) {
      t.skip('NMI_CONFORMANCE_SPELLINGS has none beyond ASCII');
      return;
    }
    const reply = await ask(`${tokenPath}?${tokenQuery(resource)}`);
    if (reply.status === 200) assertToken(reply, resource);
    else assertRefused(reply, { status: 400 });
  });

  for (const [client, ends] of [
    ['', false],
    [', also to a client that has ended its half of the connection', true],
  ] as const) {
    it(`requests that arrive together are answered in their order${client}`, async () => {
      using connection = await RawConnection.open(target.place);
      const requests = [tokenTarget(target), '/nothing', tokenPath, tokenTarget(target)];
      connection.send(Buffer.concat(requests.map((each) => renderRequest(each))));
      if (ends) connection.endSending();
      assertToken(await connection.readReply(), target.resource);
      assertRefused(await connection.readReply(), { status: 404 });
      assertRefused(await connection.readReply(), { status: 400 });
      assertToken(await connection.readReply(), target.resource);
    });
  }

  it('a request in single bytes is served', async () => {
    using connection = await RawConnection.open(target.place);
    for (const byte of renderRequest(tokenTarget(target))) {
      connection.send(Buffer.of(byte));
      if (byte === 0x0a) await delay(1);
    }
    assertToken(await connection.readReply(), target.resource);
  });

  it('a body with broken framing gets one answer at most', async () => {
    for (const body of ['zz\r\n', '5\r\nhel', 'ffffffffffffffffff\r\n']) {
      using connection = await RawConnection.open(target.place);
      connection.send(
        `GET ${tokenTarget(target)} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n` +
          `Transfer-Encoding: chunked\r\n\r\n${body}`,
      );
      const bytes = await connection.readFor(2_000);
      const answers = bytes.toString('latin1').match(/HTTP\/1\.1 /g) ?? [];
      assert.ok(answers.length <= 1, `${answers.length} answers to one request`);
    }
  });

  it('an answer is sent before the error for broken bytes behind its request', async () => {
    using connection = await RawConnection.open(target.place);
    const unseen = `${target.resource}?${process.pid}`;
    const path = target.isOurs ? `${tokenPath}?${tokenQuery(encodeURIComponent(unseen))}` : '/x';
    connection.send(Buffer.concat([renderRequest(path), Buffer.from('GARBAGE\r\n\r\n')]));
    const first = await connection.readFor(2_000);
    if (first.length === 0) return;
    const [, status] = /^HTTP\/1\.1 (\d+)/.exec(first.toString('latin1')) ?? [];
    assert.equal(status, target.isOurs ? '200' : '404', 'the answer to the first request');
  });
});

function inAnyCase(text: string): readonly string[] {
  const mixed = Array.from(text, (letter, index) =>
    index % 2 === 0 ? letter.toUpperCase() : letter.toLowerCase(),
  );
  return [text, text.toUpperCase(), text.toLowerCase(), mixed.join('')];
}

/** Leaves out undefined values, so that they do not override defaults. */
function definedOf<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as Partial<T>;
}
