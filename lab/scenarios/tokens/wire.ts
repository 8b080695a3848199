/** The wire format: valid requests, and targets that no request may reach in any spelling. */
import assert from 'node:assert/strict';
import { isTokenPath } from '../../fakes/imds/answers.ts';
import { parseImdsTarget } from '../../fakes/imds/target.ts';
import { tokenPath, tokenTarget, vaultResource, type AskOptions } from '../../pods/pod.ts';
import {
  assertRefused,
  assertToken,
  assertUntouched,
  assertUpstream,
  sayReply,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const metadata = ['Metadata', 'true'] as const;
const query = `api-version=2018-02-01&resource=${encodeURIComponent(vaultResource)}`;
const instanceTarget = '/metadata/instance?api-version=2021-02-01';

/** IMDS's own answer, 88 bytes: probes of several SDKs check for it. */
const headerMissing =
  '{"error":"invalid_request","error_description":"Required metadata header not specified"}';

const metadataHeader: Scenario = {
  name: 'metadata-header',
  title: 'Requests without exactly one Metadata: true, or with X-Forwarded-For, are refused.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('header', 'header');
    const pods = [
      await testBed.addPod({ name: 'bound', binding: 'header' }),
      await testBed.addPod({ name: 'plain' }),
      await testBed.addPod({ name: 'unknown', announced: false }),
    ];
    await testBed.untilAgentKnows();
    for (const pod of pods) {
      for (const headers of [
        [],
        ['Metadata', 'false'],
        ['Metadata', 'True'],
        ['Metadata', ''],
        [...metadata, ...metadata],
        ['X-Metadata', 'true'],
      ]) {
        for (const target of [tokenTarget({}), tokenPath]) {
          const reply = await pod.ask({ headers, target });
          assert.equal(reply.status, 400, sayReply(reply));
          assert.equal(reply.text, headerMissing);
          assert.equal(Buffer.byteLength(reply.text), 88);
          assert.equal(reply.headers.get('content-type'), 'application/json; charset=utf-8');
          assert.ok(reply.ownMs < 300, 'SDKs wait 300 ms for the answer to their probe');
        }
      }
      const forwarded = await pod.ask({ headers: [...metadata, 'X-Forwarded-For', '10.0.0.1'] });
      assertRefused(forwarded, { status: 400, says: /X-Forwarded-For/ });
    }
    assertUntouched(testBed);
    const [bound] = pods;
    assert.ok(bound !== undefined);
    assertToken(await bound.ask({ headers: ['mETADATA', 'true'] }), 'header');
    assertUpstream(testBed, ['header']);
    return 'the 88 bytes of IMDS before any lookup, equal for bound, plain and unknown pods';
  },
};

const parameters: Scenario = {
  name: 'parameters',
  title: 'Missing, repeated, conflicting and misspelt parameters are refused.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const { clientId, objectId, resourceId } = testBed.bind('parameters', 'parameters');
    const pod = await testBed.addPod({ name: 'app', binding: 'parameters' });
    const id = encodeURIComponent(resourceId);
    const cases: readonly (readonly [string, RegExp])[] = [
      ['resource=https://x', /api-version/],
      ['api-version=2018-02-01', /resource/],
      ['api-version=&resource=https://x', /api-version/],
      ['api-version=2018-02-01&resource=', /resource/],
      ['', /api-version/],
      ['api-version=latest&resource=https://x', /api-version/],
      [`${query}&resource=https://x`, /'resource' is given twice/],
      [`${query}&api-version=2018-02-01`, /'api-version' is given twice/],
      [`${query}&client_id=${clientId}&client_id=${clientId}`, /'client_id' is given twice/],
      [`${query}&client_id=${clientId}&client%5fid=x`, /'client_id' is given twice/],
      [`${query}&client_id=${clientId}&object_id=${objectId}`, /exclude each other/],
      [`${query}&client_id=${clientId}&msi_res_id=${id}`, /exclude each other/],
      [`${query}&mi_res_id=${id}&msi_res_id=${id}`, /exclude each other/],
      [`${query}&clientid=${clientId}`, /did you mean 'client_id'/],
      [`${query}&clientId=${clientId}`, /did you mean 'client_id'/],
      [`${query}&msi-res-id=${id}`, /did you mean 'msi_res_id'/],
      [`${query}&principal_id=${objectId}`, /did you mean 'object_id'/],
      [`${query}&client_id=%zz`, /broken percent escape/],
    ];
    for (const [text, says] of cases) {
      const reply = await pod.ask({ target: `${tokenPath}?${text}` });
      assertRefused(reply, { status: 400, says });
      assert.equal(reply.body['error'], 'invalid_request');
    }
    assertUntouched(testBed);
    // Unknown parameters are ignored, an empty selector is absent, and neither goes upstream.
    const odd = await pod.ask({ query: 'client_id=&bypass_cache=false&foo=bar&foo2' });
    assertToken(odd, 'parameters');
    assertUpstream(testBed, ['parameters']);
    const [asked] = testBed.imds.requests();
    assert.doesNotMatch(asked?.target ?? '', /bypass_cache|foo/);
    return `${cases.length} malformed queries refused, an unusual but valid one served`;
  },
};

const methods: Scenario = {
  name: 'methods',
  title: 'Only GET is served; other methods get 405.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('methods', 'methods');
    const pod = await testBed.addPod({ name: 'app', binding: 'methods' });
    await testBed.untilAgentKnows();
    const asks: readonly AskOptions[] = [
      { method: 'POST', body: 'grant_type=client_credentials' },
      { method: 'POST', target: instanceTarget, body: '{}' },
      ...['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD'].map((method) => ({ method })),
    ];
    for (const options of asks) {
      const reply = await pod.ask(options);
      assert.equal(reply.status, 405, `${String(options.method)}: ${sayReply(reply)}`);
      assert.equal(reply.headers.get('allow'), 'GET');
      if (options.method === 'HEAD') assert.equal(reply.text, '');
      else assertRefused(reply, { status: 405, says: /GET/ });
    }
    assertUntouched(testBed);
    assertToken(await pod.ask(), 'methods');
    assertUpstream(testBed, ['methods']);
    return `${asks.length} requests answered 405 with Allow: GET, nothing upstream`;
  },
};

/** The token path in disguise. The fake IMDS parses all of them as the token path. */
const disguises = [
  '/metadata/identity/oauth2%2ftoken',
  '/metadata/identity/oauth2%2Ftoken',
  '/metadata/identity%5coauth2%5ctoken',
  '/metadata\\identity\\oauth2\\token',
  '/metadata/identity\\oauth2/token',
  '\\metadata\\identity\\oauth2\\token',
  '/metadata/identity/oauth2/%2574oken',
  '/metadata/identity/oauth2/%252574oken',
  '/metadata/identity/oauth2/./token',
  '/metadata/identity/oauth2/x/../token',
  '/metadata/identity/x/%2e%2e/oauth2/token',
  '/metadata/instance/../identity/oauth2/token',
  '/metadata/instance/%2e%2e/identity/oauth2/token',
  '/metadata/instance/.%2e/identity/oauth2/token',
  '/metadata/instance/..%2fidentity/oauth2/token',
  '/metadata/instance/..%5cidentity%5coauth2%5ctoken',
  '/metadata/instance\\..\\identity\\oauth2\\token',
  '/metadata/instance/..\\identity\\oauth2\\token',
  '/metadata/instance/compute\\..\\..\\identity/oauth2/token',
  '/metadata/versions/..\\identity/oauth2/token',
  '/metadata/instance/%252e%252e/identity/oauth2/token',
  '/metadata/instance/compute/../../identity/oauth2/token',
  '/metadata/versions/../identity/oauth2/token',
  '/metadata/versions/..%252fidentity/oauth2/token',
  '/x/../metadata/identity/oauth2/token',
  '/../metadata/identity/oauth2/token',
  '/metadata/identity/oauth2/token#',
  'http://169.254.169.254/metadata/instance/../identity/oauth2/token',
  'http://169.254.169.254\\metadata\\identity\\oauth2\\token',
  'ftp://169.254.169.254/metadata/identity/oauth2/token',
  'metadata/identity/oauth2/token',
] as const;

/** Spellings that the agent also reads as the token path: served as token requests. */
const plainSpellings = [
  '//metadata//identity/oauth2/token',
  '/metadata/identity/oauth2/token/',
  '/Metadata/identity/oauth2/token',
  '/metadata/identity/oauth2/%74oken',
  '/%6detadata/identity/oauth2/token',
  'http://169.254.169.254/metadata/identity/oauth2/token',
  'http://another.host:8080/metadata/identity/oauth2/token',
] as const;

const spellings: Scenario = {
  name: 'token-path-spellings',
  title: 'No spelling of the token path is relayed to the real service.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    testBed.bind('spelling', 'spelling');
    const bound = await testBed.addPod({ name: 'bound', binding: 'spelling' });
    const plain = await testBed.addPod({ name: 'plain' });
    await testBed.untilAgentKnows();
    for (const path of disguises) {
      assert.ok(isTokenPath(parseImdsTarget(path).path), `${path} would not be a leak`);
      const reply = await plain.ask({ target: `${path}?${query}` });
      assert.equal(reply.identity, undefined, `${path}: ${sayReply(reply)}`);
      assert.ok([400, 404].includes(reply.status), `${path}: ${sayReply(reply)}`);
    }
    for (const path of plainSpellings) {
      const reply = await plain.ask({ target: `${path}?${query}` });
      assertRefused(reply, { status: 400, says: /^Identity not found: / });
    }
    assertUntouched(testBed);
    for (const path of plainSpellings) {
      assertToken(await bound.ask({ target: `${path}?${query}` }), 'spelling');
    }
    for (const path of disguises) {
      assert.equal((await bound.ask({ target: `${path}?${query}` })).identity, undefined, path);
    }
    // A nested request: a server that ignores a GET's body would parse it as the next request.
    const inner = `GET ${tokenTarget({})} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n`;
    const nested = await plain.ask({ target: instanceTarget, body: inner });
    assertRefused(nested, { status: 400, says: /body/ });
    assertUpstream(testBed, ['spelling']);
    const targets = testBed.imds.requests().map(({ target }) => target);
    assert.equal(targets.length, 1, `reached the real service: ${targets.join(' ')}`);
    return `${disguises.length} disguises refused, ${plainSpellings.length} spellings checked like the path itself`;
  },
};

const otherClouds: Scenario = {
  name: 'other-clouds',
  title: 'Probes of other clouds’ SDKs get 404 at once.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const pods = [
      await testBed.addPod({ name: 'plain' }),
      await testBed.addPod({ name: 'unknown', announced: false }),
    ];
    const probes: readonly AskOptions[] = [
      { target: '/latest/meta-data/iam/security-credentials/', headers: [] },
      { target: '/latest/dynamic/instance-identity/document', headers: [] },
      {
        method: 'PUT',
        target: '/latest/api/token',
        headers: ['X-aws-ec2-metadata-token-ttl-seconds', '60'],
      },
      {
        target: '/computeMetadata/v1/instance/service-accounts/default/token',
        headers: ['Metadata-Flavor', 'Google'],
      },
      { target: '/opc/v2/instance/', headers: ['Authorization', 'Bearer Oracle'] },
      { target: '/openstack/latest/meta_data.json', headers: [] },
      // Version 2 of Azure's own API: after a 404, clients use version 1.
      { target: '/metadata/identity/getplatformmetadata?cred-api-version=2.0', headers: [] },
      { method: 'POST', target: '/metadata/identity/issuecredential', headers: [...metadata] },
      { target: '/metadata/identity/info?api-version=2018-02-01', headers: [...metadata] },
      { target: '/', headers: [] },
    ];
    let slowestMs = 0;
    for (const pod of pods) {
      for (const probe of probes) {
        const replies = [await pod.ask(probe), await pod.ask(probe)];
        for (const reply of replies) assertRefused(reply, { status: 404, says: /nothing at this/ });
        const tookMs = Math.max(...replies.map(({ ownMs }) => ownMs));
        assert.ok(tookMs < 100, `${String(probe.target)} took ${Math.round(tookMs)} ms`);
        slowestMs = Math.max(slowestMs, tookMs);
      }
    }
    assertUntouched(testBed);
    return `${probes.length} probes of two pods answered 404, the slowest in ${slowestMs.toFixed(1)} ms`;
  },
};

const closedAreas = [
  '/metadata/attested/document',
  '/metadata/scheduledevents',
  '/metadata/loadbalancer',
] as const;

const passthrough: Scenario = {
  name: 'passthrough',
  title: 'Instance metadata is relayed to pods; areas that are closed by default are not.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const pod = await testBed.addPod({ name: 'plain' });
    const unknown = await testBed.addPod({ name: 'unknown', announced: false });
    const refusedUnknown = unknown.ask({ target: instanceTarget });
    const instance = await pod.ask({
      target: `${instanceTarget}&format=json`,
      headers: [
        ...metadata,
        'User-Agent',
        'lab',
        'Authorization',
        'Bearer x',
        'X-Real-IP',
        '1.1.1.1',
      ],
    });
    assert.equal(instance.status, 200, sayReply(instance));
    assert.match(instance.text, /"location":"westeurope"/);
    assert.match(instance.headers.get('server') ?? '', /^IMDS\//);
    const versions = await pod.ask({ target: '/metadata/versions' });
    assert.equal(versions.status, 200, sayReply(versions));
    const leaf = '/metadata/instance/compute/vmSize?api-version=2019-03-11&format=text';
    assert.equal((await pod.ask({ target: leaf })).text, 'Standard_D2s_v5');
    // The real service's own errors are relayed unchanged.
    const wrong = await pod.ask({ target: '/metadata/instance?api-version=1999-01-01' });
    assert.equal(wrong.status, 400);
    assert.match(wrong.text, /newest-versions/);
    for (const area of closedAreas) {
      const reply = await pod.ask({ target: `${area}?api-version=2021-02-01` });
      assertRefused(reply, { status: 403, says: /^Request blocked: / });
      assert.doesNotMatch(reply.text, /unreachable/);
    }
    assertRefused(await refusedUnknown, { status: 503, says: /^No running pod / });
    assertUpstream(testBed, []);
    const seen = testBed.imds.requests();
    assert.deepEqual(
      seen.map(({ target }) => target.replace(/\?.*/, '')),
      [
        '/metadata/instance',
        '/metadata/versions',
        '/metadata/instance/compute/vmSize',
        '/metadata/instance',
      ],
    );
    for (const { from, headers } of seen) {
      assert.equal(from, testBed.environment.nodeIp);
      assert.equal(headers['x-real-ip'], undefined);
      assert.equal(headers['x-forwarded-for'], undefined, 'the real service refuses it');
    }
    return 'instance and versions relayed; attested, scheduledevents and loadbalancer refused';
  },
};

const passthroughPolicy: Scenario = {
  name: 'passthrough-policy',
  title: 'Flags close instance metadata and open an area that is closed by default.',
  needs: 'any',
  inTour: false,
  agentFlags: ['--block-instance-metadata', '--allow-metadata=loadbalancer'],
  run: async (testBed) => {
    testBed.bind('policy', 'policy');
    const pod = await testBed.addPod({ name: 'app', binding: 'policy' });
    for (const target of [
      instanceTarget,
      '/metadata/INSTANCE/compute?api-version=2021-02-01',
      '//metadata/%69nstance?api-version=2021-02-01',
      '/metadata/attested/document?api-version=2021-02-01',
    ]) {
      assertRefused(await pod.ask({ target }), { status: 403, says: /^Request blocked: / });
    }
    assertUntouched(testBed);
    const opened = await pod.ask({ target: '/metadata/loadbalancer?api-version=2021-02-01' });
    assert.equal(opened.status, 200, sayReply(opened));
    assertToken(await pod.ask(), 'policy');
    assertUpstream(testBed, ['policy']);
    return 'instance metadata closed in every spelling, loadbalancer open, tokens unaffected';
  },
};

export const wireScenarios: readonly Scenario[] = [
  spellings,
  metadataHeader,
  parameters,
  methods,
  otherClouds,
  passthrough,
  passthroughPolicy,
];
