import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { defaultConfig } from '../../../src/kubectl/cluster/agents.ts';
import {
  anyRequest,
  createClusterState,
  type PodRequest,
} from '../../../src/kubectl/cluster/cluster-state.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import {
  examinePod,
  hasEnded,
  hasExceptedLabel,
  namedClientId,
  podLabelsOf,
  wantsIdentity,
} from '../../../src/kubectl/findings/pods.ts';
import {
  clientA,
  clientB,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';
import { statusOf } from '../support/assess.ts';

const bound = { labels: { aadpodidbinding: 'orders' } };
const withClientId = (value: string) => ({
  spec: { containers: [{ name: 'main', env: [{ name: 'AZURE_CLIENT_ID', value }] }] },
});

function examine(pod: RawObject, changes: Partial<Snapshot> = {}, request = anyRequest) {
  const snapshot = createSnapshot({ pods: [pod], ...changes });
  const view = createClusterState(snapshot, defaultConfig, nowWallMs);
  const context = { snapshot, view, config: defaultConfig, knowsOptions: true };
  const report = examinePod(pod, context, request);
  return report?.findings ?? [];
}

const codesOf = (...args: Parameters<typeof examine>) => examine(...args).map(({ code }) => code);

describe('a pod', () => {
  it('that is bound correctly has no finding', () => {
    assert.deepEqual(
      codesOf(createPod('web', { ...bound, ...withClientId(clientA.toUpperCase()) })),
      [],
    );
  });

  it('that is refused has the answer of the agent, and its near miss as the fix', () => {
    const [finding] = examine(createPod('web', { labels: { aadpodidbinding: 'Orders' } }));
    assert.equal(finding?.code, 'binding_missing');
    assert.match(
      finding?.text ?? '',
      /^Identity not found: pod shop\/web has the label aadpodidbinding=Orders.*\(HTTP 400\)$/,
    );
    assert.match(
      finding?.fix ?? '',
      /^Did you mean "orders"\? Correct the label of the pod template\.$/,
    );
  });

  it('that is refused for a moment has the time after which SDKs retry', () => {
    const web = createPod('web', bound);
    const [finding] = examine(web, { pods: [web, createPod('twin', bound)] });
    assert.equal(finding?.code, 'pod_ambiguous');
    assert.match(finding.text, / \(HTTP 503, Retry-After 1s\)$/);
  });

  it('has a label with a typo, or one that resembles no selector', () => {
    const fixOf = (label: string) =>
      examine(createPod('web', { labels: { aadpodidbinding: label } }))[0]?.fix;
    assert.match(fixOf('oders') ?? '', /^Did you mean "orders"\?/);
    assert.match(fixOf('stock') ?? '', /^Create one: /);
  });

  it('names an identity in AZURE_CLIENT_ID that it is not bound to', () => {
    const [finding] = examine(createPod('web', { ...bound, ...withClientId(clientB) }));
    assert.equal(finding?.code, 'selector_not_bound');
    assert.equal(
      finding?.fix,
      `Set AZURE_CLIENT_ID to ${clientA} in the pod template, or remove it there.`,
    );
    assert.deepEqual(finding.details, [`orders has ${clientA}`]);
  });

  it('has a fix that can be typed', () => {
    const labeled = createPod('web', bound);
    const fix = (changes: Partial<Snapshot>) => examine(labeled, changes)[0]?.fix ?? '';
    assert.equal(
      fix({ bindings: [] }),
      'Create one: kubectl nmi identity assign IDENTITY -n shop --selector orders --apply',
    );
    assert.match(fix({ identities: [] }), /^Create it: kubectl nmi identity add orders -n shop/);
    assert.equal(
      fix({ identities: [createIdentity('order')] }),
      'Did you mean AzureIdentity "order"? Correct spec.azureIdentity.',
    );
    const limited = createBinding('orders', {
      azureIdentity: 'orders',
      selector: 'orders',
      serviceAccount: 'robot',
    });
    assert.match(
      fix({ bindings: [limited] }),
      /^Run the pod under "robot", or change spec\.serviceAccount\.$/,
    );
  });

  it('names an identity, or several, by AZURE_CLIENT_ID', () => {
    assert.equal(namedClientId(createPod('web', withClientId(clientA))), clientA);
    assert.equal(namedClientId(createPod('web')), undefined);
    const env = (value: string) => ({ name: value, env: [{ name: 'AZURE_CLIENT_ID', value }] });
    assert.equal(
      namedClientId(createPod('web', { spec: { containers: [env(clientA), env(clientB)] } })),
      undefined,
    );
    for (const other of [
      { name: 'AZURE_CLIENT_ID', valueFrom: {} },
      { name: 'HOME', value: '/' },
    ]) {
      const spec = { containers: [{ name: 'main', env: [other] }] };
      assert.equal(namedClientId(createPod('web', { spec })), undefined);
    }
    const use = { labels: { 'azure.workload.identity/use': 'true' } };
    assert.equal(namedClientId(createPod('web', { ...use, ...withClientId(clientA) })), undefined);
  });

  it('names an identity in AZURE_CLIENT_ID and has no label', () => {
    assert.deepEqual(codesOf(createPod('web', withClientId(clientA))), [
      'no_binding_label',
      'client_id_without_binding',
    ]);
    const labels = { aadpodidbinding: 'stock' };
    assert.deepEqual(codesOf(createPod('web', { labels, ...withClientId(clientA) })), [
      'binding_missing',
    ]);
  });

  it('is kept from the agent by a network policy, unless it is on the host network', () => {
    const policies = [
      createObject('NetworkPolicy', 'deny', { podSelector: {}, policyTypes: ['Egress'] }),
    ];
    assert.deepEqual(codesOf(createPod('web', bound), { policies }), ['network_policy']);
    assert.deepEqual(
      codesOf(createPod('web', { ...bound, spec: { hostNetwork: true } }), { policies }),
      [],
    );
  });

  it('is set up for Workload Identity too, or only half', () => {
    const labels = { 'azure.workload.identity/use': 'true' };
    const account = (annotations: Record<string, string>) => ({
      accounts: [createObject('ServiceAccount', 'default', {}, { annotations })],
    });
    const full = account({ 'azure.workload.identity/client-id': clientB });
    const both = createPod('web', { labels: { ...labels, aadpodidbinding: 'orders' } });
    for (const [changes, application] of [
      [full, ` (${clientB})`],
      [{}, ''],
    ] as const) {
      const findings = examine(both, changes);
      assert.deepEqual(
        findings.map(({ code }) => code),
        ['workload_identity_too'],
      );
      const end = `take the application of its service account${application} first.`;
      assert.equal(findings[0]?.text.split('SDKs ')[1], end);
    }
    const incomplete = ['no_binding_label', 'workload_identity_incomplete'];
    assert.deepEqual(codesOf(createPod('web', { labels }), account({})), incomplete);
    assert.deepEqual(codesOf(createPod('web', { labels }), full), ['no_binding_label']);
    const annotations = { 'azure.workload.identity/client-id': clientB };
    const others = [
      createObject('ServiceAccount', 'other', {}, { annotations }),
      createObject('ServiceAccount', 'default', {}, { annotations, namespace: 'x' }),
      ...account({}).accounts,
    ];
    assert.deepEqual(codesOf(createPod('web', { labels }), { accounts: others }), incomplete);
  });

  it('has a binding and an exception that comes first', () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'e', { podLabels: { app: 'web' } }),
    ];
    const labels = { aadpodidbinding: 'orders', app: 'web' };
    assert.deepEqual(codesOf(createPod('web', { labels }), { exceptions }), [
      'exception_before_binding',
    ]);
    const [first] = examine(createPod('web', { labels }), { exceptions });
    assert.match(
      first?.text ?? '',
      /^(?!.*gets)/,
      'with --identity-owners=enforce it may get nothing',
    );
    assert.deepEqual(codesOf(createPod('web', { labels }), { exceptions, bindings: [] }), []);
  });

  it('has the labels of an exception of another namespace', () => {
    const exceptions = [
      createObject(
        'AzurePodIdentityException',
        'e',
        { podLabels: { app: 'web' } },
        { namespace: 'x' },
      ),
    ];
    const findings = examine(createPod('web', { labels: { app: 'web' } }), { exceptions });
    assert.deepEqual(
      findings.map(({ code }) => code),
      ['no_binding_label', 'exception_elsewhere'],
    );
    assert.match(
      findings[1]?.fix ?? '',
      /^Create one in namespace shop, with spec\.podLabels app=web\.$/,
    );
    assert.deepEqual(codesOf(createPod('web', { labels: { app: 'db' } }), { exceptions }), [
      'no_binding_label',
    ]);
    const served = createPod('web', { labels: { ...bound.labels, app: 'web' } });
    assert.deepEqual(codesOf(served, { exceptions }), []);
  });

  it('has the address of another pod, against which its own exception does not help', () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'e', { podLabels: { app: 'web' } }),
    ];
    const web = createPod('web', { labels: { app: 'web' } });
    const pods = [web, createPod('twin')];
    assert.deepEqual(codesOf(web, { exceptions, pods }), ['pod_ambiguous']);
  });

  it('has several identities: which one it gets, and which one it never gets', () => {
    const identities = [
      createIdentity('orders'),
      createIdentity('twin'),
      createIdentity('zebra', { clientID: clientB }),
    ];
    const bindings = identities.map((each, index) =>
      createBinding(`b${index}`, {
        azureIdentity: (each['metadata'] as { name: string }).name,
        selector: 'orders',
      }),
    );
    const changes = { identities, bindings };
    assert.deepEqual(codesOf(createPod('web', bound), changes), [
      'client_id_twice',
      'identity_by_age',
    ]);
    assert.deepEqual(codesOf(createPod('web', { ...bound, ...withClientId(clientB) }), changes), [
      'client_id_twice',
    ]);
  });

  it('is warned of an identity that is not ready, which is an error if it gets that one', () => {
    const status = statusOf('False', 'credential_missing');
    const identities = [
      createIdentity('orders'),
      { ...createIdentity('zebra', { clientID: clientB }), status },
    ];
    const bindings = [
      createBinding('orders'),
      createBinding('zebra', { azureIdentity: 'zebra', selector: 'orders' }),
    ];
    const severityFor = (selector: PodRequest['selector']) =>
      examine(createPod('web', bound), { identities, bindings }, { selector, resource: undefined })
        .filter(({ code }) => code === 'credential_missing')
        .map(({ severity }) => severity);
    assert.deepEqual(severityFor({ kind: 'none' }), ['warning']);
    assert.deepEqual(severityFor({ kind: 'client_id', value: clientB }), ['error']);
  });

  it('is not warned of the status of an identity that nothing can use', () => {
    const unusable = createIdentity('orders', { clientID: clientA, type: 7 });
    const identities = [{ ...unusable, status: statusOf('False', 'credential_missing') }];
    assert.deepEqual(codesOf(createPod('web', bound), { identities }), ['identity_unsupported']);
  });

  it('is for Windows by its system or by its node selector', () => {
    for (const spec of [
      { os: { name: 'windows' } },
      { nodeSelector: { 'kubernetes.io/os': 'windows' } },
    ]) {
      assert.deepEqual(codesOf(createPod('web', { ...bound, spec })), ['pod_on_windows']);
    }
    const linux = { os: { name: 'linux' }, nodeSelector: { 'kubernetes.io/os': 'linux' } };
    assert.deepEqual(codesOf(createPod('web', { ...bound, spec: linux })), []);
  });

  it('has ended when it has failed or succeeded', () => {
    const hasEndedIn = (phase: string) => hasEnded({ ...createPod('web'), status: { phase } });
    assert.deepEqual(['Failed', 'Succeeded', 'Running', 'Pending'].map(hasEndedIn), [
      true,
      true,
      false,
      false,
    ]);
  });

  it('with a label only on its owner gets that as a finding', () => {
    const owner = { kind: 'StatefulSet', name: 'web' };
    const workloads = [
      createObject(
        'StatefulSet',
        'web',
        { template: {} },
        { labels: { aadpodidbinding: 'orders' } },
      ),
    ];
    assert.deepEqual(codesOf(createPod('web-0', { owner }), { workloads }), [
      'label_on_owner',
      'no_binding_label',
    ]);
  });

  it('wants an identity if any of its fields shows it', () => {
    const wants = (pod: RawObject) => wantsIdentity(pod, examine(pod));
    assert.equal(wants(createPod('web')), false);
    assert.equal(wants(createPod('web', bound)), true);
    assert.equal(wants(createPod('web', withClientId(clientA))), true);
    assert.equal(wants(createPod('web', { labels: { AadPodIdBinding: 'orders' } })), true);
  });

  it('that no agent would accept as a pod has no report', () => {
    assert.deepEqual(examine({ metadata: { name: 'x' } }), []);
  });
});

describe('a command in a fix', () => {
  it('runs nothing from the names in another user’s objects', () => {
    const hostile = '$(id)';
    const [missing] = examine(createPod('web', bound), {
      identities: [],
      bindings: [
        createObject('AzureIdentityBinding', 'b', { azureIdentity: hostile, selector: 'orders' }),
      ],
    });
    assert.match(missing?.fix ?? '', /identity add NAME -n shop/);
  });
});

describe('a stored exception', () => {
  const pod = createPod('web', { labels: { app: 'Proxy' } });
  const exception = (podLabels: unknown) =>
    createObject('AzurePodIdentityException', 'x', { podLabels });

  it('names a label of a pod as the agent compares them', () => {
    assert.ok(hasExceptedLabel(pod, exception({ app: 'proxy', tier: 'x' })));
    assert.ok(!hasExceptedLabel(pod, exception({ app: 'other' })));
    assert.ok(!hasExceptedLabel(pod, exception({})));
  });

  it('has the labels that are texts', () => {
    assert.deepEqual([...podLabelsOf(exception({ app: 'a', n: 1 }))], [['app', 'a']]);
    assert.deepEqual([...podLabelsOf(exception(undefined))], []);
  });
});
