import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { renderExplanation } from '../../../../src/nmi/explain/explanation-text.ts';
import type { PastDecision } from '../../../../src/nmi/server/request-record.ts';
import type { TokenStatus } from '../../../../src/cache/token/cache.ts';
import { createFinding } from '../../../../src/nmi/diagnosis/finding.ts';
import {
  explanationSchema,
  type IdentityView,
  type NodeExplanation,
  type NodeHealth,
  type Outcome,
  type PodExplanation,
  type RefusalView,
} from '../../../../src/nmi/explain/explanation.ts';

const hourMs = 3_600_000;

const node: NodeHealth = {
  name: 'node-1',
  redirect: { mode: 'iptables', detail: 'nft, chain nmi-metadata', problem: undefined },
  watches: { unsynced: [], silentForMs: 3_400, failing: [], podsAskedAs: 'node' },
};

const upstream: NonNullable<IdentityView['upstream']> = {
  source: 'imds',
  authority: '',
  tenantId: '',
  auxiliaryTenantIds: [],
  credential: '',
  notBefore: '',
};

const identity: IdentityView = {
  kind: 'azure-identity',
  name: 'a',
  type: 0,
  clientId: 'id-of-a',
  resourceId: '',
  upstream,
  refusal: undefined,
  tokens: [],
};

const missing: RefusalView = {
  reason: 'binding_pending',
  status: 503,
  error: 'temporarily_unavailable',
  description: 'Identity not found: no label "x".',
  text: 'Identity not found: no label "x".',
  retryAfterS: 2,
  isWaitedFor: true,
};

function createExplanation(fields: Partial<PodExplanation> = {}): PodExplanation {
  const outcome: Outcome = { kind: 'granted', identity: 'a', by: 'only', from: undefined };
  return {
    schema: explanationSchema,
    kind: 'pod',
    node,
    pod: {
      namespace: 'default',
      name: 'p',
      uid: 'uid-of-p',
      phase: 'Running',
      terminating: false,
      hostNetwork: false,
      serviceAccount: 'robot',
      ips: ['10.0.0.1'],
      labels: { aadpodidbinding: 'app', tier: 'web' },
    },
    addresses: [{ ip: '10.0.0.1', refusal: undefined }],
    label: 'app',
    exception: undefined,
    findings: [],
    identities: [identity],
    bindings: [{ name: 'a', identityName: 'a', identityExists: true }],
    requests: [{ selector: '', resource: undefined, outcome }],
    clients: [],
    ...fields,
  };
}

/** The example in the README. */
const shown = createExplanation({
  pod: { ...createExplanation().pod, name: 'app', labels: { aadpodidbinding: 'shop' } },
  label: 'shop',
  bindings: [
    { name: 'orders', identityName: 'orders', identityExists: true },
    { name: 'reports', identityName: 'Reports', identityExists: false },
    { name: 'vault', identityName: 'vault', identityExists: true },
  ],
  identities: [
    {
      ...identity,
      name: 'orders',
      clientId: '22729e47-74ce-4b43-8eea-aab5f2073309',
      tokens: [
        {
          resource: 'https://vault.azure.net',
          tenantId: '',
          isFetching: false,
          token: {
            state: 'fresh',
            isServed: true,
            failedRefreshes: 0,
            ageMs: 0.4 * hourMs,
            expiresInMs: 23.6 * hourMs,
            refreshInMs: 11.6 * hourMs,
          },
          failure: undefined,
        },
      ],
    },
    {
      ...identity,
      name: 'vault',
      type: 1,
      clientId: '4f37cec8-de70-4833-81ee-ce6366441747',
      upstream: {
        ...upstream,
        source: 'secret',
        authority: 'https://login.microsoftonline.com',
        tenantId: 'contoso.example',
        credential: 'default/vault',
      },
      tokens: [
        {
          resource: 'https://vault.azure.net',
          tenantId: 'contoso.example',
          isFetching: false,
          token: undefined,
          failure: {
            reason: 'credential_missing',
            heldForMs: 8_000,
            description: 'Secret default/vault does not exist',
          },
        },
      ],
    },
  ],
  requests: [
    {
      selector: '',
      resource: undefined,
      outcome: { kind: 'granted', identity: 'orders', by: 'default', from: undefined },
    },
  ],
  findings: [
    createFinding('identity_missing', {
      object: 'AzureIdentityBinding default/reports',
      severity: 'warning',
      text: 'Namespace default has no AzureIdentity Reports.',
      fix: 'Did you mean AzureIdentity "reports"? Correct spec.azureIdentity.',
    }),
  ],
});

describe('the text of an explanation', () => {
  it('is the one on the troubleshooting page', async () => {
    const page = await readFile(
      join(import.meta.dirname, '../../../../docs/troubleshooting.md'),
      'utf8',
    );
    const [, part = ''] = page.split('<!-- output: explain -->');
    assert.equal(/```text\n([^`]+)```/.exec(part)?.[1], renderExplanation(shown));
  });

  it('has refusals in the client’s words, and findings', () => {
    const refused: Outcome = { kind: 'refused', refusal: missing };
    const text = renderExplanation(
      createExplanation({
        label: undefined,
        bindings: [],
        identities: [],
        clients: ['azsdk-js-identity/4.2.1', 'other'],
        findings: [createFinding('binding_pending', { object: 'Pod a', text: 'One thing.' })],
        requests: [{ selector: 'client_id=x', resource: 'https://r', outcome: refused }],
      }),
    );
    const expected = [
      '  binding     no label aadpodidbinding',
      'A request with client_id=x for https://r gets 503 binding_pending (Retry-After 2, after a ' +
        'moment in which that may change): Identity not found: no label "x".',
      '  clients     azsdk-js-identity/4.2.1',
      '              other',
      '  error   Pod a: binding_pending',
      '          One thing.',
      '          fix: Wait a minute. If it lasts, create the binding: kubectl nmi identity assign IDENTITY --selector LABEL --apply',
      '          see: kubectl nmi reasons binding_pending, or docs/reasons.md#binding_pending',
    ].join('\n');
    assert.ok(text.includes(expected), text);
  });

  it('has until when a token is granted whose source refuses the identity', () => {
    const refusal = { ...missing, reason: 'credential_refused', status: 400 } as const;
    const until = { at: '2026-12-02T09:00:00Z', refusal };
    const outcome = { kind: 'granted', identity: 'a', by: 'only', from: 'memory', until } as const;
    const requests = [{ selector: '', resource: undefined, outcome }];
    assert.match(
      renderExplanation(createExplanation({ requests })),
      /^A request naming no identity is granted a token of AzureIdentity a \(the only one bound\) until 2026-12-02T09:00:00Z, then refused: 400 credential_refused \(/m,
    );
  });

  it('has the addresses of a pod, the id of an identity, its source, and the wait of a refusal', () => {
    const { pod } = createExplanation();
    const ofPod = (fields: Partial<PodExplanation['pod']>) => ({
      pod: { ...pod, ...fields },
      addresses: [],
    });
    const of = (fields: Partial<IdentityView>) => ({ identities: [{ ...identity, ...fields }] });
    const by = (fields: Partial<typeof upstream>) => of({ upstream: { ...upstream, ...fields } });
    const notBefore = '2026-11-30T06:00:00.000Z';
    const resourceId = '/subscriptions/s';
    const ofGets = (fields: Partial<RefusalView>) => {
      const outcome: Outcome = { kind: 'refused', refusal: { ...missing, ...fields } };
      return { requests: [{ selector: '', resource: undefined, outcome }] };
    };
    const gets = 'A request naming no identity gets 503 binding_pending';
    const end = ': Identity not found: no label "x".';
    const onHost = { hostNetwork: true, ips: ['10.0.0.1', 'fd00::1'] };
    for (const [fields, line] of [
      [{}, 'no token in memory'],
      [ofGets({ retryAfterS: undefined, isWaitedFor: false }), `${gets}${end}`],
      [ofGets({ isWaitedFor: false }), `${gets} (Retry-After 2)${end}`],
      [ofPod(onHost), "address     10.0.0.1, fd00::1, the node's own"],
      [ofPod({ phase: 'Pending' }), 'address     none yet'],
      [ofPod({ phase: 'Succeeded' }), 'address     none: the pod has ended (Succeeded)'],
      [ofPod({ phase: 'Failed' }), 'address     none: the pod has ended (Failed)'],
      [of({ resourceId }), 'identities  AzureIdentity a, type 0, client id id-of-a'],
      [
        of({ clientId: '', resourceId }),
        'identities  AzureIdentity a, type 0, resource id /subscriptions/s',
      ],
      [
        by({ source: 'federated_pod', credential: 'default/robot' }),
        'from federated_pod, service account default/robot',
      ],
      [by({ notBefore }), `from imds, revoked at ${notBefore}`],
    ] as const) {
      const lines = renderExplanation(createExplanation(fields)).split('\n');
      assert.ok(lines.map((each) => each.trim()).includes(line), lines.join('\n'));
    }
  });

  it('is a sentence if there is no such pod', () => {
    const problem = 'no pod default/p is on this node';
    const { schema } = createExplanation();
    assert.match(
      renderExplanation({ schema, kind: 'no-pod', problem, node }),
      /^No pod default\/p is on this node\.\n/,
    );
  });

  it('has the times of tokens and failures in words', () => {
    const at = { resource: 'https://r', tenantId: 't', isFetching: false, failure: undefined };
    const token: TokenStatus = {
      expiresInMs: 25 * hourMs,
      isServed: true,
      refreshInMs: undefined,
      failedRefreshes: 0,
      state: 'stale',
    };
    const idle = { ...token, expiresInMs: 200_000, isServed: false, state: 'idle' } as const;
    const failed = (heldForMs: number, description: string) => {
      return {
        ...at,
        token: undefined,
        failure: { reason: 'upstream_down', description, heldForMs },
      };
    };
    const rows: readonly (readonly [NonNullable<IdentityView['tokens']>[number], string])[] = [
      [
        { ...at, token: { ...token, ageMs: hourMs, refreshInMs: 90_000, failedRefreshes: 3 } },
        'stale token, fetched 1 h 0 min ago, expires in 1 d 1 h, next refresh in 1 min 30 s, 3 refreshes failed',
      ],
      [
        { ...at, tenantId: 'u', isFetching: true, token: idle },
        'idle token, expires in 3 min 20 s, fetched again before it is served, being fetched',
      ],
      [
        { ...at, token: { ...token, expiresInMs: 1.1 * hourMs } },
        'stale token, expires in 1 h 6 min',
      ],
      [{ ...at, token: { ...token, expiresInMs: -1 } }, 'stale token, expired'],
      [{ ...at, token: { ...token, expiresInMs: 0 } }, 'stale token, expired'],
      [{ ...at, token: { ...token, expiresInMs: 1 } }, 'stale token, expires in 0 s'],
      [failed(4_999, 'is away'), 'no token, no retry for 5 s: upstream_down: is away'],
      [failed(1, 'nothing'), 'no token, no retry for 1 s: upstream_down: nothing'],
      [failed(0, ''), 'no token, last try: upstream_down'],
    ];
    const ofSecret = {
      ...upstream,
      source: 'secret',
      authority: 'https://login',
      tenantId: 't',
      auxiliaryTenantIds: ['u', 'v'],
      credential: 'default/s',
    } as const;
    const tokens = rows.map(([each]) => each);
    const identities = [{ ...identity, type: 1, upstream: ofSecret, tokens }];
    const text = renderExplanation(createExplanation({ identities }));
    const lines = text.split('\n').filter((line) => line.startsWith(' '.repeat(16)));
    assert.deepEqual(
      lines.map((line) => line.trim()),
      [
        'from secret, Secret default/s, tenant t, further tenants u, v, at https://login',
        ...rows.map(([{ tenantId }, said]) =>
          tenantId === 'u' ? `https://r (tenant u): ${said}` : `https://r: ${said}`,
        ),
      ],
    );
  });

  it('has the last requests of the pod, the latest first', () => {
    const refused: PastDecision = {
      agoMs: 1_400,
      status: 403,
      reason: 'binding_missing',
      identity: '',
      resource: '',
      cache: 'none',
    };
    const granted: PastDecision = {
      agoMs: 61_000,
      status: 200,
      reason: 'ok',
      identity: 'shop/web',
      resource: 'https://r',
      cache: 'hit',
    };
    const text = renderExplanation(createExplanation({ decisions: [refused, granted] }));
    assert.match(
      text,
      /  last        1 s ago: 403 binding_missing\n {14}1 min 1 s ago: 200 ok for https:\/\/r by AzureIdentity shop\/web, cache hit\n/,
    );
  });

  it('reports what is wrong with the node, since when, and what was never received', () => {
    const failing = [{ resource: 'pods', reason: 'FORBIDDEN: no', forMs: 61_000 }];
    const redirect = { mode: 'none', detail: 'no redirect', problem: undefined };
    const away = { mode: 'iptables', detail: 'x', problem: 'TOOL_MISSING: no iptables' };
    const stale = [{ resource: 'pods', stalenessMs: 90_061_000 }];
    const rows: readonly (readonly [Partial<NodeHealth['watches']>, RegExp, typeof away?])[] = [
      [{}, /: no redirect; watches in step, API server contact 3 s ago$/m],
      [{ podsAskedAs: 'node' }, / 3 s ago, asked as this node$/m],
      [{ podsAskedAs: 'account' }, / 3 s ago, asked as the service account$/m],
      [{ failing }, /; watches failing, API server contact 3 s ago; pods failing/],
      [{ failing, stale }, / \(FORBIDDEN: no\); not proven current: pods for 1 d 1 h$/m],
      [
        { unsynced: ['pods'], silentForMs: undefined, failing },
        /^node node-1: no redirect; waiting for pods, no API server contact yet; pods failing for 1 min 1 s \(FORBIDDEN: no\)$/m,
      ],
      [
        { unsynced: ['pods', 'bindings'], silentForMs: 61_000 },
        /^node node-1: redirect iptables NOT IN PLACE \(TOOL_MISSING: no iptables\); waiting for pods, bindings, API server contact 1 min 1 s ago$/m,
        away,
      ],
    ];
    for (const [fields, line, shownRedirect] of rows) {
      const watches = { unsynced: [], silentForMs: 3_400, failing: [], ...fields };
      const health = { name: 'node-1', redirect: shownRedirect ?? redirect, watches };
      assert.match(renderExplanation(createExplanation({ node: health })), line);
    }
  });

  it('is a table for a whole node', () => {
    const pod = { namespace: 'default', name: 'p', phase: 'Running' } as const;
    const granted: Outcome = { kind: 'granted', identity: 'a', by: 'only', from: undefined };
    const unreachable: Outcome = { kind: 'unreachable', why: 'no-address' };
    const explanation: NodeExplanation = {
      schema: explanationSchema,
      kind: 'node',
      node,
      agent: undefined,
      omitted: 2,
      pods: [
        { ...pod, ip: '10.0.0.10', label: 'app', outcome: granted },
        { ...pod, name: 'longer', ip: '', label: undefined, outcome: unreachable },
        { ...pod, ip: '10.0.0.1', label: '', outcome: { kind: 'refused', refusal: missing } },
      ],
    };
    assert.deepEqual(renderExplanation(explanation).split('\n').slice(0, 5), [
      'POD             ADDRESS    LABEL  GETS',
      'default/p       10.0.0.10  app    a (only)',
      'default/longer  -          -      no-address',
      'default/p       10.0.0.1          503 binding_pending',
      'and 2 more pods',
    ]);
    assert.match(renderExplanation({ ...explanation, omitted: 1 }), /^and 1 more pods$/m);
    assert.doesNotMatch(renderExplanation({ ...explanation, omitted: 0 }), /more pods/);
  });

  it('contains no terminal control sequences, whatever objects contain', () => {
    const evil = '\u001b[2J\u009b31m\r\nname';
    const refusal = { ...missing, description: evil };
    const finding = { object: evil, text: evil, fix: evil, details: [evil] };
    const text = renderExplanation(
      createExplanation({
        label: evil,
        bindings: [{ name: 'a', identityName: evil, identityExists: false }],
        identities: [{ ...identity, clientId: '', resourceId: evil, refusal }],
        requests: [{ selector: evil, resource: evil, outcome: { kind: 'refused', refusal } }],
        findings: [createFinding('binding_pending', finding)],
      }),
    );
    assert.match(text, /^[\x20-\x7e→\n]+$/);
    const lines = renderExplanation(createExplanation()).split('\n');
    // The finding is added, and the refusal replaces "no token in memory".
    assert.equal(text.split('\n').length, lines.length + 5);
  });
});
