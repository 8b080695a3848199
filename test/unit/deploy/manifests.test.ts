/** The files of `deploy`, without helm: manifests, policies, and the chart's own files. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { renderFlags, renderSchema } from '../../../scripts/chart-schema.ts';
import { copies } from '../../../scripts/manifests.ts';
import { policiesAgainst } from '../../../src/kubectl/findings/network-policy.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { hasFlag, options } from '../../../src/nmi/config/options.ts';
import { cloudNames, cloudOf } from '../../../src/nmi/sources/entra/clouds.ts';
import { bindingAudience } from '../../../src/nmi/sources/entra/identity-use.ts';
import {
  agentOf,
  at,
  defaultOf,
  flagsOf,
  objectsOf,
  rightsOf,
  specOf,
  type KubeObject,
} from '../../cluster/chart/chart-render.ts';

const deploy = join(import.meta.dirname, '../../../deploy');
const read = (path: string): string => readFileSync(join(deploy, path), 'utf8');
const load = (path: string): readonly KubeObject[] => objectsOf(read(path));
const podOf = (path: string, kind = 'DaemonSet'): unknown =>
  at(specOf(load(path), kind), 'template.spec');

describe('the manifests', () => {
  it('start the agent with arguments that it accepts', () => {
    const agent = agentOf(load('nmi.yaml'));
    const parsed = parseConfig(flagsOf(agent), {});
    assert.ok(parsed.ok);
    assert.deepEqual(parsed.warnings, []);
    for (const [probe, path] of [
      ['livenessProbe', '/livez'],
      ['readinessProbe', '/readyz'],
    ] as const) {
      const { httpGet } = agent[probe] as { httpGet: unknown };
      assert.equal(at(httpGet, 'port'), parsed.config.probePort);
      assert.equal(at(httpGet, 'path'), path);
    }
  });

  it('run on every Linux node, on the host network, with three capabilities and no CPU limit', () => {
    const pod = podOf('nmi.yaml');
    for (const [field, value] of [
      ['hostNetwork', true],
      ['dnsPolicy', 'ClusterFirstWithHostNet'],
      ['tolerations', [{ operator: 'Exists' }]],
      ['priorityClassName', 'system-node-critical'],
      [
        'containers.0.securityContext.capabilities',
        { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW', 'BPF'] },
      ],
    ] as const) {
      assert.deepEqual(at(pod, field), value);
    }
    assert.deepEqual(Object.keys(at(pod, 'containers.0.resources.limits') as object), ['memory']);
  });

  it('start the new agent beside the old one where both share a folder for their slots', () => {
    for (const file of ['nmi.yaml', 'nmi-split.yaml']) {
      const volumes = at(podOf(file), 'volumes') as readonly unknown[];
      const shares = volumes.some((volume) => at(volume, 'name') === 'slots');
      const surge = at(specOf(load(file), 'DaemonSet'), 'updateStrategy.rollingUpdate.maxSurge');
      assert.equal(surge, shares ? 1 : 0, file);
    }
  });

  it('keep Services of the namespace out of the environment, from which options are read', () => {
    for (const file of ['nmi.yaml', 'nmi-split.yaml', 'open-nodes.yaml']) {
      assert.equal(at(podOf(file), 'enableServiceLinks'), false, file);
    }
  });

  it('keep the permissions of each part separate and minimal', () => {
    const roleOf = (file: string, name: string) =>
      rightsOf(load(file).filter(({ metadata }) => metadata.name === name));
    assert.deepEqual(roleOf('nmi.yaml', 'aad-pod-id-nmi-role').toSorted(), [
      'create events',
      'impersonate-on:associated-node:list+impersonate-on:associated-node:watch pods',
      'impersonate:associated-node nodes',
      'list+watch azureidentities+azureidentitybindings+azureidentitygrants+azurepodidentityexceptions',
      'list+watch pods',
    ]);
    assert.deepEqual(roleOf('nmi.yaml', 'aad-pod-id-nmi-conditions'), [
      'list+watch azureidentities+azureidentitybindings+azureidentitygrants',
      'patch azureidentities/status+azureidentitybindings/status',
      'get daemonsets nmi',
    ]);
    for (const [file, ...rights] of [
      ['rights-secrets.yaml', 'get secrets'],
      [
        'rights-federation.yaml',
        'impersonate-on:associated-node:create serviceaccounts/token',
        'get serviceaccounts',
      ],
      ['rights-federation-before-1.36.yaml', 'create serviceaccounts/token', 'get serviceaccounts'],
    ] as const) {
      const found = rightsOf(load(file)).filter((right) => !right.startsWith('request-'));
      assert.deepEqual(found, rights);
    }
  });

  it('let one Deployment, which is no agent, write status conditions', () => {
    const all = load('nmi.yaml');
    const { replicas, strategy, selector } = specOf(all, 'Deployment') as KubeObject;
    assert.deepEqual([replicas, strategy], [1, { type: 'Recreate' }]);
    const labels = at(specOf(all, 'Deployment'), 'template.metadata.labels');
    assert.deepEqual(labels, at(selector, 'matchLabels'));
    const ofAgents = at(specOf(all, 'DaemonSet'), 'template.metadata.labels') as object;
    for (const [name, value] of Object.entries(ofAgents)) {
      assert.notEqual(at(labels, name), value, 'a label of agents');
    }
    const pod = podOf('nmi.yaml', 'Deployment');
    const accounts = [pod, podOf('nmi.yaml')].map((each) => at(each, 'serviceAccountName'));
    assert.notEqual(accounts[0], accounts[1]);
    assert.deepEqual([at(pod, 'hostNetwork'), at(pod, 'volumes')], [undefined, undefined]);
    assert.deepEqual(at(pod, 'containers.0.securityContext'), {
      runAsUser: 65_532,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      seccompProfile: { type: 'RuntimeDefault' },
      capabilities: { drop: ['ALL'], add: [] },
    });
    const [verb, ...args] = at(pod, 'containers.0.args') as readonly string[];
    assert.equal(verb, 'conditions');
    const flags = args.map((arg) => arg.replace(/^--/, '').split('=') as [string, string]);
    const parsed = parseConfig({ node: 'unnamed', ...Object.fromEntries(flags) }, {});
    assert.ok(parsed.ok);
    const { agentDaemonSet, agentNamespace, probePort, metricsPort } = parsed.config;
    assert.deepEqual([agentDaemonSet, agentNamespace], ['nmi', 'kube-system']);
    const ports = at(pod, 'containers.0.ports') as readonly unknown[];
    assert.deepEqual(
      ports.map((port) => [at(port, 'name'), at(port, 'containerPort')]),
      [['probes', probePort], ['metrics', metricsPort]], // prettier-ignore
    );
  });

  it('define the three kinds under their old names, and that of grants', () => {
    const kinds = ['identities', 'identitybindings', 'podidentityexceptions', 'identitygrants'];
    assert.deepEqual(
      load('crds.yaml').map(({ metadata }) => metadata.name),
      kinds.map((kind) => `azure${kind}.aadpodidentity.k8s.io`),
    );
  });
});

describe('the files of the chart', () => {
  it('have a fresh schema and fresh flags (npm run docs writes them)', async () => {
    assert.equal(read('chart/values.schema.json'), await renderSchema());
    assert.equal(read('chart/templates/_flags.tpl'), renderFlags());
  });

  it('take every federation that the definition has', () => {
    const enumIn = (text: string, pattern: RegExp) =>
      (pattern.exec(text)?.[1] ?? '')
        .match(/[a-z]+/g)
        ?.filter((each) => each !== 'null')
        .sort();
    const ofDefinition = enumIn(read('crds.yaml'), /enum: \['', (pod[^\]]*)\]/);
    assert.ok(ofDefinition?.includes('binding'));
    const schema = read('chart/values.schema.json');
    assert.deepEqual(enumIn(schema, /"federation": \{ "enum": \[([^\]]*)\]/), ofDefinition);
  });

  it('have a value for every flag that does something', () => {
    const decidedByTemplates =
      'node operation-mode force-namespaced kubeconfig agent-daemonset agent-namespace boot-guard-folder';
    const flags = renderFlags();
    for (const option of options.filter(hasFlag)) {
      if (decidedByTemplates.split(' ').includes(option.name)) continue;
      assert.match(flags, new RegExp(`"--?${option.name}"`), option.name);
    }
  });

  it('contain custom resources, alerts and dashboard byte for byte (node scripts/manifests.ts)', () => {
    for (const [source, paths] of Object.entries(copies)) {
      for (const path of paths) assert.equal(read(path), read(source), path);
    }
  });

  it('have the version of the program, which the docs name too', () => {
    const { version } = JSON.parse(read('../package.json')) as { readonly version: string };
    const chart: unknown = parse(read('chart/Chart.yaml'));
    assert.deepEqual([at(chart, 'version'), at(chart, 'appVersion')], [version, version]);
    const root = join(deploy, '..');
    const pages = ['*.md', 'docs/*.md', 'deploy/**/*.{md,yaml}', 'deploy/Dockerfile'];
    for (const page of globSync(pages, { cwd: root, exclude: ['CHANGELOG.md'] })) {
      const text = readFileSync(join(root, page), 'utf8');
      const named = text.matchAll(/(?:entra-pod-identity[:-]|newTag: |--version )(\d+\.\d+\.\d+)/g);
      for (const [whole, each] of named) assert.equal(each, version, `${page}: ${whole}`);
    }
  });
});

describe('the policies', () => {
  const [metadataIp, metadataPort] = [defaultOf('metadata-ip'), defaultOf('metadata-port')];
  const [listenIp, agentPort] = [defaultOf('nmi-listen-address'), defaultOf('nmi-port')];
  const wireserver = '168.63.129.16/32';
  /** A rule of Cilium's that denies, and that switches no other policy on. */
  const denying = (endpointSelector: object, ...egressDeny: readonly object[]) => ({
    endpointSelector,
    enableDefaultDeny: { egress: false, ingress: false },
    egressDeny,
  });
  const tcp = (...ports: readonly string[]) => [
    { ports: ports.map((port) => ({ port, protocol: 'TCP' })) },
  ];
  const ciliumOf = (name: string): unknown =>
    specOf(load(`policies/network-policy-${name}-cilium.yaml`), 'CiliumClusterwideNetworkPolicy');

  it('each come with the binding that enables them', () => {
    for (const file of globSync('*', { cwd: join(deploy, 'policies') })) {
      if (/^(?:network|gatekeeper)-/.test(file)) continue;
      const objects = load(`policies/${file}`);
      assert.equal(objects.length, 2, file);
      assert.equal(at(specOf(objects, 'ValidatingAdmissionPolicy'), 'failurePolicy'), 'Fail');
      const binding = specOf(objects, 'ValidatingAdmissionPolicyBinding');
      assert.equal(at(binding, 'policyName'), objects[0]?.metadata.name);
      const action = file.startsWith('warn-') ? 'Warn' : 'Deny';
      assert.deepEqual(at(binding, 'validationActions'), [action]);
    }
  });

  it("protect the agent's own service account, and the audiences that it requests", () => {
    const text = read('rights-federation-before-1.36.yaml');
    const name = at(podOf('nmi.yaml'), 'serviceAccountName') as string;
    const account = load('nmi.yaml').find(
      ({ kind, metadata }) => kind === 'ServiceAccount' && metadata.name === name,
    );
    const namespace = account?.metadata.namespace;
    assert.ok(namespace !== undefined);
    for (const part of [
      `'system:serviceaccount:${namespace}:${name}'`,
      `request.namespace == '${namespace}'`,
      `request.name == '${name}'`,
    ]) {
      assert.ok(text.includes(part), part);
    }
    const audiences = [...text.matchAll(/'(api:\/\/[^']+)'/g)].map(([, audience]) => audience);
    const known = [...cloudNames.map((cloud) => cloudOf(cloud).audience), bindingAudience];
    assert.deepEqual(audiences, known);
    const role = load('rights-federation.yaml').find(({ metadata }) =>
      metadata.name.endsWith('-audiences'),
    );
    assert.deepEqual(at(role, 'rules.0.resources'), known);
  });

  it('have a Gatekeeper rule for the same pods', () => {
    const objects = load('policies/gatekeeper-drop-net-raw.yaml');
    const kind = at(specOf(objects, 'ConstraintTemplate'), 'crd.spec.names.kind') as string;
    assert.equal(objects[0]?.metadata.name, kind.toLowerCase());
    const binding = specOf(load('policies/drop-net-raw.yaml'), 'ValidatingAdmissionPolicyBinding');
    assert.deepEqual(
      at(specOf(objects, kind), 'match.labelSelector'),
      at(binding, 'matchResources.objectSelector'),
    );
  });

  it('allow traffic to the redirect’s target', () => {
    const policy = specOf(load('policies/network-policy.yaml'), 'NetworkPolicy');
    const egress = at(policy, 'egress') as readonly unknown[];
    assert.deepEqual(
      egress.map((rule) => [at(rule, 'to.0.ipBlock.cidr'), String(at(rule, 'ports.0.port'))]),
      [[`${metadataIp}/32`, metadataPort], [`${listenIp}/32`, agentPort]], // prettier-ignore
    );
    const cilium = read('policies/network-policy-cilium.yaml');
    assert.ok(cilium.includes(`${metadataIp}/32`) && cilium.includes(`port: '${agentPort}'`));
  });

  it('keep all but labelled pods from the metadata service and the agent, and from nothing else', () => {
    const [policy] = load('policies/network-policy-imds.yaml');
    assert.ok(policy !== undefined);
    const namespaced = { ...policy, metadata: { name: 'no-imds', namespace: 'default' } };
    const against = (labels: object, ip: string, port: number) => {
      const pod = { metadata: { name: 'p', namespace: 'default', labels }, spec: {} };
      return policiesAgainst(pod, [namespaced], { ip, port }, false);
    };
    const kernelSide = Number(agentPort) + 1;
    for (const [ip, port] of [
      [metadataIp, Number(metadataPort)],
      [listenIp, Number(agentPort)],
      [listenIp, kernelSide],
    ] as const) {
      assert.deepEqual(against({ app: 'web' }, ip, port), ['no-imds']);
      assert.deepEqual(against({ aadpodidbinding: 'web' }, ip, port), []);
    }
    // Entra ID, and the DNS cache of a node.
    for (const ip of ['20.190.128.1', '169.254.20.10']) {
      assert.deepEqual(against({ app: 'web' }, ip, 443), []);
    }
    const unlabelled = {
      matchExpressions: [{ key: 'aadpodidbinding', operator: 'DoesNotExist' }],
    };
    assert.deepEqual(
      ciliumOf('imds'),
      denying(
        unlabelled,
        { toCIDR: [`${metadataIp}/32`], toPorts: tcp(metadataPort) },
        { toEntities: ['host'], toPorts: tcp(agentPort, String(kernelSide)) },
      ),
    );
  });

  it('keep pods from the ports of 168.63.129.16 that serve secrets, and leave its DNS open', () => {
    const policy = specOf(load('policies/network-policy-wireserver.yaml'), 'NetworkPolicy');
    assert.deepEqual(at(policy, 'podSelector'), {}, 'every pod of the namespace');
    const egress = at(policy, 'egress') as readonly { readonly to: readonly unknown[] }[];
    const rows = egress.flatMap(({ to, ...rule }) =>
      to.map((peer) => [
        at(peer, 'ipBlock.cidr'),
        at(peer, 'ipBlock.except'),
        at(rule, 'ports.0.port'),
        at(rule, 'ports.1.port'),
      ]),
    );
    assert.deepEqual(rows[0]?.slice(0, 2), ['0.0.0.0/0', [wireserver]]);
    assert.deepEqual(rows.at(-1), [wireserver, undefined, 53, 53]);
    assert.deepEqual(
      rows.slice(1, -1).map(([cidr]) => cidr),
      ['::/0', undefined],
    );
    assert.deepEqual(
      ciliumOf('wireserver'),
      denying({}, { toCIDR: [wireserver], toPorts: tcp('80', '32526') }),
    );
  });
});
