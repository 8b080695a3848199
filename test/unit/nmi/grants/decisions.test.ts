/** Which token a pod may have, and the words of a refusal. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseRecord, stringAt } from '../../../../src/base/json-value.ts';
import type { EntraSettings, Identity, Pod } from '../../../../src/cache/index/objects.ts';
import type { CallerFacts } from '../../../../src/nmi/callers/identify.ts';
import { identityKey } from '../../../../src/nmi/grants/cache-key.ts';
import type { IdentitySelector } from '../../../../src/nmi/grants/choose-identity.ts';
import { decideGrant } from '../../../../src/nmi/grants/decide-grant.ts';
import { grantedSinceWallMs } from '../../../../src/nmi/grants/grant-age.ts';
import type { Grant, Granted, PodFacts } from '../../../../src/nmi/grants/grant.ts';
import { renderFailure, renderRefusal } from '../../../../src/nmi/grants/refusal-text.ts';
import type {
  ServiceAccountRead,
  ServiceAccounts,
} from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import type { SourceFailure } from '../../../../src/nmi/sources/source.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { createGrant } from '../../../support/request-records.ts';
import { world, type World, type WorldGiven } from '../../../world.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073309';
const tenantId = '72f988bf-86f1-41af-91ab-2d7cd011db47';
const vault = 'https://vault.azure.net';
const now = 1_000_000;
const labels = { aadpodidbinding: 'label' };

type Given = WorldGiven & { readonly pod?: Partial<Pod> };
type Named = Partial<Identity> & { readonly name: string };
type Row = readonly [given: Given, selector: string, expected: string | RegExp];

/** A young pod that is bound to one identity. */
function open({ pod, ...given }: Given): World {
  return world({
    clock: new HandClock(now),
    pods: [{ labels, serviceAccount: 'robot', createdAtWallMs: now, ...pod }],
    identities: [{ clientId }],
    bindings: [{}],
    ...given,
  });
}

/** `KIND=VALUE`, or nothing. */
function selectorOf(text: string): IdentitySelector {
  const [kind = '', value = ''] = text.split(/=(.*)/s);
  return kind === '' ? { kind: 'none' } : ({ kind, value } as IdentitySelector);
}

function descriptionOf(body: string): string {
  return stringAt(parseRecord(body), 'error_description');
}

function outcomeOf(grant: Grant): string {
  switch (grant.kind) {
    case 'granted':
      return `${grant.identity?.name ?? identityKey(grant.upstream)} by ${grant.by}`;
    case 'by-object-id':
      return `${grant.objectId} of ${grant.candidates.map((each) => each.identity?.name).join(' ')}`;
    case 'refused': {
      const { status, reason, body } = renderRefusal(grant);
      return `${status} ${reason}${grant.isPending ? ', pending' : ''}: ${descriptionOf(body)}`;
    }
  }
}

function decide(given: Given, selector = '', resource: string | undefined = vault): string {
  return outcomeOf(open(given).decide('pod', { selector: selectorOf(selector), resource }));
}

function check(outcome: string, expected: string | RegExp): void {
  if (typeof expected === 'string') assert.equal(outcome, expected);
  else assert.match(outcome, expected);
}

function checkAll(rows: readonly Row[]): void {
  for (const [given, selector, expected] of rows) check(decide(given, selector), expected);
}

function boundTo(...identities: readonly Named[]): Given {
  const bindings = identities.map(({ name }) => ({ name: `to-${name}`, identityName: name }));
  return { identities, bindings };
}

const strict = { policy: { strict: true } } as const;
const excepted: Given = { exceptions: [{ name: 'add-on', podLabels: labels }] };
const idA = 'AAAAAAAA-1111-4111-8111-111111111111';
const armId =
  '/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/y';
const older = { name: 'older', createdAtWallMs: 1, clientId: idA };
const newer = { name: 'newer', createdAtWallMs: 2, clientId, resourceId: armId };
const nameless = { name: 'nameless', clientId: ' ', resourceId: '/', createdAtWallMs: 3 };

describe('a request that names an identity', () => {
  const both = boundTo(older, newer, nameless);

  it('gets it by client id and by resource id, in any letter case, in both policies', () => {
    for (const value of [idA, idA.toLowerCase(), ` ${idA} `])
      check(decide(both, `client_id=${value}`), 'older by client_id');
    for (const value of [armId, armId.toUpperCase(), armId.slice(1), `${armId}/`])
      check(decide(both, `resource_id=${value}`), 'newer by resource_id');
    check(decide({ ...both, ...strict }, `client_id=${idA}`), 'older by client_id');
  });

  it('by object id leaves the choice among its identities with an id to upstream', () => {
    check(decide(both, 'object_id= OID '), 'oid of older newer');
  });

  it('is refused when the pod has no such identity, with those that it has', () => {
    checkAll([
      [
        both,
        'client_id=x"\n<b>',
        /^400 selector_not_bound: .* "x\?\?\?b\?"; bound by label \S+: older, newer, nameless\. \(/,
      ],
      [both, `resource_id=${idA}`, /^400 selector_not_bound/],
      [both, `client_id=${armId}`, /^400 selector_not_bound/],
    ]);
  });

  it('never gets one by an empty id', () => {
    for (const kind of ['client_id', 'resource_id', 'object_id']) {
      for (const value of ['', ' ', '/', 'x']) {
        check(decide(boundTo(nameless), `${kind}=${value}`), /^400 selector_not_bound/);
        if (kind === 'object_id' && /\S/.test(value)) continue;
        check(decide(both, `${kind}=${value}`), /^400 selector_not_bound/);
      }
    }
  });
});

describe('an excepted pod', () => {
  it("gets the node's answer for any identity and any policy", () => {
    checkAll([
      [excepted, '', ' by exception add-on'],
      [{ ...excepted, ...strict }, 'client_id=any', 'client_id=any by exception add-on'],
      [excepted, 'resource_id=/x', 'resource_id=/x by exception add-on'],
    ]);
  });
});

describe('a pod without grants', () => {
  it('is refused temporarily until the grace period is over, to the millisecond', () => {
    for (const [ageMs, state] of [
      [-60_000, '400 WHAT_missing'],
      [-59_999, '503 WHAT_pending, pending'],
      [0, '503 WHAT_pending, pending'],
      [59_999, '503 WHAT_pending, pending'],
      [60_000, '400 WHAT_missing'],
    ] as const) {
      const pod = { createdAtWallMs: now - ageMs };
      for (const [what, given] of [
        ['binding', { bindings: [] }],
        ['identity', { identities: [] }],
      ] as const) {
        const [begin] = decide({ ...given, pod }).split(':');
        assert.equal(begin, state.replace('WHAT', what), `${ageMs}`);
      }
    }
  });

  it('is refused when it is not known any more, and may be known again soon', () => {
    const { clusterState, policy } = open({});
    const query = { selector: { kind: 'none' }, resource: vault } as const;
    const gone = createPod({ name: 'gone' });
    check(
      outcomeOf(decideGrant(gone, query, clusterState, policy, now)),
      /^503 pod_unknown, pending: Pod default\/gone is gone\. Retry\. /,
    );
  });
});

describe('an identity with allowed resources', () => {
  const allowedResources = [vault, 'https://storage.azure.com'];
  const limited = { identities: [{ clientId, allowedResources }] };

  it('is granted for those, regardless of case and trailing slashes, and without a resource', () => {
    const spelt = [vault, `${vault}/`, 'HTTPS://VAULT.azure.net', 'https://storage.azure.com'];
    for (const resource of spelt)
      assert.equal(decide(limited, '', resource), 'identity by only', resource);
    const { kind } = open(limited).decide('pod', { resource: undefined });
    assert.equal(kind, 'granted');
    check(decide({}, '', 'https://whatever.example'), 'identity by only');
  });

  it('is refused for any other, however it is named', () => {
    const hosts = 'management.azure.com vault.azure.net.evil.example vault.azure.net/.default';
    const others = `${hosts} vault.azure.ne`.split(' ').map((host) => `https://${host}`);
    for (const resource of [...others, 'http://vault.azure.net', 'x"\n<b>', '/', '']) {
      const said = decide(limited, '', resource);
      const shown = resource.replaceAll(/["\n<>]/g, '?');
      assert.ok(said.startsWith('400 resource_not_allowed: '), said);
      assert.ok(said.includes(` is not for the resource "${shown}". `), said);
    }
    const grant = open(limited).decide('pod', { resource: 'x' });
    assert.ok(grant.kind === 'refused');
    assert.equal(parseRecord(renderRefusal(grant).body)?.['error'], 'invalid_resource');
    check(decide(limited, `client_id=${clientId}`), 'identity by client_id');
    check(decide(limited, `client_id=${clientId}`, 'https://graph.example'), /^400 resource_/);
    check(decide(limited, 'object_id=any'), 'any of identity');
    check(decide(limited, 'object_id=any', 'https://graph.example'), 'any of ');
  });
});

describe('a pod on the host network', () => {
  const onHost = { hostNetwork: true };
  const unbound = { ...onHost, labels: {} };
  const refuse = { policy: { hostNetwork: 'refuse' } } as const;
  const text = /^403 host_network_refused: Access denied: pod default\/pod .*--host-network=refuse/;

  it('is refused by that policy, whatever binding or exception it has', () => {
    checkAll([
      [{ ...refuse, pod: onHost }, '', text],
      [{ ...refuse, ...excepted, pod: onHost }, '', text],
      [{ ...refuse, pod: unbound }, '', text],
      [refuse, '', 'identity by only'],
    ]);
  });

  it('is otherwise served: its identity if it has a label, else the node’s own', () => {
    checkAll([
      [{ pod: onHost }, '', 'identity by only'],
      [{ pod: unbound }, '', ' by host network'],
      [{ pod: unbound }, 'client_id=x', 'client_id=x by host network'],
    ]);
  });
});

describe('an identity that belongs to another namespace', () => {
  const enforce = { owners: 'enforce' } as const;
  const resourceId = armId.toLowerCase();
  const byResource = [{ clientId: '', resourceId }];
  const grantOf = (
    namespace: string,
    ...[fields]: NonNullable<Given['identityGrants']>
  ): Given => ({
    ...enforce,
    identityGrants: [{ namespaces: [namespace], ...fields }],
  });
  const granted = grantOf('default', { clientIds: [clientId] });
  const federated = (federation: string): Given => {
    const entra: EntraSettings = {
      tenantId,
      auxiliaryTenantIds: [],
      adEndpoint: '',
      secretNamespace: '',
      secretName: '',
      federation,
    };
    return { identities: [{ clientId, type: 3, entra }] };
  };
  const text = (field: string, id: string) =>
    new RegExp(
      `^400 identity_not_owned: .* has the ${id}, .* spec.${field} of an AzureIdentityGrant`,
    );
  const byClient = text('clientIDs', `client id ${clientId}`);

  it('is refused by enforce, with the object and the fix, however it is named', () => {
    for (const selector of ['', `client_id=${clientId}`, 'object_id=any']) {
      check(decide(enforce, selector), byClient);
      check(decide(grantOf('other', { clientIds: [clientId] }), selector), byClient);
      check(decide(granted, selector), /^(?:identity by|any of identity)/);
    }
    checkAll([
      [{ ...enforce, ...federated('node') }, '', byClient],
      [{ ...granted, ...federated('node') }, '', 'identity by only'],
    ]);
  });

  it('is not owned through an id other than the one that is sent upstream', () => {
    const mine = grantOf('default', { resourceIds: [resourceId] });
    checkAll([
      [{ ...mine, identities: [{ clientId, resourceId }] }, '', byClient],
      [{ ...mine, identities: byResource }, '', 'identity by only'],
      [
        { ...enforce, identities: byResource },
        '',
        text('resourceIDs', `resource id ${resourceId}`),
      ],
    ]);
  });

  it('is worth a wait while it is new: its grant may arrive soon', () => {
    const ofAge = (ageMs: number) =>
      decide({ ...enforce, identities: [{ clientId, createdAtWallMs: now - ageMs }] });
    check(ofAge(59_999), /^400 identity_not_owned, pending: /);
    check(ofAge(60_000), /^400 identity_not_owned: /);
  });

  it('of the node is for excepted pods of namespaces with an explicit grant', () => {
    const node = grantOf('default', { nodeIdentities: true });
    checkAll([
      [
        { ...granted, ...excepted },
        '',
        /^400 identity_not_owned: .*AzurePodIdentityException default\/add-on of pod default\/pod .*spec\.nodeIdentities of an AzureIdentityGrant\. \(/,
      ],
      [{ ...node, ...excepted }, '', ' by exception add-on'],
      [node, '', byClient],
      // No object of the namespace names it.
      [{ ...enforce, pod: { labels: {}, hostNetwork: true } }, '', ' by host network'],
    ]);
  });
});

/** Workload identity, with this read of every service account. */
function accountIs(read: ServiceAccountRead | undefined): Given {
  const accounts: ServiceAccounts = {
    generation: 0,
    peek: () => undefined,
    peekFresh: () => read,
    onChange: () => () => undefined,
  };
  return { accounts, pod: { labels: { 'azure.workload.identity/use': 'true' } } };
}

const ofAccount = accountIs({ kind: 'known', account: { clientId, tenantId } });

describe('a pod without the label', () => {
  it('gets the application of its service account, and no other', () => {
    for (const selector of ['', `client_id=${clientId}`, `client_id= ${clientId.toUpperCase()}`]) {
      check(
        decide({ ...ofAccount, owners: 'enforce' }, selector),
        new RegExp(`^https://login\\.example/${tenantId}/${clientId} .* by service account$`),
      );
    }
    for (const [selector, named] of [
      ['client_id=x"\n<b>', 'client_id "x???b?"'],
      [`object_id=${clientId}`, `object_id "${clientId}"`],
      [`resource_id=${clientId}`, `resource_id "${clientId}"`],
    ] as const) {
      check(
        decide(ofAccount, selector),
        '400 selector_not_bound: Identity not found: the service account of pod default/pod does not ' +
          `name the ${named}. (selector_not_bound)`,
      );
    }
  });

  it('waits for its service account, and is refused when that names no identity', () => {
    const other = { kind: 'known', account: { clientId: 'x', tenantId: 'y' } } as const;
    const unannotated = { kind: 'known', account: { clientId: '', tenantId } } as const;
    checkAll([
      [{ ...accountIs(undefined), pod: { labels: {} } }, '', /^400 no_binding_label: /],
      [accountIs(undefined), '', /^503 agent_not_synced, pending: .*is being read\. Retry\. \(/],
      [
        accountIs({ kind: 'unavailable', problem: 'P', retryAfterMs: undefined }),
        '',
        /^503 agent_not_synced: .*default\/robot, cannot be read: .* Retry\. \(/,
      ],
      [
        accountIs({ kind: 'forbidden', said: 'P' }),
        '',
        /^400 credential_invalid: .*service account default\/robot .*"get" on service/,
      ],
      [
        accountIs(unannotated),
        '',
        /^400 no_binding_label: .*no label "aadpodidbinding".*azure\.workload/,
      ],
      [
        accountIs(other),
        '',
        /^400 identity_invalid: Identity not found: service account default\/robot of pod default\/pod .*no GUID.*\. Correct it\. \(/,
      ],
      [
        { identities: [{ clientId: 'no GUID' }] },
        '',
        /^400 identity_invalid: .*AzureIdentity default\/identity of pod .*no GUID.*\. Correct it\. \(/,
      ],
    ]);
  });
});

describe('rights that the API server has not confirmed for too long', () => {
  const rightsProblem = 'not proven current: bindings for 1 d 0 h';
  const decideLate = (given: Given): string => {
    const fixture = open(given);
    fixture.state.rightsProblem = rightsProblem;
    return outcomeOf(fixture.decide());
  };

  it('end, whatever they come from, and the answer names the watch', () => {
    for (const given of [{}, excepted, ofAccount]) {
      check(decide(given), / by /);
      check(decideLate(given), /^503 agent_not_synced: .*bindings for 1 d 0 h\. Retry\. /);
    }
  });

  it('are none of those that a pod on the host network has by itself', () => {
    check(decideLate({ pod: { labels: {}, hostNetwork: true } }), ' by host network');
  });
});

describe('a refusal of a caller that is not a known pod', () => {
  it('contains the reason, and ends a connection on which nothing can be served', () => {
    const ip = '10.0.0.5';
    const texts: readonly (readonly [CallerFacts, RegExp])[] = [
      [{ about: 'unattested' }, /no record of who opened .* not that of a pod\. \[close\]$/],
      [
        { about: 'unattested', refusedBy: 'shared-link' },
        /share a network link.* --redirect=iptables.* \[close\]$/,
      ],
      [
        { about: 'unattested', refusedBy: 'option' },
        /\(--unrecorded-callers=refuse\)\. \[close\]$/,
      ],
      [{ about: 'unavailable', why: 'W' }, /cannot look up .*: W\. Retry\. \[close\]$/],
      [{ about: 'outlived' }, /belongs to another pod now\. Connect again\. \[close\]$/],
      [{ about: 'agent-starting' }, /^The agent is starting .* Retry\.$/],
      [{ about: 'stale', ip }, /the pod at 10\.0\.0\.5 cannot be identified.*Retry\.$/],
      [
        { about: 'shared-address', ip },
        /^More than one running pod .* 10\.0\.0\.5\. Retry later\.$/,
      ],
      [{ about: 'unknown-address', ip }, /^No running pod .* 10\.0\.0\.5\. Retry\.$/],
      [
        { about: 'agent-starting', why: 'the watch of pods has failed for 9 s (FORBIDDEN)' },
        /^The agent has not read the pods of this node: the watch .* \(FORBIDDEN\)\. Retry\.$/,
      ],
      [{ about: 'stale', ip, why: 'W' }, /it from the Kubernetes API: W\. Retry\.$/],
      [
        { about: 'unknown-address', ip, why: 'W' },
        /^No running pod .* 10\.0\.0\.5, but W\. Retry\.$/,
      ],
      [{ about: 'other-cgroup', ip }, /^This connection has the address 10\.0\.0\.5, .* Retry\.$/],
      [
        { about: 'misplaced-address', ip },
        /^This connection comes from 10\.0\.0\.5, but by another network link .* Retry\. \[close\]$/,
      ],
      [{ about: 'unknown-name' }, /^No such pod on this node\. Retry\.$/],
    ];
    for (const [facts, text] of texts) {
      const reason = 'pod_unknown';
      const refusal = { kind: 'refused', reason, facts, isPending: true, pod: undefined } as const;
      const { body, close } = renderRefusal(refusal);
      const said = descriptionOf(body).replace(/ \(pod_unknown\)$/, '');
      assert.match(close === true ? `${said} [close]` : said, text);
    }
  });
});

describe('a refusal of a pod', () => {
  it('has texts of others, and what they may have meant, as one harmless line', () => {
    const meant = 'x"\n<b>';
    const reason = 'identity_missing';
    const refused = {
      kind: 'refused',
      missingIdentityNames: ['gone'],
      bindingNames: ['b'],
    } as const;
    const unbound = {
      kind: 'refused',
      reason: 'binding_missing',
      label: 'l',
      foreign: [],
    } as const;
    const texts: readonly (readonly [PodFacts, RegExp])[] = [
      [
        { about: 'choice', choice: unbound, meant },
        /^Identity not found: .* has that selector\. Did you mean "x\?\?\?b\?"\? Correct the label/,
      ],
      [
        { about: 'choice', choice: { ...refused, reason }, meant },
        /^Identity not found: .* no AzureIdentity gone\. Did you mean AzureIdentity "x\?\?\?b\?"\? Correct spec/,
      ],
      [{ about: 'object-id', objectId: meant }, /has the object_id "x\?\?\?b\?"\. \(/],
      [
        { about: 'unusable', identity: createIdentity(), problem: meant },
        /AzureIdentity default\/identity of pod default\/pod x\?\?\?b\?\. Correct it\. \(/,
      ],
    ];
    for (const [facts, text] of texts) {
      const refusal = { kind: 'refused', reason, facts, isPending: false } as const;
      assert.match(descriptionOf(renderRefusal({ ...refusal, pod: createPod() }).body), text);
    }
  });
});

describe('a failure of the upstream', () => {
  const pod = createPod({ name: 'p', serviceAccount: 'robot' });
  const render = (
    failure: Partial<SourceFailure> & Pick<SourceFailure, 'reason'>,
    over: Partial<Granted> = {},
    ageMs = 1e9,
  ) => {
    const whole = { description: 'it said so', cooldownMs: 0, ...failure };
    const answer = renderFailure(whole, createGrant({ pod, ...over }), ageMs, 60_000);
    return { ...answer, text: descriptionOf(answer.body).replace(/ \([a-z_]+\)$/, '') };
  };
  const upstreamOf = (fields: object) => ({ upstream: fields as Granted['upstream'] });
  const ofNode = { identity: undefined };

  it('keeps its reason, its description, and the name of the identity', () => {
    for (const reason of [
      'resource_refused',
      'identity_refused',
      'credential_refused',
      'credential_invalid',
      'policy_refused',
      'credential_missing',
      'federation_refused',
    ] as const) {
      const answer = render({ reason });
      assert.equal(answer.reason, reason);
      assert.equal(answer.text, 'it said so (AzureIdentity default/i of pod default/p)');
    }
    const texts: readonly (readonly [SourceFailure['reason'], Partial<Granted>, string])[] = [
      ['policy_refused', ofNode, "it said so (the node's identities for pod default/p)"],
      [
        'policy_refused',
        { ...ofNode, ...upstreamOf({ kind: 'entra' }) },
        'it said so (service account default/robot of pod default/p)',
      ],
      [
        'upstream_down',
        {},
        'No token for the moment: it said so. Retry. If it lasts, open the metadata address of the node from the nodes: firewall, DNS, proxy.',
      ],
      ['upstream_refused', {}, 'it said so'],
      ['identity_not_assigned', ofNode, 'it said so'],
    ];
    for (const [reason, over, text] of texts) assert.equal(render({ reason }, over).text, text);
    assert.equal(render({ reason: 'identity_not_assigned' }, ofNode).reason, 'upstream_refused');
  });

  it('explains how to assign an identity that is not assigned to the node', () => {
    const first = { kind: 'client_id', value: 'c' };
    const managed = 'The managed identity of ';
    const orCorrect = '; or correct spec.clientID, if it is no client id but an object id';
    const entra = (credential: object) => upstreamOf({ kind: 'entra', credential });
    for (const [over, begin, end] of [
      [upstreamOf(first), '', orCorrect],
      [upstreamOf({ kind: 'resource_id', value: 'r' }), '', ''],
      [entra({ kind: 'secret' }), managed, ''],
      [entra({ kind: 'chained', assertedBy: first, audience: 'a' }), managed, orCorrect],
    ] as const) {
      assert.equal(
        render({ reason: 'identity_not_assigned' }, over).text,
        `Identity not found: ${begin}AzureIdentity default/i of pod default/p is not assigned to this node. ` +
          `Assign it: kubectl nmi identity assign i -n default shows the az lines for every node pool${end}.`,
      );
    }
    const upstreams = render({ reason: 'identity_not_assigned', error: 'own', retryAfterS: 9 });
    assert.equal(upstreams.retryAfterS, undefined, 'no wait assigns it');
    assert.ok(!upstreams.body.includes('"own"'));
  });

  it('of a federated credential is transient until it is final', () => {
    for (const [isFinal, expected] of [
      [false, ['federation_pending', 503, 9]],
      [true, ['federation_refused', 400, undefined]],
    ] as const) {
      const refusals = { key: 'key', count: 8, sinceMs: 0, isFinal };
      const answer = render({ reason: 'federation_refused', retryAfterS: 9, refusals });
      assert.deepEqual([answer.reason, answer.status, answer.retryAfterS], expected);
    }
  });

  it('may be transient while the grant is new', () => {
    for (const [ageMs, reason] of [
      [59_999, 'credential_pending'],
      [-59_999, 'credential_pending'],
      [60_000, 'credential_missing'],
      // A wrong clock.
      [-60_000, 'credential_missing'],
    ] as const)
      assert.equal(render({ reason: 'credential_missing' }, {}, ageMs).reason, reason);
  });
});

describe('the age of a grant', () => {
  it('is that of the newest of pod, identity and the binding between them', () => {
    for (const [podMs, identityMs, bindings, expected] of [
      [3, 2, { identity: 1 }, 3],
      [1, 3, { identity: 2 }, 3],
      [1, 2, { identity: 3 }, 3],
      [1, 2, { identity: 3, other: 9 }, 3],
      // No identity of the cluster, and one that is not bound any more.
      [5, undefined, {}, 5],
      [5, 7, {}, 7],
    ] as const) {
      const identities =
        identityMs === undefined ? [] : [createIdentity({ createdAtWallMs: identityMs })];
      const { grants, pods } = world({
        pods: [{ labels, createdAtWallMs: podMs }],
        identities: [...identities, { name: 'other', createdAtWallMs: 99 }],
        bindings: Object.entries(bindings).map(([identityName, createdAtWallMs]) => {
          return { name: `to-${identityName}`, identityName, createdAtWallMs };
        }),
      });
      const pod = pods.byName('default', 'pod');
      assert.ok(pod !== undefined);
      const granted = createGrant({ pod, identity: identities[0] });
      assert.equal(grantedSinceWallMs(granted, grants), expected);
    }
  });
});
