import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Granted, PodFacts } from '../../../src/nmi/grants/grant.ts';
import type { CallerFacts, RefusedCaller } from '../../../src/nmi/callers/identify.ts';
import type { ChoiceRefusal } from '../../../src/nmi/grants/choose-identity.ts';
import {
  misnamedLabel,
  renderFailure,
  renderRefusal,
} from '../../../src/nmi/grants/refusal-text.ts';
import type { SourceFailure } from '../../../src/nmi/sources/source.ts';
import { createIdentity, createPod } from '../../support/cache-objects.ts';

const pod = createPod({ name: 'p', serviceAccount: 'robot' });
const identity = createIdentity({ name: 'i', resourceId: '/subscriptions/s/x' });

const noLabel = { kind: 'refused', reason: 'no_binding_label' } as const;

function textOf(body: string): string {
  const text = (JSON.parse(body) as Record<string, string>)['error_description'] ?? '';
  // Every refusal ends with its reason.
  const bare = text.replace(/ \([a-z_]+\)$/, '');
  assert.notEqual(bare, text);
  return bare;
}

function textOfCaller(facts: CallerFacts): string {
  const refusal: RefusedCaller = {
    kind: 'refused',
    reason: 'pod_unknown',
    facts,
    isPending: true,
    pod: undefined,
  };
  const { body, close } = renderRefusal(refusal);
  return close === true ? `${textOf(body)} [close]` : textOf(body);
}

function textOfPod(facts: PodFacts): string {
  const reason = 'identity_missing';
  return textOf(renderRefusal({ kind: 'refused', reason, facts, isPending: false, pod }).body);
}

describe('a refusal of a caller that is not a known pod', () => {
  it('contains the reason, and ends a connection on which nothing can be served', () => {
    const ip = '10.0.0.5';
    const texts: readonly (readonly [CallerFacts, RegExp])[] = [
      [{ about: 'unattested' }, /no record of who opened .* not that of a pod\. \[close\]$/],
      [
        { about: 'unattested', refusedBy: 'shared-link' },
        /share a network link.* --redirect=iptables/,
      ],
      [
        { about: 'unattested', refusedBy: 'option' },
        /\(--unrecorded-callers=refuse\)\. \[close\]$/,
      ],
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
    for (const [facts, text] of texts) assert.match(textOfCaller(facts), text);
  });
});

describe('a refusal because of a missing grant', () => {
  const object = { kind: 'AzureIdentity', name: 'i' } as const;

  it('contains the object, the id, the namespace and the field of a grant that would allow it', () => {
    assert.equal(
      textOfPod({
        about: 'not-owned',
        unowned: { ...object, entry: { field: 'clientIDs', id: 'abc' } },
      }),
      'Identity not found: AzureIdentity default/i of pod default/p has the client id abc, which no ' +
        'AzureIdentityGrant gives to namespace default. A cluster administrator can add it to ' +
        'spec.clientIDs of an AzureIdentityGrant.',
    );
    assert.match(
      textOfPod({
        about: 'not-owned',
        unowned: { ...object, entry: { field: 'resourceIDs', id: '/x' } },
      }),
      /has the resource id \/x, .* spec\.resourceIDs of an AzureIdentityGrant\.$/,
    );
    const entry = { field: 'nodeIdentities' } as const;
    const exception = { kind: 'AzurePodIdentityException', name: 'x', entry } as const;
    assert.match(
      textOfPod({ about: 'not-owned', unowned: exception }),
      /AzurePodIdentityException default\/x of pod default\/p .*spec\.nodeIdentities of an AzureIdentityGrant\.$/,
    );
  });
});

describe('a refusal of a pod', () => {
  it('begins like that of the real service, and names the field to change', () => {
    const account = { namespace: 'default', name: 'robot' };
    const hostile = 'x"\n<b>';
    const selector = { kind: 'client_id', value: hostile } as const;
    const texts: readonly (readonly [PodFacts, RegExp])[] = [
      [{ about: 'pod-gone' }, /^Pod default\/p is gone\. Retry\.$/],
      [{ about: 'account-pending' }, /is being read\. Retry\.$/],
      [{ about: 'host-network' }, /^Access denied: pod default\/p .*--host-network=refuse/],
      [
        { about: 'account-unreadable', account },
        /service account default\/robot .*"get" on service/,
      ],
      [{ about: 'account-unannotated', account }, /no label "aadpodidbinding".*azure\.workload/],
      [{ about: 'account-selector', selector }, /does not name the client_id "x\?\?\?b\?"\.$/],
      [{ about: 'object-id', objectId: hostile }, /has the object_id "x\?\?\?b\?"\.$/],
      [
        { about: 'resource', identity, resource: hostile },
        /AzureIdentity default\/i of pod default\/p is not for the resource "x\?\?\?b\?"\. Add it/,
      ],
      [
        { about: 'unusable', identity, problem: 'has a' },
        /AzureIdentity default\/i .* has a\. Correct/,
      ],
      [
        { about: 'unusable', identity: undefined, problem: 'has a' },
        /^Identity not found: service account default\/robot of pod default\/p has a\. Correct it\.$/,
      ],
    ];
    for (const [facts, text] of texts) assert.match(textOfPod(facts), text);
  });

  it('suggests the intended name, as one harmless line', () => {
    const meant = 'x"\n<b>';
    const unbound = {
      kind: 'refused',
      reason: 'binding_missing',
      label: 'l',
      foreign: [],
    } as const;
    assert.match(
      textOfPod({ about: 'choice', choice: unbound, meant }),
      /^Identity not found: .* has that selector\. Did you mean "x\?\?\?b\?"\? Correct the label/,
    );
    const without = {
      kind: 'refused',
      reason: 'identity_missing',
      label: 'l',
      bindingNames: ['b'],
      missingIdentityNames: ['gone'],
    } as const;
    assert.match(
      textOfPod({ about: 'choice', choice: without, meant }),
      /^Identity not found: .* no AzureIdentity gone\. Did you mean AzureIdentity "x\?\?\?b\?"\? Correct spec/,
    );
  });

  it('names a label that is empty', () => {
    const facts = { about: 'choice', choice: noLabel, meant: undefined } as const;
    const unlabeled = createPod({ labels: { aadpodidbinding: '' } });
    const refusal = { kind: 'refused', reason: noLabel.reason, facts, isPending: false } as const;
    const { body } = renderRefusal({ ...refusal, pod: unlabeled });
    assert.match(textOf(body), /The label aadpodidbinding is empty; give it a value\.$/);
  });

  it('lists the objects that its grants lack', () => {
    const grants: readonly (readonly [ChoiceRefusal, RegExp])[] = [
      [noLabel, /has no label "aadpodidbinding"\. Set it/],
      [
        { kind: 'refused', reason: 'binding_missing', label: 'l', foreign: [] },
        /label aadpodidbinding=l, and no AzureIdentityBinding in namespace default .*Create one: kubectl nmi identity assign IDENTITY -n default --selector l --apply$/,
      ],
      [
        {
          kind: 'refused',
          reason: 'binding_missing',
          label: 'l',
          foreign: [
            { name: 'b1', serviceAccount: 'one' },
            { name: 'b2', serviceAccount: 'two' },
          ],
        },
        /AzureIdentityBinding b1, b2 .* account "robot"\. Run the pod under "one"/,
      ],
      [
        {
          kind: 'refused',
          reason: 'identity_missing',
          bindingNames: ['b'],
          missingIdentityNames: ['gone'],
        },
        /bound by b, but namespace default has no AzureIdentity gone\. Create it: kubectl nmi identity add gone -n default --client-id ID --apply; or correct spec\.azureIdentity\.$/,
      ],
      [
        {
          kind: 'refused',
          reason: 'selector_not_bound',
          selector: { kind: 'client_id', value: 'x"\n' },
          label: 'l',
          identityNames: ['i'],
          missingIdentityNames: [],
        },
        /has the client_id "x\?\?"; bound by label aadpodidbinding=l: i\.$/,
      ],
      [
        {
          kind: 'refused',
          reason: 'selector_not_bound',
          selector: { kind: 'client_id', value: 'x' },
          label: 'l',
          identityNames: [],
          missingIdentityNames: ['gone'],
        },
        /: \(none\)\. AzureIdentity gone is bound too but does not exist\.$/,
      ],
      [
        {
          kind: 'refused',
          reason: 'identity_ambiguous',
          identityNames: ['i', 'j'],
          clientIds: ['c'],
        },
        /^Multiple user assigned identities exist, please specify .* to i, j with client ids c\.$/,
      ],
    ];
    for (const [grant, text] of grants)
      assert.match(textOfPod({ about: 'choice', choice: grant }), text);
  });

  it('lists ten objects of many', () => {
    const names = Array.from({ length: 12 }, (_, index) => `n${index}`);
    const grantWith = (missingIdentityNames: readonly string[]): ChoiceRefusal => ({
      kind: 'refused',
      reason: 'identity_missing',
      bindingNames: ['b'],
      missingIdentityNames,
    });
    const text = textOfPod({ about: 'choice', choice: grantWith(names) });
    assert.ok(text.includes(`${names.slice(0, 10).join(', ')} and 2 more.`), text);
    const ten = textOfPod({ about: 'choice', choice: grantWith(names.slice(0, 10)) });
    assert.ok(ten.includes('n9. Create'), ten);
  });
});

describe('a label that is meant to be the binding label', () => {
  it('is spelled in another way, and not the one that is read', () => {
    for (const [labels, meant] of [
      [{ aadpodidbinding: 'a' }, undefined],
      [
        { aadpodidbinding: '', 'example.org/AadPodId-Binding': 'a' },
        'example.org/AadPodId-Binding',
      ],
      [{ aadPodIdBindings: 'a' }, undefined],
    ] as const) {
      assert.equal(misnamedLabel(labels), meant);
    }
  });
});

describe('a failure of the upstream', () => {
  const authorized: Granted = {
    kind: 'granted',
    pod,
    upstream: { kind: 'client_id', value: 'c' },
    auxiliary: [],
    identity,
    by: 'test',
  };
  const render = (
    failure: Partial<SourceFailure> & Pick<SourceFailure, 'reason'>,
    { ageMs = 1e9, over = {} }: { ageMs?: number; over?: Partial<Granted> } = {},
  ) => {
    const whole = { description: 'it said so', cooldownMs: 0, ...failure };
    const answer = renderFailure(whole, { ...authorized, ...over }, ageMs, 60_000);
    return { ...answer, text: textOf(answer.body) };
  };

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
    const ofNode = render({ reason: 'policy_refused' }, { over: { identity: undefined } });
    assert.match(ofNode.text, /\(the node's identities for pod default\/p\)$/);
    const upstream = { kind: 'entra' } as Granted['upstream'];
    const ofAccount = render(
      { reason: 'policy_refused' },
      { over: { identity: undefined, upstream } },
    );
    assert.match(ofAccount.text, /\(service account default\/robot of pod default\/p\)$/);
  });

  it('contains error, details and a longer wait', () => {
    const details = { errorCodes: [7], timestamp: 't', traceId: 'i', correlationId: 'c' };
    const answer = render({ reason: 'upstream_throttled', error: 'own', retryAfterS: 99, details });
    const { error, error_codes: codes } = JSON.parse(answer.body) as Record<string, unknown>;
    assert.deepEqual([error, codes, answer.retryAfterS], ['own', [7], 99]);
    assert.equal(
      render({ reason: 'upstream_down' }).text,
      'No token for the moment: it said so. Retry.',
    );
    assert.equal(render({ reason: 'upstream_refused' }).text, 'it said so');
  });

  it('explains how to assign an identity that is not assigned to the node', () => {
    assert.match(
      render({ reason: 'identity_not_assigned' }).text,
      /Assign it: kubectl nmi identity assign \S+ -n default shows the az lines/,
    );
    const secret = { kind: 'secret' };
    const upstream = { kind: 'entra', credential: secret } as Granted['upstream'];
    const beginnings = [{}, { upstream }].map(
      (over) =>
        /^.*?default\/i/.exec(render({ reason: 'identity_not_assigned' }, { over }).text)?.[0],
    );
    assert.deepEqual(beginnings, [
      'Identity not found: AzureIdentity default/i',
      'Identity not found: The managed identity of AzureIdentity default/i',
    ]);
    const answerTo = (over: Partial<Granted>) =>
      render({ reason: 'identity_not_assigned' }, { over }).text;
    const mistaken = /; or correct spec\.clientID, if it is no client id but an object id\.$/;
    const first = { kind: 'client_id', value: 'c' } as const;
    const credential = { kind: 'chained', assertedBy: first, audience: 'a' };
    assert.match(answerTo({ upstream: first }), mistaken);
    assert.match(
      answerTo({ upstream: { kind: 'entra', credential } as Granted['upstream'] }),
      mistaken,
    );
    assert.doesNotMatch(answerTo({ upstream: { kind: 'resource_id', value: 'r' } }), /clientID/);
    const upstreams = render({ reason: 'identity_not_assigned', error: 'own', retryAfterS: 9 });
    assert.equal(upstreams.retryAfterS, undefined, 'no wait assigns it');
    assert.ok(!upstreams.body.includes('"own"'));
    const ofNode = render({ reason: 'identity_not_assigned' }, { over: { identity: undefined } });
    assert.deepEqual([ofNode.reason, ofNode.text], ['upstream_refused', 'it said so']);
  });

  it('of a federated credential is transient until it is final', () => {
    const reasonAt = (isFinal: boolean) => {
      const refusals = { key: 'key', count: 8, sinceMs: 0, isFinal };
      return render({ reason: 'federation_refused', retryAfterS: 9, refusals });
    };
    const { reason, status, retryAfterS } = reasonAt(false);
    assert.deepEqual([reason, status, retryAfterS], ['federation_pending', 503, 9]);
    assert.equal(reasonAt(true).status, 400);
    assert.equal(reasonAt(true).retryAfterS, undefined);
  });

  it('may be transient while the grant is new', () => {
    const reasonAt = (reason: 'credential_missing', ageMs: number) =>
      render({ reason }, { ageMs }).reason;
    assert.equal(reasonAt('credential_missing', 59_999), 'credential_pending');
    assert.equal(reasonAt('credential_missing', -59_999), 'credential_pending');
    assert.equal(reasonAt('credential_missing', 60_000), 'credential_missing');
    assert.equal(reasonAt('credential_missing', -60_000), 'credential_missing', 'a wrong clock');
  });
});
