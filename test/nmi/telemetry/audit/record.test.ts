import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import type { PodGrants } from '../../../../src/cache/index/grant-index.ts';
import type { Grant } from '../../../../src/nmi/grants/grant.ts';
import {
  detailFields,
  identityFields,
  outcomeOf,
  renderRecord,
  versionsOf,
  whoseFields,
} from '../../../../src/nmi/telemetry/audit/record.ts';
import type { RequestRecord } from '../../../../src/nmi/server/request-record.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../../support/cache-objects.ts';
import {
  createDecision,
  createRecord,
  hostTokenRoute,
  routeTo,
} from '../../../support/request-records.ts';

const clientId = '0a1b2c3d-0000-4000-8000-000000000001';
const pod = createPod({ name: 'p', uid: 'u', resourceVersion: '11' });
const identity = createIdentity({ name: 'i', clientId, resourceVersion: '12' });
const granted: Grant = {
  kind: 'granted',
  pod,
  identity,
  by: 'only',
  upstream: { kind: 'client_id', value: clientId },
  auxiliary: [],
};

function refusedWith(facts: object): Grant {
  const base = { kind: 'refused', reason: 'selector_not_bound', isPending: false, pod };
  return { ...base, facts } as unknown as Grant;
}

function selectorNotBound(kind: string, value: string): Grant {
  const selector = { kind, value };
  return refusedWith({ about: 'choice', choice: { reason: 'selector_not_bound', selector } });
}

const identityGrant = createIdentityGrant({ name: 'g', resourceVersion: '16' });
const knowing = (ofPod: PodGrants | undefined, decides?: 'identity' | 'exception') => ({
  grants: { grantsOf: () => ofPod },
  owners: {
    deciding: (_namespace: string, upstream?: UpstreamIdentity) => {
      const isDecided = decides === (upstream === undefined ? 'exception' : 'identity');
      return isDecided ? identityGrant : undefined;
    },
  },
});

describe('an audit record', () => {
  it('is one line of ASCII, with bounded fields, and without empty ones', () => {
    const line = renderRecord(
      Date.UTC(2026, 0, 2),
      { pod: 'a"\n\u2028\x7f{}', empty: '', none: undefined, long: 'x'.repeat(300), count: 2 },
      'token request',
    );
    assert.match(line, /^[\x20-\x7e]+\n$/);
    assert.deepEqual(JSON.parse(line), {
      level: 'info',
      time: '2026-01-02T00:00:00.000Z',
      component: 'audit',
      pod: 'a"\n??{}',
      long: 'x'.repeat(256),
      count: 2,
      msg: 'token request',
    });
  });

  it('names the pod, its service account and how it was identified', () => {
    const of = (over: Partial<RequestRecord>) => {
      const fields = whoseFields(createRecord(over), knowing(undefined));
      return ['namespace', 'pod', 'serviceAccount', 'attestedBy'].map((name) => fields[name]);
    };
    assert.deepEqual(of({}), ['default', 'p', 'default', 'address']);
    const decision = createDecision({ grant: undefined });
    assert.deepEqual(
      of({ decision, pod: undefined, callerPod: undefined, identifiedBy: undefined }),
      [undefined, undefined, undefined, 'nothing'],
    );
    assert.equal(of({ route: hostTokenRoute })[3], 'host process');
    const uncertain = of({ pod: undefined, callerPod: pod });
    assert.equal(uncertain[1], 'p', 'the pod of the connection, even if it is not certain now');
  });

  it('has the path of a metadata request and the resource of a token request', () => {
    const route = routeTo('/metadata/instance');
    assert.deepEqual(detailFields(createRecord({ route, decision: undefined })), {
      path: '/metadata/instance',
      resource: undefined,
      cache: undefined,
    });
    const decision = createDecision({ resource: 'eyJhbGciOiJub25lIn0.e30.' });
    assert.deepEqual(detailFields(createRecord({ decision })), {
      path: undefined,
      resource: '[unusual]',
      cache: 'miss',
    });
    const none = createDecision({ resource: '', cache: 'none' });
    assert.equal(detailFields(createRecord({ decision: none }))['resource'], undefined);
    const long = routeTo(`/metadata/instance/${'e'.repeat(41)}`);
    assert.equal(detailFields(createRecord({ route: long }))['path'], '[unusual]');
  });

  it('distinguishes a decision of the agent from a failure', () => {
    const refused = selectorNotBound('client_id', clientId);
    assert.equal(outcomeOf(200, granted), 'granted');
    assert.equal(outcomeOf(400, refused), 'denied');
    assert.equal(outcomeOf(403, undefined), 'denied');
    assert.equal(outcomeOf(400, granted), 'failed');
    assert.equal(outcomeOf(503, refused), 'failed');
    assert.equal(outcomeOf(429, undefined), 'failed');
  });
});

describe('the identity in an audit record', () => {
  it('is that of the pod, with its client id in full', () => {
    assert.deepEqual(identityFields(granted), {
      identity: 'default/i',
      identityType: 0,
      clientId,
      by: 'only',
      source: 'imds',
    });
  });

  it('is the last one of a chain, with what came before', () => {
    const assertedBy = { kind: 'client_id', value: 'm' } as const;
    const upstream = {
      kind: 'entra',
      authority: 'https://e',
      tenantId: 't',
      clientId,
      credential: { kind: 'chained', assertedBy, audience: 'a' },
    } as const;
    const { chain, source } = identityFields({ ...granted, upstream });
    assert.deepEqual([chain, source], [['managed identity m'], 'chained']);
  });

  it('is that of the node for an excepted pod, with the id that the pod named', () => {
    const { requested, identity: name } = identityFields({
      ...granted,
      identity: undefined,
      by: 'exception e',
    });
    assert.deepEqual([name, requested], ['node', `client_id ${clientId}`]);
    const unnamed = { ...granted, identity: undefined, upstream: { kind: 'unnamed' } as const };
    assert.equal(identityFields(unnamed)['requested'], undefined);
  });

  it('is the refused one, if its id has the format of one', () => {
    const requestedOf = (grant: Grant) => identityFields(grant)['requested'];
    const resourceId =
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';
    assert.equal(requestedOf(selectorNotBound('client_id', clientId)), `client_id ${clientId}`);
    assert.equal(
      requestedOf(selectorNotBound('resource_id', resourceId)),
      `resource_id ${resourceId}`,
    );
    for (const odd of [
      'eyJhbGciOiJub25lIn0.e30.',
      `/subscriptions/${'x'.repeat(129)}`,
      '/subscriptions/s?x',
      `${clientId}x`,
    ]) {
      assert.equal(requestedOf(selectorNotBound('client_id', odd)), 'client_id [unusual]');
    }
    const byObjectId = (objectId: string) =>
      requestedOf({ kind: 'by-object-id', pod, candidates: [], objectId });
    assert.equal(byObjectId(clientId), `object_id ${clientId}`);
    assert.equal(byObjectId('eyjhbgcioijub25lin0.e30.'), 'object_id [unusual]');
    assert.deepEqual(identityFields(refusedWith({ about: 'resource', identity })), {
      identity: 'default/i',
    });
    assert.deepEqual(identityFields(undefined), {});
  });
});

describe('the versions in an audit record', () => {
  const binding = createBinding({ name: 'b', identityName: 'i', resourceVersion: '13' });
  const other = createBinding({ name: 'a', identityName: 'other', resourceVersion: '14' });
  const bound = { kind: 'bound', bindings: [other, binding] } as unknown as PodGrants;

  it('are those of the pod, its identity and the binding between them', () => {
    assert.deepEqual(versionsOf(pod, granted, knowing(bound)), {
      'Pod/p': '11',
      'AzureIdentity/i': '12',
      'AzureIdentityBinding/b': '13',
    });
  });

  it('are those of the pod and its exception', () => {
    const exception = createException({ name: 'e', resourceVersion: '15' });
    const excepted = { ...granted, identity: undefined };
    assert.deepEqual(versionsOf(pod, excepted, knowing({ kind: 'exception', exception })), {
      'Pod/p': '11',
      'AzurePodIdentityException/e': '15',
    });
  });

  it('include the grant of the cluster when grants decide', () => {
    const of = (grant: Grant, clusterState: ReturnType<typeof knowing>) =>
      versionsOf(pod, grant, clusterState)['AzureIdentityGrant/g'];
    assert.equal(of(granted, knowing(bound, 'identity')), '16');
    const exception = createException({ name: 'e' });
    const excepted = { ...granted, identity: undefined };
    assert.equal(of(excepted, knowing({ kind: 'exception', exception }, 'exception')), '16');
  });

  it('are those behind a refusal, as far as there are any', () => {
    const refused = refusedWith({ about: 'resource', identity });
    assert.deepEqual(Object.keys(versionsOf(pod, refused, knowing(bound, 'identity'))), [
      'Pod/p',
      'AzureIdentity/i',
      'AzureIdentityBinding/b',
    ]);
    const unlabelled = knowing({ kind: 'no-label' });
    assert.deepEqual(versionsOf(pod, undefined, unlabelled), { 'Pod/p': '11' });
    assert.deepEqual(versionsOf(undefined, undefined, unlabelled), {});
  });
});
