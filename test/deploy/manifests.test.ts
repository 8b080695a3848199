import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { parseConfig } from '../../src/nmi/config/config.ts';

const deploy = join(import.meta.dirname, '..', '..', 'deploy');

interface Rule {
  readonly resources: string[];
  readonly resourceNames?: string[];
  readonly verbs: string[];
}

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Rule[];
  readonly spec?: unknown;
}

async function load(name: string): Promise<readonly Manifest[]> {
  const documents = parseAllDocuments(await readFile(join(deploy, name), 'utf8'));
  return documents.map((document) => {
    assert.deepEqual(document.errors, []);
    return document.toJS() as Manifest;
  });
}

/** Of the roles with this name. */
async function rulesOf(role: string): Promise<readonly Rule[]> {
  const all = await load('nmi.yaml');
  return all.flatMap(({ metadata, rules = [] }) => (metadata.name === role ? rules : []));
}

interface PodSpec {
  readonly enableServiceLinks?: boolean;
  readonly hostNetwork: boolean;
  readonly dnsPolicy: string;
  readonly tolerations: readonly unknown[];
  readonly priorityClassName: string;
  readonly volumes?: readonly unknown[];
  readonly containers: readonly {
    readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
    readonly args: readonly string[];
    readonly resources: { readonly limits: Record<string, string> };
    readonly securityContext: { readonly capabilities: { drop: string[]; add: string[] } };
    readonly livenessProbe: { readonly httpGet: { path: string; port: number } };
    readonly readinessProbe: { readonly httpGet: { path: string; port: number } };
  }[];
}

async function loadPodSpec(file = 'nmi.yaml'): Promise<PodSpec> {
  const daemonSet = (await load(file)).find(({ kind }) => kind === 'DaemonSet');
  assert.ok(daemonSet !== undefined);
  return (daemonSet.spec as { template: { spec: PodSpec } }).template.spec;
}

describe('the manifests', () => {
  it('start the agent with arguments that it accepts', async () => {
    const [container] = (await loadPodSpec()).containers;
    assert.ok(container !== undefined);
    const flags = Object.fromEntries(
      container.args.map((arg) => {
        const [name = '', value = 'true'] = arg.replace(/^--/, '').split('=');
        return [name, value.replace('$(NODE_NAME)', 'node-1')];
      }),
    );
    const parsed = parseConfig(flags, {});
    assert.ok(parsed.ok);
    assert.deepEqual(parsed.warnings, []);
    assert.equal(container.livenessProbe.httpGet.port, parsed.config.probePort);
    assert.equal(container.livenessProbe.httpGet.path, '/livez');
    assert.equal(container.readinessProbe.httpGet.path, '/readyz');
  });

  it('run on every Linux node, on the host network, with three capabilities and no CPU limit', async () => {
    const spec = await loadPodSpec();
    assert.equal(spec.hostNetwork, true);
    assert.equal(spec.dnsPolicy, 'ClusterFirstWithHostNet');
    assert.deepEqual(spec.tolerations, [{ operator: 'Exists' }]);
    assert.equal(spec.priorityClassName, 'system-node-critical');
    const [container] = spec.containers;
    assert.deepEqual(container?.securityContext.capabilities, {
      drop: ['ALL'],
      add: ['NET_ADMIN', 'NET_RAW', 'BPF'],
    });
    assert.deepEqual(Object.keys(container?.resources.limits ?? {}), ['memory']);
  });

  it('start the new agent beside the old one where both share a folder for their slots', async () => {
    for (const file of ['nmi.yaml', 'nmi-split.yaml']) {
      const daemonSet = (await load(file)).find(({ kind }) => kind === 'DaemonSet');
      assert.ok(daemonSet !== undefined);
      const { updateStrategy } = daemonSet.spec as {
        readonly updateStrategy: { readonly rollingUpdate: { readonly maxSurge: number } };
      };
      const { volumes = [] } = await loadPodSpec(file);
      const shares = volumes.some((each) => (each as { readonly name: string }).name === 'slots');
      assert.equal(updateStrategy.rollingUpdate.maxSurge, shares ? 1 : 0, file);
    }
  });

  it('keep Services of the namespace out of the environment, from which options are read', async () => {
    for (const file of ['nmi.yaml', 'nmi-split.yaml', 'open-nodes.yaml']) {
      assert.equal((await loadPodSpec(file)).enableServiceLinks, false, file);
    }
  });

  it('let the agent only list and watch what it watches, and write Events', async () => {
    const rules = await rulesOf('aad-pod-id-nmi-role');
    assert.deepEqual(rules.flatMap(({ resources }) => resources).sort(), [
      'azureidentities',
      'azureidentitybindings',
      'azureidentitygrants',
      'azurepodidentityexceptions',
      'events',
      'nodes',
      'pods',
      'pods',
    ]);
    for (const { resources, verbs } of rules) {
      if (resources.includes('nodes')) assert.deepEqual(verbs, ['impersonate:associated-node']);
      else if (resources.includes('events')) assert.deepEqual(verbs, ['create']);
      else {
        const plain = verbs.map((verb) => verb.replace('impersonate-on:associated-node:', ''));
        assert.deepEqual(plain, ['list', 'watch']);
      }
    }
  });

  it('let one Deployment, which is no agent, write status conditions and read one DaemonSet', async () => {
    const all = await load('nmi.yaml');
    const rules = await rulesOf('aad-pod-id-nmi-conditions');
    assert.deepEqual(
      rules.map(({ verbs, resources, resourceNames = [] }) =>
        [verbs.join('+'), resources.join('+'), ...resourceNames].join(' '),
      ),
      [
        'list+watch azureidentities+azureidentitybindings+azureidentitygrants',
        'patch azureidentities/status+azureidentitybindings/status',
        'get daemonsets nmi',
      ],
    );
    const specOf = (wanted: string) =>
      all.find(({ kind }) => kind === wanted)?.spec as {
        readonly strategy?: unknown;
        readonly replicas?: number;
        readonly selector: { readonly matchLabels: Record<string, string> };
        readonly template: {
          readonly metadata: { readonly labels: Record<string, string> };
          readonly spec: PodSpec & { readonly serviceAccountName: string };
        };
      };
    const { replicas, strategy, selector, template } = specOf('Deployment');
    assert.deepEqual([replicas, strategy], [1, { type: 'Recreate' }]);
    assert.deepEqual(template.metadata.labels, selector.matchLabels);
    const ofAgents = specOf('DaemonSet');
    assert.ok(
      !Object.entries(ofAgents.template.metadata.labels).some(
        ([name, value]) => selector.matchLabels[name] === value,
      ),
      'a label of agents',
    );
    const { spec } = template;
    assert.notEqual(spec.serviceAccountName, ofAgents.template.spec.serviceAccountName);
    assert.equal(spec.hostNetwork, undefined);
    assert.equal(spec.volumes, undefined);
    const [container] = spec.containers;
    assert.deepEqual(container?.securityContext, {
      runAsUser: 65_532,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      seccompProfile: { type: 'RuntimeDefault' },
      capabilities: { drop: ['ALL'], add: [] },
    });
    const [verb, ...args] = container.args;
    assert.equal(verb, 'conditions');
    const flags = args.map((arg) => arg.replace(/^--/, '').split('=') as [string, string]);
    const parsed = parseConfig({ node: 'unnamed', ...Object.fromEntries(flags) }, {});
    assert.ok(parsed.ok);
    assert.deepEqual(
      [parsed.config.agentDaemonSet, parsed.config.agentNamespace],
      ['nmi', 'kube-system'],
    );
    const { ports = [] } = container;
    assert.deepEqual(
      ports.map(({ name, containerPort }) => [name, containerPort]),
      [
        ['probes', parsed.config.probePort],
        ['metrics', parsed.config.metricsPort],
      ],
    );
  });

  it('keep the permissions for secrets and for federation separate and minimal', async () => {
    const rightsOf = async (file: string) =>
      (await load(file))
        .flatMap(({ rules = [] }) => rules)
        .map(({ resources, verbs }) => `${verbs.join('+')} ${resources.join('+')}`);
    assert.deepEqual(await rightsOf('rights-secrets.yaml'), ['get secrets']);
    assert.deepEqual((await rightsOf('rights-federation.yaml')).slice(0, 2), [
      'impersonate-on:associated-node:create serviceaccounts/token',
      'get serviceaccounts',
    ]);
    assert.deepEqual(await rightsOf('rights-federation-before-1.36.yaml'), [
      'create serviceaccounts/token',
      'get serviceaccounts',
    ]);
  });

  it('define the three kinds under their old names, and that of grants', async () => {
    const names = (await load('crds.yaml')).map(({ metadata }) => metadata.name);
    assert.deepEqual(names, [
      'azureidentities.aadpodidentity.k8s.io',
      'azureidentitybindings.aadpodidentity.k8s.io',
      'azurepodidentityexceptions.aadpodidentity.k8s.io',
      'azureidentitygrants.aadpodidentity.k8s.io',
    ]);
  });
});
