import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { stringAt } from '../../../src/base/json-value.ts';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import {
  labelsOf,
  nameOf,
  specOf,
  statusOf,
  templateOf,
  titleOf,
  type RawObject,
} from '../../../src/kubectl/base/object.ts';
import { defaultConfig, versionOf, viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { findIdentity, readBound } from '../../../src/kubectl/cluster/bound.ts';
import { createClusterState } from '../../../src/kubectl/cluster/cluster-state.ts';
import { readCredentialTarget, readIssuer } from '../../../src/kubectl/cluster/issuer.ts';
import { parseManifests } from '../../../src/kubectl/cluster/manifests.ts';
import { applyTo, emptySnapshot } from '../../../src/kubectl/findings/applied.ts';
import { askRight, everywhere } from '../../../src/kubectl/cluster/rights.ts';
import {
  readSourceReports,
  reportKey,
  sourceReportsOf,
} from '../../../src/kubectl/cluster/source-reports.ts';
import {
  countUnread,
  describeUnread,
  mergeUnread,
  renderUnread,
  type Unread,
} from '../../../src/kubectl/cluster/unread.ts';
import {
  agentSet,
  bound,
  boundTestBed,
  clientA,
  createAgentPod,
  createBinding,
  createEvent,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  failed,
  kinds,
  nowWallMs,
  ok,
  openKubectl,
  ordersId,
  play,
  serverAnswers,
  tenant,
  type EventFields,
  type Played,
  type Recorded,
} from './recorded-kubectl.ts';

const agent = createAgentPod('node-1');
const web = createPod('web', bound);

describe('the agent of a node', () => {
  const of = (container: object, name = 'nmi') =>
    viewAgent(createPod('nmi', { spec: { containers: [{ name, ...container }] } }));

  it('is read from its pod: node, state, version, options', () => {
    const args = ['--node=$(NODE_NAME)', '--strict-identity', '--cloud=china'];
    const view = viewAgent(createAgentPod('node-1', { args }));
    const { node, isReady, isOldNmi, config } = view;
    assert.deepEqual([node, isReady, isOldNmi, versionOf(view)], ['node-1', true, false, '0.1.0']);
    assert.deepEqual([config?.strictIdentity, config?.cloud], [true, 'china']);
    assert.notEqual(defaultConfig.strictIdentity, true);
    const unknown = viewAgent(createAgentPod('n', { args: ['--no-such-flag=1'] }));
    assert.equal(unknown.config, undefined, 'they are of another program');
  });

  it('is not ready with the kubelet’s reason for its container, or for the pod', () => {
    const problemOf = (state: object) =>
      viewAgent(createPod('nmi', { status: { containerStatuses: [{ state }] } })).problem;
    const waiting = { reason: 'ImagePullBackOff', message: 'no such image' };
    assert.equal(problemOf({ waiting }), 'ImagePullBackOff: no such image');
    assert.equal(problemOf({ running: {} }), 'phase Running');
    assert.match(viewAgent(createAgentPod('n', { isReady: false })).problem, /unready status/);
  });

  it('has the options of its variables, but not of empty ones', () => {
    const env = [
      { name: 'NMI_CLOUD', value: 'china' },
      { name: 'NMI_IDENTITY_OWNERS', value: '' },
      { name: 'NMI_STRICT_IDENTITY', valueFrom: {} },
    ];
    assert.deepEqual(of({ env }).config, { ...defaultConfig, cloud: 'china' });
  });

  it('is recognized as the old NMI by its image, if no label says otherwise', () => {
    const old = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
    const pushed = 'host:5000/nmi:1.2.3';
    for (const [view, isOld, version] of [
      [viewAgent(createAgentPod('n', { image: old })), true, 'v1.8.17'],
      [viewAgent(createAgentPod('n', { image: pushed })), false, '1.2.3'],
      [of({ image: pushed }), true, '1.2.3'],
      [of({ image: 'example/entra-pod-identity:0.1.0' }), false, '0.1.0'],
    ] as const) {
      assert.deepEqual([view.isOldNmi, versionOf(view)], [isOld, version]);
    }
    assert.equal(versionOf({ image: 'host:5000/nmi@sha256:abc' }), 'host:5000/nmi@sha256:abc');
  });
});

describe('the pods of an identity', () => {
  it('have the label, and the service account, of one of its bindings, each once', async () => {
    const orders = { azureIdentity: 'orders', selector: 'orders' };
    for (const [specs, expected] of [
      [
        [orders, orders],
        ['web', 'robot'],
      ],
      [[{ ...orders, selector: 'Orders' }], []],
      [[{ ...orders, serviceAccount: 'robot' }], ['robot']],
      ...['', 7, undefined].map((selector) => [[{ ...orders, selector }], []] as const),
    ] as const) {
      const other = createBinding('other', { azureIdentity: 'other', selector: 'plain' });
      const lists: Readonly<Record<string, readonly RawObject[]>> = {
        azureidentities: [createIdentity('orders')],
        azureidentitybindings: [...specs.map((spec) => createBinding('b', spec)), other],
        pods: [
          web,
          createPod('robot', { ...bound, spec: { serviceAccountName: 'robot' } }),
          createPod('plain', { labels: { aadpodidbinding: 'plain' } }),
          createPod('empty', { labels: { aadpodidbinding: '' } }),
        ],
      };
      const { kubectl } = openKubectl(([, path = '']) =>
        ok(JSON.stringify({ items: lists[path.split('/').at(-1) ?? ''] })),
      );
      const { pods } = await findIdentity(kubectl, 'shop', 'orders');
      assert.deepEqual(pods.map(nameOf), expected);
    }
  });

  it('that cannot be read are named with their namespace, or all namespaces', async () => {
    const { kubectl } = openKubectl(failed('no'));
    await assert.rejects(readBound(kubectl, 'shop'), /list azureidentit\S+ in namespace shop/);
    await assert.rejects(readBound(kubectl, undefined), /list azureidentit\S+ in all namespaces/);
  });
});

describe('a snapshot as the agent sees it', () => {
  it('ignores the objects that the agent ignores, and has no other pods', () => {
    const identities = [createIdentity('orders'), createIdentity('broken', { type: 'x' })];
    const view = createClusterState(createSnapshot({ identities }), defaultConfig, nowWallMs);
    assert.deepEqual(
      view.unusable.map(({ kind, title, reason }) => `${kind} ${title} ${reason}`),
      ['AzureIdentity shop/broken spec.type is not an integer'],
    );
    assert.equal(view.explainPod(createPod('x')), undefined);
  });

  it('knows the redirect of an agent only if its option names it', () => {
    for (const [redirect, mode] of [
      ['auto', 'unknown'],
      ['pinned', 'unknown'],
      ['iptables', 'iptables'],
      ['ebpf', 'ebpf'],
    ] as const) {
      const config = { ...defaultConfig, redirect };
      const view = createClusterState(createSnapshot(), config, nowWallMs);
      assert.equal(view.explainPod(web)?.node.redirect.mode, mode);
    }
  });
});

describe('the issuer of service account tokens', () => {
  const read = (text: string) => readIssuer(openKubectl(ok(text)).kubectl);

  it('is one that Entra ID can read, and nothing that az takes for a file or two words', async () => {
    const issuer = 'https://oidc.example/1/';
    assert.equal(await read(JSON.stringify({ issuer })), issuer);
    for (const wrong of ['http://x/', 'kubernetes.default.svc', '@file', 'https://x y', '']) {
      await assert.rejects(read(JSON.stringify({ issuer: wrong })), {
        message: 'the cluster has no issuer that Entra ID could read',
      });
    }
    await assert.rejects(read('no JSON'));
  });

  it('has the audience of the agents: their own, or that of their cloud', async () => {
    const { kubectl } = openKubectl(ok('{"issuer":"https://oidc.example/"}'));
    const usual = 'api://AzureADTokenExchange';
    for (const [arg, audience, legAudience] of [
      ['--cloud=usgovernment', `${usual}USGov`, `${usual}USGov`],
      // Entra ID takes no other for a managed identity.
      ['--entra-audience=api://corp', 'api://corp', usual],
    ] as const) {
      const agents = [viewAgent(createAgentPod('node-1', { args: [arg] }))];
      const target = await readCredentialTarget(kubectl, agents);
      const { notes, ...of } = target;
      assert.deepEqual([of.audience, of.legAudience, notes], [audience, legAudience, []]);
    }
    const assumed = await readCredentialTarget(kubectl, []);
    assert.deepEqual([assumed.issuer, assumed.audience], ['https://oidc.example/', usual]);
    assert.match(String(assumed.notes), /the audience is assumed/);
  });
});

describe('manifests in a file', () => {
  const snapshotOf = (text: string) => {
    const objects = parseManifests('f', text, 'shop');
    return applyTo(emptySnapshot(objects), objects, nowWallMs);
  };
  const list = (items: readonly object[]) => snapshotOf(JSON.stringify({ kind: 'List', items }));

  it('are the objects that a cluster would have, with the pods of their workloads', () => {
    const manifest = `
kind: AzureIdentity
metadata: { name: a }
---
# nothing
---
kind: List
items:
  - { kind: AzureIdentityBinding, metadata: { name: b, namespace: x } }
  - { kind: CronJob, metadata: { name: c }, spec: { jobTemplate: { spec: { template: { metadata: { labels: { l: v } } } } } } }
  - { kind: Deployment, metadata: { name: d }, spec: { template: {} } }
`;
    const { identities, bindings, pods } = snapshotOf(manifest);
    assert.deepEqual(identities.map(titleOf), ['shop/a']);
    assert.deepEqual(bindings.map(titleOf), ['x/b']);
    assert.deepEqual(pods.map(titleOf), ['shop/c (CronJob)', 'shop/d (Deployment)']);
    assert.equal(labelsOf(pods[0] ?? {}).get('l'), 'v');
  });

  it('have no namespace in a grant, which is of the cluster', () => {
    for (const [metadata, expected] of [
      [[{ name: 'a' }], ['a']],
      [
        [{ name: 'a' }, { name: 'b', namespace: 'x' }],
        ['a', 'b'],
      ],
      // The cluster may have some.
      [[], undefined],
    ] as const) {
      const items = metadata.map((each) => ({ kind: 'AzureIdentityGrant', metadata: each }));
      assert.deepEqual(list(items).grants?.map(titleOf), expected);
    }
  });

  it('have an address for each of many workloads', () => {
    const { pods } = list(
      Array.from({ length: 300 }, (_, at) => ({
        kind: 'Deployment',
        metadata: { name: `d${at}` },
      })),
    );
    const ips = pods.map((pod) => stringAt(statusOf(pod), 'podIP'));
    assert.equal(new Set(ips).size, 300);
    assert.ok(ips.every(isIPv4), ips.join());
  });

  it('are refused with the line that is not YAML', () => {
    assert.throws(() => parseManifests('f.yaml', 'a: [', 'shop'), /f\.yaml is no YAML: .*line 1/);
  });
});

interface Report {
  readonly verdict: string;
  readonly summary: string;
  readonly findings: readonly { readonly code: string; readonly details: readonly string[] }[];
  readonly unread: readonly {
    readonly what: string;
    readonly why: string;
    readonly loses: string;
  }[];
}

async function reported(words: string, recorded: Recorded): Promise<Report> {
  const { stdout, stderr } = await play(`${words} -o json`, recorded);
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout) as Report;
}

const hide = (...all: readonly string[]) =>
  Object.fromEntries(all.map((kind) => [kind, 'everywhere'] as const));
const explain = 'explain pod web';
const ofKinds = [kinds.identities, kinds.bindings, kinds.exceptions];

describe('reading', () => {
  for (const [words, ofPods] of [
    [explain, 'get'],
    ['analyze', 'list'],
  ] as const) {
    it(`for ${words} needs pods and the three kinds, and names the rule and the definitions`, async () => {
      for (const kind of ['pods', ...ofKinds]) {
        const recorded = { ...boundTestBed(), forbidden: hide(kind) };
        const { code, stderr } = await play(words, recorded);
        assert.equal(code, 77, kind);
        const verb = kind === 'pods' ? ofPods : 'list';
        assert.match(stderr, new RegExp(`RBAC rule: .*"${verb}"\\] in namespace shop`));
      }
      const old = await play(words, { ...boundTestBed(), missing: [kinds.bindings] });
      assert.equal(old.code, 1);
      assert.match(
        old.stderr,
        /does not have this kind of object\nInstall the custom resource definitions/,
      );
    });
  }

  it('needs nothing else, and reports what is unknown without it', async () => {
    const ofOwners = ['statefulsets.apps', 'jobs.batch', 'cronjobs.batch'];
    const others = [kinds.policies, kinds.deployments, kinds.daemonSets, 'serviceaccounts'];
    const far = { [kinds.identities]: 'all-namespaces', pods: 'other-namespaces' } as const;
    for (const [changes, lost] of [
      [
        { forbidden: hide(...ofOwners, ...others) },
        ['network policies', 'owners of pods', 'service accounts'],
      ],
      [{ forbidden: far }, ['objects of other namespaces', 'options and state of the agents']],
      [{ missing: ['cronjobs.batch'] }, ['owners of pods']],
    ] as const) {
      const recorded = { ...boundTestBed(), ...changes };
      const { unread } = await reported('analyze', recorded);
      assert.deepEqual(unread.map(({ loses }) => loses).toSorted(), lost);
      assert.equal((await play('analyze', recorded)).code, 0);
    }
    // One rule for the kinds of a group, and every kind in a rule.
    const hidden = { ...boundTestBed(), forbidden: hide(...ofOwners) };
    const [owners] = (await reported('analyze', hidden)).unread;
    assert.equal(owners?.what, 'list cronjobs.batch, list jobs.batch, list statefulsets.apps');
    assert.equal(
      owners.why,
      'no right; RBAC rule: apiGroups: ["batch"], resources: ["cronjobs", "jobs"], verbs: ["list"] in namespace shop; ' +
        'apiGroups: ["apps"], resources: ["statefulsets"], verbs: ["list"] in namespace shop',
    );
    const lacking = { ...boundTestBed(), missing: [kinds.grants] };
    const { verdict, unread } = await reported(explain, lacking);
    assert.equal(verdict, 'granted');
    assert.match(unread.at(-1)?.why ?? '', /the server does not have this kind of object/);
  });

  it('for one pod is of the namespace of the context, and of its node', async () => {
    const other = createPod('web', { ...bound, namespace: 'other' });
    const { stderr } = await play(explain, boundTestBed({ pods: [other, agent] }));
    assert.match(stderr, /^error: namespace shop has no pod web\n/);
    for (const [nodeName, forbidden, summary] of [
      ['node-1', {}, /^gets 503 pod_ambiguous$/],
      [
        'node-1',
        { pods: 'other-namespaces', [kinds.grants]: 'everywhere' },
        /^gets 503 pod_ambiguous$/,
      ],
      // An agent knows the pods of its node.
      ['node-2', {}, /^gets a token/],
    ] as const) {
      const pods = [web, createPod('twin', { ...bound, spec: { nodeName } }), agent];
      const found = await reported(explain, { ...boundTestBed({ pods }), forbidden });
      assert.match(found.summary, summary);
    }
  });

  it('finds what is meant in other namespaces, if the pod is refused', async () => {
    const far = createBinding('far', undefined, { namespace: 'other' });
    const recorded = boundTestBed({ [kinds.bindings]: [far] });
    const [finding] = (await reported(explain, recorded)).findings;
    assert.match(String(finding?.details), /AzureIdentityBinding other\/far has that selector/);
    const forbidden = { [kinds.bindings]: 'all-namespaces' } as const;
    const { unread } = await reported(explain, { ...recorded, forbidden });
    assert.equal(unread.map(({ loses }) => loses).join(), 'objects of other namespaces');
  });

  it('looks at the node if no agent is there: none runs on Windows', async () => {
    const nodes = [{ metadata: { name: 'node-1', labels: { 'kubernetes.io/os': 'windows' } } }];
    for (const [of, changes, code, losesNodes] of [
      [nodes, {}, 'pod_on_windows', false],
      [nodes, { forbidden: hide('nodes') }, 'agent_missing', true],
      // The pod has outlived its node.
      [[], {}, 'agent_missing', false],
    ] as const) {
      const recorded = { ...boundTestBed({ pods: [web], nodes: of }), ...changes };
      const { findings, unread } = await reported(explain, recorded);
      assert.equal(findings.map((each) => each.code).join(), code);
      assert.equal(
        unread.some(({ loses }) => loses === 'nodes'),
        losesNodes,
      );
    }
  });

  it('verifies agents by the DaemonSets of their namespace if it may list no others', async () => {
    const forbidden = { [kinds.daemonSets]: 'all-namespaces' } as const;
    const { code, stderr } = await play(explain, { ...boundTestBed(), forbidden });
    assert.deepEqual([code, stderr], [0, '']);
  });
});

describe('a right', () => {
  const list = { verb: 'list', resource: 'pods' };
  const no = { code: 1, stdout: 'no - no RBAC policy matched\n', stderr: '' };

  it('is yes, no, unknown, or that of the agent’s own node', async () => {
    const [yes, late] = [ok('yes\n'), failed('error: timed out')];
    for (const [answers, right, kind] of [
      [[yes], list, 'yes'],
      [[no], list, 'no'],
      [[late], list, 'unknown'],
      [[{ code: undefined, stdout: '', stderr: '' }], list, 'unknown'],
      [[no, yes], { ...list, mayBeAsNode: true }, 'as_node'],
      [[no, no], { ...list, mayBeAsNode: true }, 'no'],
      [[no, late], { ...list, mayBeAsNode: true }, 'unknown'],
    ] as readonly (readonly [readonly ProgramRun[], typeof list, string])[]) {
      const { kubectl, calls } = openKubectl(answers);
      const answer = await askRight(kubectl, right, everywhere);
      assert.deepEqual([answer.kind, answer.right, calls.length], [kind, right, answers.length]);
      assert.equal(calls[1]?.[3] ?? '', calls[1] ? 'impersonate-on:associated-node:list' : '');
    }
  });

  it('is asked for in all namespaces, one, or the current one, and with a subresource', async () => {
    const { kubectl, calls } = openKubectl(ok('yes'));
    await askRight(kubectl, list, everywhere);
    await askRight(kubectl, list, ['--namespace=shop'], 'robot');
    await askRight(kubectl, { verb: 'create', resource: 'serviceaccounts/token' }, []);
    assert.deepEqual(
      calls.map((args) =>
        args
          .slice(3)
          .join(' ')
          .replace(/ --request-timeout=\S+/, ''),
      ),
      [
        'list pods --all-namespaces',
        'list pods --namespace=shop --as=robot',
        'create serviceaccounts --subresource=token',
      ],
    );
  });
});

describe('reports of agents about sources', () => {
  const orders = createIdentity('orders');
  const reason = 'CredentialRefused';
  const key = reportKey('AzureIdentity', 'shop', 'uid-shop-orders');
  const reportsOf = (...events: readonly RawObject[]) => sourceReportsOf(events, nowWallMs);
  const of = (fields: Partial<EventFields>) =>
    reportsOf(createEvent(orders, { reason, ...fields })).get(key)?.[0];

  it('are Events of our reporter, with a reason of the table and its type, of the last hour', () => {
    assert.deepEqual(of({ note: 'Entra ID refuses it. Fix: Renew it.' }), {
      code: 'credential_refused',
      atWallMs: nowWallMs - 60_000,
      node: 'node-1',
      identityUid: '',
      cachedUntil: undefined,
      text: 'Entra ID refuses it.',
      fix: undefined,
    });
    const down = of({ reason: 'UpstreamDown', note: 'It is silent. Fix: Open login.example:443.' });
    assert.deepEqual([down?.text, down?.fix], ['It is silent.', 'Open login.example:443.']);
    assert.equal(of({ reason: 'IdentityAccepted' })?.code, 'accepted');
    assert.ok(of({ agoMs: 3_599_000 }));
    assert.ok(of({ agoMs: 299_000, reason: 'FederationPending' }));
    const namespace = 'other';
    const creationTimestamp = new Date(nowWallMs).toISOString();
    for (const fields of [
      { agoMs: 3_601_000 },
      { agoMs: 301_000, reason: 'FederationPending' },
      { reason: 'BindingMissing' },
      { reason: 'constructor' },
      { changes: { type: 'Normal' } },
      { reason: 'IdentityAccepted', changes: { type: 'Warning' } },
      { changes: { reportingComponent: 'kubelet' } },
      { changes: { eventTime: 'x' } },
      { changes: { metadata: { namespace: 'shop' } } },
      { changes: { involvedObject: { kind: 'Node', uid: 'uid-shop-orders' } } },
      // About objects of their own namespace.
      { changes: { metadata: { namespace, creationTimestamp } } },
    ]) {
      assert.equal(of(fields), undefined, JSON.stringify(fields));
    }
  });

  it('have no time after that of the server, who alone cannot be lied to', () => {
    const eventTime = new Date(nowWallMs + 1e9).toISOString();
    assert.equal(of({ changes: { eventTime } })?.atWallMs, nowWallMs - 59_000);
  });

  it('name the identity that an Event about a pod is related to', () => {
    const pod = createPod('web');
    for (const [related, uid] of [
      [orders, 'uid-shop-orders'],
      [pod, ''],
    ] as const) {
      const reports = reportsOf(createEvent(pod, { reason, related }));
      const [report] = reports.get(reportKey('Pod', 'shop', 'uid-shop-web')) ?? [];
      assert.equal(report?.identityUid, uid);
    }
  });

  it('say until when cached tokens are valid, while they are', () => {
    const until = (time: string) =>
      of({ note: `Cached tokens are valid until ${time}.` })?.cachedUntil;
    assert.equal(until('2026-11-27T06:00:01Z'), '2026-11-27T06:00:01Z');
    for (const time of ['2026-11-27T06:00:00Z', 'tomorrow']) assert.equal(until(time), undefined);
  });

  it('are short lines, whatever was written', () => {
    const report = of({ note: `a\u001b[31m\nb\u202e${'x'.repeat(9_999)}`, node: '\u0007n' });
    assert.match(report?.text ?? '', /^a\?\[31m\?b\?x{200,}$/);
    assert.deepEqual([report?.text.length, report?.node], [300, '?n']);
  });

  it('are read by one bounded call, which the server filters', async () => {
    const forbidden =
      'Error from server (Forbidden): events is forbidden: User "dev" cannot list resource "events" in API group "" in the namespace "shop"';
    const query = '?fieldSelector=reportingComponent%3Dentra-pod-identity%2Fnmi&limit=5000';
    const rule =
      'no right; RBAC rule: apiGroups: [""], resources: ["events"], verbs: ["list"] in namespace shop';
    const read = (place: string) =>
      `list events (kubectl get events ${place} --field-selector=reportingComponent=entra-pod-identity/nmi): ${rule}`;
    for (const [scope, count, stderr, path, expected] of [
      ['shop', 1, '', '/api/v1/namespaces/shop/events', [1]],
      [
        undefined,
        5_000,
        '',
        '/api/v1/events',
        [
          5_000,
          'read all Events of the agents: there are more than 5000; -n reads those of one namespace',
        ],
      ],
      ['shop', 0, forbidden, '/api/v1/namespaces/shop/events', [undefined, read('-n shop')]],
      [undefined, 0, forbidden, '/api/v1/events', [undefined, read('-A')]],
    ] as const) {
      const unread: Unread[] = [];
      const items = Array.from({ length: count }, () => createEvent(orders, { reason }));
      const stdout = JSON.stringify({ kind: 'EventList', apiVersion: 'v1', items });
      const { kubectl, calls } = openKubectl({ code: stderr === '' ? 0 : 1, stdout, stderr });
      const reports = await readSourceReports(kubectl, scope, nowWallMs, unread);
      const lost = unread.map(({ what, why }) => `${what}: ${why}`);
      assert.deepEqual([reports?.get(key)?.length, ...lost], expected);
      assert.equal(calls[0]?.[2], `--raw=${path}${query}`);
    }
  });
});

/** A user who may create a pod can give it the agents' label: no verb may take it for an agent. */
const labels = { component: 'nmi', tier: 'node' };

/** A pod of a user, as much like an agent as its author can make it. */
function createForgery(namespace: string) {
  const args = ['--entra-audience=evil', '--cloud=china', '--strict-identity'];
  const containers = [{ name: 'nmi', image: 'evil.example/steal:1', args }];
  return createPod(`forged-${namespace}`, {
    namespace,
    labels,
    ip: '10.244.9.9',
    spec: { nodeName: 'node-1', serviceAccountName: 'thief', containers },
    owner: { kind: 'DaemonSet', name: 'nmi', uid: 'uid-of-another', controller: true },
  });
}

const testName = `nmi-test-${nowWallMs.toString(36)}`;

/** The forged pods come first, as the API server sorts namespaces by name. */
function hostileBed(
  agents: readonly RawObject[] = [],
  changes: Recorded = {},
  forgeries = [createForgery('attack'), createForgery('kube-system')],
): Recorded {
  const robot = createPod('web', { ...bound, spec: { serviceAccountName: 'robot' } });
  const tested = createPod(testName, { status: { phase: 'Succeeded' } });
  const ids = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };
  return {
    other: (args, input) =>
      args[0] === 'logs' ? ok('successfully acquired a token\n') : serverAnswers(args, input),
    ...changes,
    objects: {
      ...boundTestBed().objects,
      pods: [...forgeries, ...agents, robot, tested],
      nodes: [{ kind: 'Node', metadata: { name: 'node-1' } }],
      [kinds.identities]: [
        createIdentity('orders', { ...ids, federation: 'pod' }),
        createIdentity('shared', { ...ids, federation: 'node' }),
      ],
      ...changes.objects,
    },
  };
}

describe('a pod that only looks like an agent', () => {
  /** Where a verb used it; its warning may name the namespace, and a dump the pod's logs. */
  const usesOf = ({ calls, inputs, stdout }: Played) =>
    [...calls.map((words) => words.join(' ')), ...inputs, stdout].filter((text) =>
      /forged|evil|thief|attack|China|strict/.test(text),
    );
  const warning =
    /^warning: ignored pods labelled component=nmi that no DaemonSet of agents in namespace kube-system controls: 1 in attack, 1 in kube-system\. Agents in another namespace need --agent-namespace\.$/gm;
  for (const words of [
    explain,
    'identity federate orders',
    'identity federate shared',
    'migrate to-workload-identity',
    'migrate to-federation --tenant-id contoso.example',
    'test --pod web',
    'sysdump',
    'doctor',
    'analyze',
  ]) {
    it(`is not used by ${words}, beside an agent or without one`, async () => {
      const played = await play(words, hostileBed([agent]));
      assert.deepEqual(usesOf(played), []);
      assert.equal([...played.stderr.matchAll(warning)].length, 1, played.stderr);
      assert.deepEqual(usesOf(await play(words, hostileBed())), []);
    });
  }

  it('gives neither image nor account nor options where there is no agent, or only the old NMI', async () => {
    const nobody = /no verified agent is (?:visible to you )?in namespace kube-system/;
    const old = createAgentPod('node-1', { image: 'example/aad-pod-identity/nmi:v1.8.17' });
    for (const words of ['test --pod web', 'identity federate shared']) {
      for (const bed of [hostileBed(), hostileBed([old])]) {
        const { code, stderr } = await play(words, bed);
        assert.equal(code, 2);
        assert.match(stderr, nobody);
        assert.match(stderr, /Give --image|--agent-namespace/);
      }
    }
    const { stdout } = await play(explain, hostileBed());
    assert.match(stdout, /^pod shop\/web: NOT READY, is not served: agent_missing$/m);
  });

  it('is counted by namespace, for five namespaces at most', async () => {
    const forgeries = Array.from({ length: 8 }, (_, at) => createForgery(`ns-${at}`));
    const { stderr } = await play('doctor', hostileBed([], {}, forgeries));
    assert.match(stderr, /1 in ns-3, 1 in ns-4 and 3 more namespaces\./);
    assert.equal((await play('doctor', hostileBed([agent], {}, []))).stderr, '');
  });
});

describe('the agents', () => {
  it('can be in another namespace, which the user names', async () => {
    const template = { metadata: { labels } };
    const set = createObject('DaemonSet', 'x', { template }, { namespace: 'identity' });
    const pod = createPod('nmi-x', {
      namespace: 'identity',
      labels,
      spec: { containers: [{ name: 'nmi', image: 'example/nmi-x:2' }] },
      owner: { kind: 'DaemonSet', name: 'x', uid: 'uid-identity-x', controller: true },
    });
    const objects = { [kinds.daemonSets]: [agentSet, set] };
    const recorded = hostileBed([pod], { objects });
    const { stdout, stderr } = await play('doctor --agent-namespace identity', recorded);
    assert.match(
      stdout,
      /^error +agents +0 ready of 1, on 1 nodes$[^]*Pod identity\/nmi-x: agent_not_ready/m,
    );
    assert.match(stderr, /namespace identity controls: 1 in attack, 1 in kube-system\./);
    assert.match((await play('doctor', recorded)).stdout, /Node node-1: agent_missing/);
  });

  it('need a DaemonSet of agents: the pods of another one are not theirs', async () => {
    const template = { metadata: { labels: {} } };
    const other = createObject('DaemonSet', 'nmi', { template }, { namespace: 'kube-system' });
    const objects = { [kinds.daemonSets]: [other] };
    const { stdout, stderr } = await play('doctor', hostileBed([agent], { objects }, []));
    assert.match(stdout, /Node node-1: agent_missing/);
    assert.match(stderr, /controls: 1 in kube-system\./);
  });

  it('are not the pods that open their nodes, of the manifest', async () => {
    const path = join(import.meta.dirname, '../../../deploy/open-nodes.yaml');
    const opener = templateOf(parse(await readFile(path, 'utf8')) as RawObject) ?? {};
    const spec = { ...specOf(opener), nodeName: 'node-1' };
    const recorded = hostileBed([{ ...agent, spec }], {}, []);
    const warns =
      /^warning: nodes with a pod that opens them \(uninstall\.openNodes, open-nodes\.yaml\) instead of an agent: 1\. Pods there get the node's identities from the real metadata service\.$/m;
    const { stdout, stderr } = await play('doctor', recorded);
    assert.match(
      stdout,
      /^error +agents +0 ready of 0, on 1 nodes$[^]*Node node-1: agent_missing/m,
    );
    assert.match(stderr, warns);
    assert.doesNotMatch(stderr, /ignored pods/);
    const explained = await play(explain, recorded);
    assert.match(explained.stdout, /^pod shop\/web: NOT READY, is not served: agent_missing$/m);
    assert.match(explained.stderr, warns);
  });
});

describe('agents that the user may see and not verify', () => {
  const forbidden = hide(kinds.daemonSets);
  const args = ['--cloud=usgovernment', '--strict-identity'];
  const seen = [createAgentPod('node-1', { args })];
  const blind = (words: string) =>
    play(words, hostileBed(seen, { forbidden }, [createForgery('attack')]));

  it('are read, and standard error names the right that would verify them', async () => {
    const { stdout, stderr } = await blind('doctor');
    assert.match(stdout, /^ok +agents +1 ready of 1, on 1 nodes$/m);
    assert.match(
      stderr,
      /^warning: cannot verify the agents: list daemonsets\.apps in namespace kube-system: .* Ask for this RBAC rule: apiGroups: \["apps"\], resources: \["daemonsets"\], verbs: \["list"\] in namespace kube-system$/m,
    );
    assert.match(stderr, /ignored pods .*: 1 in attack\./);
    const none = await play('doctor', hostileBed([], { forbidden }, []));
    assert.doesNotMatch(none.stderr, /cannot verify the agents/);
  });

  it('are not run, trusted, or entered', async () => {
    const tested = await blind('test --pod web');
    assert.deepEqual([tested.code, tested.inputs], [2, []]);
    assert.equal((await blind('identity federate shared')).code, 2);
    const { stdout } = await blind('identity federate orders');
    assert.match(stdout, /the audience is assumed to be the default one\./);
    assert.match(stdout, /--audiences api:\/\/AzureADTokenExchange\n/);
    const dumped = await blind('sysdump');
    assert.match(dumped.stdout, /nothing proves that the pod is an agent/);
    assert.ok(dumped.calls.every(([, verb]) => verb !== 'exec'));
  });

  it('are those of their namespace, for a user who may list no other pods', async () => {
    const recorded = hostileBed([agent], { forbidden: { pods: 'all-namespaces' } });
    const { stdout, stderr } = await play('doctor', recorded);
    assert.match(stdout, /^not checked +agents +1 ready of 1, /m);
    assert.match(stderr, /controls: 1 in kube-system\./);
  });
});

describe('what was not read', () => {
  const forbidden = (resource: string, loses: string) => {
    const rule = { verb: 'list', resource, namespace: 'shop' };
    return describeUnread(`list ${resource}`, { kind: 'forbidden', rule, detail: '' }, loses);
  };
  const rule = (apiGroup: string, ...names: readonly string[]) =>
    `no right; RBAC rule: apiGroups: ["${apiGroup}"], resources: ["${names.join('", "')}"], verbs: ["list"] in namespace shop`;

  it('is one entry for each loss, with every rule that would avoid it', () => {
    const policies = 'networkpolicies.networking.k8s.io';
    const other = { loses: 'owners', what: 'list jobs.batch', why: 'no such kind' };
    const [jobs, cronJobs] = ['jobs', 'cronjobs'].map((each) =>
      forbidden(`${each}.batch`, 'owners'),
    );
    assert.ok(jobs && cronJobs);
    for (const [unread, expected] of [
      [
        [jobs, forbidden(policies, 'policies'), cronJobs],
        [
          `list cronjobs.batch, list jobs.batch: ${rule('batch', 'cronjobs', 'jobs')}`,
          `list ${policies}: ${rule('networking.k8s.io', 'networkpolicies')}`,
        ],
      ],
      // Other reasons than a missing right stay apart.
      [
        [cronJobs, other],
        [`list cronjobs.batch: ${rule('batch', 'cronjobs')}`, 'list jobs.batch: no such kind'],
      ],
    ] as const) {
      const merged = mergeUnread(unread);
      assert.deepEqual(
        merged.map(({ what, why }) => `${what}: ${why}`),
        expected,
      );
    }
  });

  it('is one line with a count, or all of it', () => {
    const unread = [forbidden('jobs.batch', 'owners'), forbidden('nodes', 'nodes')];
    assert.deepEqual(countUnread(unread), ['Not checked (2; -v shows why): owners; nodes.']);
    assert.deepEqual(renderUnread(unread).slice(0, 4), [
      '',
      'Not checked:',
      '  owners',
      `    cannot list jobs.batch: ${rule('batch', 'jobs')}`,
    ]);
    assert.deepEqual([countUnread([]), renderUnread([])], [[], []]);
  });
});
