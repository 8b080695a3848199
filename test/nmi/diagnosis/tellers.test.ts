/**
 * One table of situations through every teller: the answer to the pod, the
 * Event, `nmi explain`, `kubectl nmi explain`, `kubectl nmi analyze` and the status conditions. They
 * name the same code and the same fix.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, parseRecord, stringAt } from '../../../src/base/json-value.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { defaultConfig, viewAgent, type AgentView } from '../../../src/kubectl/cluster/agents.ts';
import type { createClusterState } from '../../../src/kubectl/cluster/cluster-state.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import { analyze } from '../../../src/kubectl/findings/analyze.ts';
import { createContexts } from '../../../src/kubectl/findings/contexts.ts';
import { examinePod } from '../../../src/kubectl/findings/pods.ts';
import { conditionsOfBinding, conditionsOfIdentity } from '../../../src/nmi/conditions/evaluate.ts';
import { observing } from '../../../src/nmi/conditions/observed.ts';
import { ObservedObjects } from '../../../src/nmi/conditions/observed-objects.ts';
import type { Config } from '../../../src/nmi/config/config.ts';
import { rowOf, type Code } from '../../../src/nmi/diagnosis/codes.ts';
import type { Finding } from '../../../src/nmi/diagnosis/finding.ts';
import type { RefusedPod } from '../../../src/nmi/grants/grant.ts';
import { decideGrant } from '../../../src/nmi/grants/decide-grant.ts';
import type { IdentitySelector } from '../../../src/nmi/grants/choose-identity.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import { eventReasonOf } from '../../../src/nmi/kube/events/event.ts';
import { RefusalEvents } from '../../../src/nmi/telemetry/refusal-events.ts';
import { parseBinding, parseIdentity } from '../../../src/nmi/kube/watch/parse.ts';
import {
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../../kubectl/support/recorded-kubectl.ts';
import { createDecision, createRefusal } from '../../support/request-records.ts';

const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const resourceID =
  '/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders';
const label = (value: string) => ({ labels: { aadpodidbinding: value } });
const bound = createPod('web', label('orders'));
const federated = { type: 3, clientID: clientA, tenantID };
const application = { tenantID, clientID: clientA };
const chain = { type: 4, clientID: clientA, application };

interface Request {
  readonly selector?: IdentitySelector;
  readonly resource?: string;
}

interface PodSituation {
  readonly name: string;
  readonly objects?: Partial<Snapshot>;
  readonly options?: Partial<Config>;
  readonly request?: Request;
  /** `undefined` is a token. */
  readonly code: Code | undefined;
  /** Default: that of the table. */
  readonly fix?: RegExp;
}

const named = (kind: 'client_id' | 'resource_id', value: string): Request => ({
  selector: { kind, value },
});
const grantOf = (namespace: string, spec: object) => [
  {
    ...createObject('AzureIdentityGrant', 'g', { namespaces: [namespace], ...spec }),
    metadata: { name: 'g', uid: 'uid-g', creationTimestamp: '2026-11-01T00:00:00Z' },
  },
];
const exceptions = (labels: object) => [
  createObject('AzurePodIdentityException', 'e', { podLabels: labels }),
];
const enforce = { identityOwners: 'enforce' } as const;
const two = {
  identities: [createIdentity('orders'), createIdentity('stock', { type: 0, clientID: clientB })],
  bindings: [
    createBinding('a'),
    createBinding('b', { azureIdentity: 'stock', selector: 'orders' }),
  ],
};
const young = (minutes: number) => {
  const at = new Date(nowWallMs - minutes * 60_000).toISOString();
  const metadata = { ...asRecord(bound['metadata']), creationTimestamp: at };
  return { pods: [{ ...bound, metadata }] };
};
const pod = (...args: Parameters<typeof createPod>) => ({ pods: [createPod(...args)] });

const ofPods: readonly PodSituation[] = [
  { name: 'bound', code: undefined },
  {
    name: 'bound by resource id',
    code: undefined,
    objects: { identities: [createIdentity('orders', { type: 0, resourceID })] },
  },
  {
    name: 'asks for its client id',
    code: undefined,
    request: named('client_id', clientA.toUpperCase()),
  },
  {
    name: 'excepted',
    code: undefined,
    objects: { ...pod('web', { labels: { app: 'a' } }), exceptions: exceptions({ app: 'A' }) },
  },
  {
    name: 'without the label',
    code: 'no_binding_label',
    objects: pod('web'),
    fix: /^Set it to the selector/,
  },
  {
    name: 'with an empty label',
    code: 'no_binding_label',
    objects: pod('web', label('')),
    fix: /is empty; give it a value\.$/,
  },
  {
    name: 'with the label in another letter case',
    code: 'no_binding_label',
    objects: pod('web', { labels: { aadPodIdBinding: 'orders' } }),
    fix: /^The label aadPodIdBinding is not read/,
  },
  {
    name: 'with the label under a prefix',
    code: 'no_binding_label',
    objects: pod('web', { labels: { 'x.io/aad-pod-id-binding': 'orders' } }),
    fix: /is not read/,
  },
  {
    name: 'on the host network, which is refused',
    code: 'host_network_refused',
    objects: pod('web', { ...label('orders'), spec: { hostNetwork: true } }),
    options: { hostNetwork: 'refuse' },
  },
  {
    name: 'with a label that no binding has',
    code: 'binding_missing',
    objects: { bindings: [] },
    fix: /^Create one: kubectl nmi identity assign IDENTITY -n shop --selector orders --apply$/,
  },
  {
    name: 'with a wrong letter in the label',
    code: 'binding_missing',
    objects: pod('web', label('oders')),
    fix: /^Did you mean "orders"\?/,
  },
  {
    name: 'with the label in upper case',
    code: 'binding_missing',
    objects: pod('web', label('ORDERS')),
    fix: /^Did you mean "orders"\?/,
  },
  {
    name: 'with a selector that has a blank',
    code: 'binding_missing',
    objects: { bindings: [createBinding('b', { azureIdentity: 'orders', selector: 'orders ' })] },
    fix: /^Did you mean "orders "\?/,
  },
  {
    name: 'with the binding in another namespace',
    code: 'binding_missing',
    objects: { bindings: [createBinding('b', undefined, { namespace: 'other' })] },
    fix: /^Create one/,
  },
  {
    name: 'with a binding for another account',
    code: 'binding_missing',
    objects: {
      bindings: [
        createBinding('b', {
          azureIdentity: 'orders',
          selector: 'orders',
          serviceAccount: 'robot',
        }),
      ],
    },
    fix: /^Run the pod under "robot"/,
  },
  {
    name: 'with an ignored binding',
    code: 'binding_missing',
    objects: { bindings: [createBinding('b', { azureIdentity: 'orders', selector: 7 })] },
    fix: /^Create one/,
  },
  {
    name: 'just created, with no binding yet',
    code: 'binding_pending',
    objects: { ...young(0.5), bindings: [] },
    fix: /^Create one/,
  },
  {
    name: 'just created, with a wrong letter',
    code: 'binding_pending',
    objects: {
      ...young(0.5),
      bindings: [createBinding('b', { azureIdentity: 'orders', selector: 'order' })],
    },
    fix: /^Did you mean "order"\?/,
  },
  {
    name: 'bound to nothing',
    code: 'identity_missing',
    objects: { identities: [] },
    fix: /^Create it: kubectl nmi identity add orders -n shop/,
  },
  {
    name: 'bound to a wrong name',
    code: 'identity_missing',
    objects: { identities: [createIdentity('order')] },
    fix: /^Did you mean AzureIdentity "order"\?/,
  },
  {
    name: 'bound to an identity of another namespace',
    code: 'identity_missing',
    objects: { identities: [createIdentity('orders', undefined, { namespace: 'other' })] },
    fix: /^Create it/,
  },
  {
    name: 'bound to an ignored identity',
    code: 'identity_missing',
    objects: { identities: [createIdentity('orders', { type: '0' })] },
    fix: /^Create it/,
  },
  {
    name: 'bound to no name',
    code: 'identity_missing',
    objects: { bindings: [createBinding('b', { selector: 'orders' })] },
    fix: /^Set spec\.azureIdentity/,
  },
  {
    name: 'bound to a hostile name',
    code: 'identity_missing',
    objects: { bindings: [createBinding('b', { azureIdentity: '$(id)', selector: 'orders' })] },
    fix: /identity add NAME -n shop/,
  },
  {
    name: 'just created, bound to nothing yet',
    code: 'identity_pending',
    objects: { ...young(0.5), identities: [] },
    fix: /^Create it/,
  },
  {
    name: 'with a client id that is no GUID',
    code: 'identity_invalid',
    objects: { identities: [createIdentity('orders', { type: 0, clientID: 'x' })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with a resource id of another provider',
    code: 'identity_invalid',
    objects: { identities: [createIdentity('orders', { type: 0, resourceID: '/x/y' })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with neither id',
    code: 'identity_invalid',
    objects: { identities: [createIdentity('orders', { type: 0 })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with a type that does not exist',
    code: 'identity_unsupported',
    objects: { identities: [createIdentity('orders', { type: 9, clientID: clientA })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with a secret without a name',
    code: 'identity_invalid',
    objects: { identities: [createIdentity('orders', { type: 1, clientID: clientA, tenantID })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with a tenant that is none',
    code: 'identity_invalid',
    objects: { identities: [createIdentity('orders', { ...federated, tenantID: 'x y' })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with an endpoint that is not allowed',
    code: 'identity_invalid',
    objects: {
      identities: [createIdentity('orders', { ...federated, adEndpoint: 'https://evil.example' })],
    },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with a chain that begins with a token by federation',
    code: 'identity_invalid',
    objects: { identities: [createIdentity('orders', { ...chain, federation: 'pod' })] },
    fix: /^Correct it\.$/,
  },
  {
    name: 'with a chain',
    code: undefined,
    objects: { identities: [createIdentity('orders', chain)] },
  },
  {
    name: 'federated',
    code: undefined,
    objects: { identities: [createIdentity('orders', federated)] },
  },
  {
    name: 'asks for another client id',
    code: 'selector_not_bound',
    request: named('client_id', clientB),
  },
  {
    name: 'asks for another resource id',
    code: 'selector_not_bound',
    request: named('resource_id', resourceID),
  },
  {
    name: 'asks for a resource that is not allowed',
    code: 'resource_not_allowed',
    request: { resource: 'https://vault.azure.net' },
    objects: {
      identities: [
        createIdentity('orders', {
          type: 0,
          clientID: clientA,
          allowedResources: ['https://management.azure.com'],
        }),
      ],
    },
    fix: /^Add it to spec\.allowedResources\.$/,
  },
  {
    name: 'asks for a resource that is allowed',
    code: undefined,
    request: { resource: 'https://vault.azure.net' },
    objects: {
      identities: [
        createIdentity('orders', {
          type: 0,
          clientID: clientA,
          allowedResources: ['https://vault.azure.net/'],
        }),
      ],
    },
  },
  { name: 'with two identities', code: undefined, objects: two },
  {
    name: 'with two identities, strict',
    code: 'identity_ambiguous',
    objects: two,
    options: { strictIdentity: true },
  },
  {
    name: 'with two identities, strict, and names one',
    code: undefined,
    objects: two,
    options: { strictIdentity: true },
    request: named('client_id', clientB),
  },
  {
    name: 'without a grant, only warned',
    code: undefined,
    objects: { grants: grantOf('other', { clientIDs: [clientA] }) },
  },
  {
    name: 'without a grant',
    code: 'identity_not_owned',
    options: enforce,
    objects: { grants: [] },
    fix: /can add it to spec\.clientIDs/,
  },
  {
    name: 'with a grant to another namespace',
    code: 'identity_not_owned',
    options: enforce,
    objects: { grants: grantOf('other', { clientIDs: [clientA] }) },
    fix: /spec\.clientIDs/,
  },
  {
    name: 'with a grant',
    code: undefined,
    options: enforce,
    objects: { grants: grantOf('shop', { clientIDs: [clientA] }) },
  },
  {
    name: 'by resource id without a grant',
    code: 'identity_not_owned',
    options: enforce,
    objects: { grants: [], identities: [createIdentity('orders', { type: 0, resourceID })] },
    fix: /spec\.resourceIDs/,
  },
  {
    name: 'excepted without a grant',
    code: 'identity_not_owned',
    options: enforce,
    objects: {
      ...pod('web', { labels: { app: 'a' } }),
      exceptions: exceptions({ app: 'a' }),
      grants: [],
    },
    fix: /can set spec\.nodeIdentities/,
  },
  {
    name: 'federated by its own account, which needs no grant',
    code: undefined,
    options: enforce,
    objects: { grants: [], identities: [createIdentity('orders', federated)] },
  },
];

/** The agent of the pod's node, with these options. */
function agentsWith(config: Config): readonly AgentView[] {
  return [{ ...viewAgent(createAgentPod('node-1')), isVerified: true, config }];
}

function through({ objects = {}, options = {}, request = {} }: PodSituation) {
  const config = { ...defaultConfig, ...options };
  const snapshot = createSnapshot({ pods: [bound], agents: agentsWith(config), ...objects });
  const contexts = createContexts(snapshot, nowWallMs);
  const { selector = { kind: 'none' } as const, resource } = request;
  const [raw] = snapshot.pods;
  assert.ok(raw !== undefined);
  const context = contexts.of(raw);
  const { view } = context;
  const explained = examinePod(raw, context, { selector, resource });
  assert.ok(explained !== undefined);
  const agentPod = view.clusterState.pods.byName('shop', 'web');
  assert.ok(agentPod !== undefined);
  const policy = {
    strict: config.strictIdentity,
    graceMs: 60_000,
    hostNetwork: config.hostNetwork,
  };
  const query = { selector, resource };
  const decision = decideGrant(agentPod, query, view.clusterState, policy, nowWallMs);
  return { explained, decision, analyzed: analyze(snapshot, contexts) };
}

/** The Event on the pod: its reason and note. */
function eventOf(grant: RefusedPod): { readonly reason: string; readonly note: string } {
  const drafts: { reason: string; note: string }[] = [];
  const events = new RefusalEvents({
    record: (_regarding, _kind, draft) => drafts.push(draft()) > 0,
  });
  const decision = createDecision({ grant, resource: 'https://vault.azure.net', cache: 'none' });
  events.render(createRefusal(renderRefusal(grant), { decision, pod: grant.pod }));
  const [event] = drafts;
  assert.ok(event !== undefined);
  return event;
}

function codeAndFix({ code, fix, object }: Finding) {
  return { code, fix, object };
}

describe('every teller names the same code and fix for a pod', () => {
  for (const situation of ofPods) {
    const { name, code, fix, request } = situation;
    it(name, () => {
      const { explained, decision, analyzed } = through(situation);
      const { findings, explanation } = explained;
      const outcome = explanation.requests.at(-1)?.outcome;
      if (code === undefined) {
        assert.equal(decision.kind, 'granted');
        assert.equal(outcome?.kind, 'granted');
        assert.deepEqual(
          findings.filter(({ severity }) => severity === 'error'),
          [],
        );
        return;
      }
      assert.ok(decision.kind === 'refused');
      const answer = renderRefusal(decision);
      const body = stringAt(parseRecord(answer.body), 'error_description');
      const told = explanation.findings.find((each) => each.code === code);
      assert.ok(told !== undefined, JSON.stringify(explanation.findings));
      assert.equal(answer.reason, code);
      assert.equal(told.object, 'Pod shop/web');
      if (fix === undefined) assert.equal(told.fix, rowOf(code).fix);
      else {
        assert.match(told.fix, fix);
        assert.ok(body.endsWith(`${told.fix} (${code})`), body);
      }
      assert.ok(outcome?.kind === 'refused' && outcome.refusal.reason === code);
      assert.ok(decision.pod !== undefined);
      const event = eventOf(decision);
      assert.equal(event.reason, eventReasonOf(code));
      assert.ok(event.note.endsWith(` Fix: ${told.fix}`), event.note);
      // The plugin's explanation, and analysis where no request is named, tell the same.
      assert.deepEqual(findings.filter((each) => each.code === code).map(codeAndFix), [
        codeAndFix(told),
      ]);
      if (request !== undefined) return;
      const inAnalysis = analyzed.filter(
        (each) => each.code === code && each.object === told.object,
      );
      const isWanted =
        code !== 'no_binding_label' ||
        told.details.length > 0 ||
        fix?.test('is empty; give it a value.');
      assert.deepEqual(inAnalysis.map(codeAndFix), isWanted === true ? [codeAndFix(told)] : []);
    });
  }
});

interface ObjectSituation {
  readonly name: string;
  readonly kind: 'AzureIdentity' | 'AzureIdentityBinding';
  readonly objects: Partial<Snapshot>;
  readonly options?: Partial<Config>;
  /** `undefined`: it is ready. */
  readonly code: Code | undefined;
  readonly fix?: RegExp;
}

const identity = (spec: object) => ({ identities: [createIdentity('orders', spec)] });
const binding = (spec: object) => ({ bindings: [createBinding('orders', spec)] });
const many = Array.from({ length: 201 }, (_, at) =>
  createBinding(at === 200 ? 'orders' : `a${at}`, { azureIdentity: 'orders', selector: 'orders' }),
).map((each, at) => ({
  ...each,
  metadata: {
    ...asRecord(each['metadata']),
    creationTimestamp: `2026-10-01T00:${String(Math.floor(at / 60)).padStart(2, '0')}:${String(at % 60).padStart(2, '0')}Z`,
  },
}));

const ofObjects: readonly ObjectSituation[] = [
  { name: 'a good one', kind: 'AzureIdentity', objects: {}, code: undefined },
  {
    name: 'a field of the wrong type',
    kind: 'AzureIdentity',
    objects: identity({ type: '0' }),
    code: 'object_unusable',
    fix: /^Correct it\.$/,
  },
  {
    name: 'no list of resources',
    kind: 'AzureIdentity',
    objects: identity({ type: 0, clientID: clientA, allowedResources: [] }),
    code: 'object_unusable',
    fix: /^Correct it\.$/,
  },
  {
    name: 'a client id that is no GUID',
    kind: 'AzureIdentity',
    objects: identity({ type: 0, clientID: 'x' }),
    code: 'identity_invalid',
    fix: /^Correct it\.$/,
  },
  {
    name: 'no id',
    kind: 'AzureIdentity',
    objects: identity({ type: 0 }),
    code: 'identity_invalid',
    fix: /^Correct it\.$/,
  },
  {
    name: 'a resource id of nothing',
    kind: 'AzureIdentity',
    objects: identity({ type: 0, resourceID: '/x' }),
    code: 'identity_invalid',
    fix: /^Correct it\.$/,
  },
  {
    name: 'a type that does not exist',
    kind: 'AzureIdentity',
    objects: identity({ type: 9, clientID: clientA }),
    code: 'identity_unsupported',
    fix: /^Correct it\.$/,
  },
  {
    name: 'a tenant that is none',
    kind: 'AzureIdentity',
    objects: identity({ ...federated, tenantID: '' }),
    code: 'identity_invalid',
    fix: /^Correct it\.$/,
  },
  {
    name: 'no credential',
    kind: 'AzureIdentity',
    objects: identity({ ...federated, type: 1 }),
    code: 'identity_invalid',
    fix: /^Correct it\.$/,
  },
  {
    name: 'no grant',
    kind: 'AzureIdentity',
    objects: { grants: [] },
    options: enforce,
    code: 'identity_not_owned',
    fix: /spec\.clientIDs/,
  },
  {
    name: 'no grant, only warned',
    kind: 'AzureIdentity',
    objects: { grants: [] },
    code: undefined,
  },
  { name: 'a good one', kind: 'AzureIdentityBinding', objects: {}, code: undefined },
  {
    name: 'a field of the wrong type',
    kind: 'AzureIdentityBinding',
    objects: binding({ azureIdentity: 'orders', selector: 7 }),
    code: 'object_unusable',
    fix: /^Correct it\.$/,
  },
  {
    name: 'the name of nothing',
    kind: 'AzureIdentityBinding',
    objects: { identities: [] },
    code: 'identity_missing',
    fix: /^Create it: kubectl nmi identity add orders -n shop/,
  },
  {
    name: 'nearly the name',
    kind: 'AzureIdentityBinding',
    objects: binding({ azureIdentity: 'Orders', selector: 'orders' }),
    code: 'identity_missing',
    fix: /^Did you mean AzureIdentity "orders"\?/,
  },
  {
    name: 'no name',
    kind: 'AzureIdentityBinding',
    objects: binding({ selector: 'orders' }),
    code: 'identity_missing',
    fix: /^Set spec\.azureIdentity/,
  },
  {
    name: 'the name of an ignored one',
    kind: 'AzureIdentityBinding',
    objects: identity({ type: '0' }),
    code: 'identity_missing',
    fix: /^Correct it\.$/,
  },
  {
    name: 'no selector',
    kind: 'AzureIdentityBinding',
    objects: binding({ azureIdentity: 'orders' }),
    code: 'selector_unusable',
    fix: /^Set it to the pods' label/,
  },
  {
    name: 'a selector of two words',
    kind: 'AzureIdentityBinding',
    objects: binding({ azureIdentity: 'orders', selector: 'a b' }),
    code: 'selector_unusable',
    fix: /^Correct it\.$/,
  },
  {
    name: 'a selector of 64 letters',
    kind: 'AzureIdentityBinding',
    objects: binding({ azureIdentity: 'orders', selector: 'x'.repeat(64) }),
    code: 'selector_unusable',
    fix: /^Correct it\.$/,
  },
  {
    name: 'one too many of a selector',
    kind: 'AzureIdentityBinding',
    objects: { bindings: many },
    code: 'selector_unusable',
    fix: /^Delete some of them\.$/,
  },
];

/** The conditions that the process would write. */
function conditionsOf(
  kind: ObjectSituation['kind'],
  snapshot: Snapshot,
  view: ReturnType<typeof createClusterState>,
) {
  const parsedOf = (raw: RawObject) => {
    const observed = observing(parseIdentity)(raw);
    assert.ok(observed.ok);
    return observed.value;
  };
  const identities = snapshot.identities.map(parsedOf);
  const found = identities.find(({ name }) => name === 'orders');
  const { clusterState: rules } = view;
  const ofFound = found === undefined ? undefined : conditionsOfIdentity(found, undefined, rules);
  if (kind === 'AzureIdentity') return ofFound ?? [];
  const objects = new ObservedObjects();
  objects.identities.replace(identities);
  objects.bindings.replace(
    snapshot.bindings.map((raw) => {
      const observed = observing(parseBinding)(raw);
      assert.ok(observed.ok);
      return observed.value;
    }),
  );
  const observed = objects.bindings.get('shop', 'orders');
  assert.ok(observed !== undefined);
  const { parsed } = observed;
  const wanted = parsed.ok ? parsed.value.identityName : '';
  const target = objects.identities.get('shop', wanted);
  return conditionsOfBinding(
    observed,
    {
      identity: target?.parsed,
      meant: target === undefined ? objects.nearIdentity('shop', wanted) : undefined,
      isSurplus: parsed.ok && objects.isSurplus(parsed.value),
    },
    target === undefined ? undefined : ofFound?.find(({ type }) => type === 'Ready'),
  );
}

describe('every teller names the same code and fix for an object', () => {
  for (const { name, kind, objects, options = {}, code, fix } of ofObjects) {
    it(`${kind}: ${name}`, () => {
      const config = { ...defaultConfig, ...options };
      const snapshot = createSnapshot({ pods: [bound], agents: agentsWith(config), ...objects });
      const contexts = createContexts(snapshot, nowWallMs);
      const { view } = contexts.of(bound);
      const object = `${kind} shop/orders`;
      const faults = analyze(snapshot, contexts).filter(
        (each) => each.object === object && each.severity === 'error',
      );
      const ready = conditionsOf(kind, snapshot, view).find(({ type }) => type === 'Ready');
      assert.deepEqual(
        faults.map((each) => each.code),
        code === undefined ? [] : [code],
      );
      assert.equal(ready?.reason, code ?? 'ok');
      const [fault] = faults;
      if (fault === undefined || fix === undefined) return;
      assert.match(fault.fix, fix);
      assert.equal(ready?.message, `${fault.text} ${fault.fix}`);
    });
  }
});
