/**
 * The chart by the real helm, and kustomize by the real kubectl, without a server. The programs are
 * those of the test clusters.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { parseAllDocuments } from 'yaml';
import { chartFolder, chartValues } from '../../scripts/chart-schema.ts';
import { renderManifests } from '../../scripts/manifests.ts';
import { parseConfig, type Config } from '../../src/nmi/config/config.ts';
import { provideCluster, provideHelm } from '../cluster/support/binaries.ts';
import { allShellBlocks } from '../cluster/support/page-commands.ts';
import {
  agentOf,
  daemonSetOf,
  environmentOf,
  flagsOf,
  objectsOf,
  renderChart,
  runHelmTemplate,
  specOf,
  testRepository,
  withoutRelease,
  type Container,
  type KubeObject,
  type RenderOptions,
} from './chart-render.ts';
import { readAlerts, readDashboard } from './monitoring/queries.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const provided = provideHelm();
const skip = provided.missing ?? false;
const helm = provided.programs ?? '';
const kubectl = provideCluster().programs?.kubectl;

function objects(values: object = {}, options: Omit<RenderOptions, 'helm'> = {}) {
  return objectsOf(renderChart({ helm, values, ...options }));
}

function rightsOf(all: readonly KubeObject[]): readonly string[] {
  type Rule = {
    readonly resources: string[];
    readonly resourceNames?: string[];
    readonly verbs: string[];
  };
  return all
    .filter(({ kind }) => kind === 'ClusterRole' || kind === 'Role')
    .flatMap((role) => role['rules'] as readonly Rule[])
    .map(({ resources, resourceNames = [], verbs }) =>
      [verbs.join('+'), resources.join('+'), ...resourceNames].join(' '),
    );
}

/** Every value below, with the names that lead to it. */
function visit(at: unknown, place: string, on: (value: unknown, place: string) => void): void {
  on(at, place);
  if (typeof at !== 'object' || at === null) return;
  for (const [name, each] of Object.entries(at)) visit(each, `${place}.${name}`, on);
}

/** The arguments as the program parses them. */
function configOf(container: Container): Config {
  const parsed = parseConfig(flagsOf(container), environmentOf(container));
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.config;
}

/** All values for NMI in the replaced chart's table, and the other contents of such a file. */
const oldValues = {
  operationMode: 'managed',
  forceNamespaced: 'false',
  installMICException: 'true',
  customUserAgent: 'acme/1',
  image: { repository: 'registry.example/team', imagePullPolicy: 'Always' },
  imagePullSecrets: [{ name: 'pull' }],
  mic: { tag: 'v1.8.17', logVerbosity: 0 },
  adminsecret: {},
  nmi: {
    tag: '0.1.0',
    priorityClassName: '',
    logVerbosity: 4,
    loggingFormat: 'json',
    resources: {
      limits: { cpu: '200m', memory: '512Mi' },
      requests: { cpu: '100m', memory: '256Mi' },
    },
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } },
    podAnnotations: { team: 'platform' },
    podLabels: { team: 'platform' },
    affinity: {},
    nodeSelector: { 'kubernetes.io/os': 'linux' },
    tolerations: [{ operator: 'Exists' }],
    ipTableUpdateTimeIntervalInSeconds: 60,
    micNamespace: 'default',
    probePort: '8085',
    retryAttemptsForCreated: '16',
    retryAttemptsForAssigned: '',
    findIdentityRetryIntervalInSeconds: 5,
    enableScaleFeatures: true,
    prometheusPort: '9091',
    blockInstanceMetadata: 'true',
    metadataHeaderRequired: true,
    allowNetworkPluginKubenet: false,
    kubeletConfig: '/etc/default/kubelet',
    setRetryAfterHeader: false,
    enableConntrackDeletion: false,
  },
  rbac: {
    enabled: true,
    allowAccessToSecrets: true,
    secretsNamespaces: ['shop'],
    pspEnabled: false,
    createUserFacingClusterRoles: true,
  },
  podMonitor: { enabled: true, labels: { release: 'prometheus' }, interval: '30s' },
  azureIdentities: {
    checkout: {
      namespace: 'shop',
      name: 'checkout',
      type: 1,
      clientID: '00000000-0000-0000-0000-000000000001',
      tenantID: '00000000-0000-0000-0000-000000000002',
      clientPassword: { name: 'checkout-secret', namespace: 'shop' },
      auxiliaryTenantIDs: ['00000000-0000-0000-0000-000000000003'],
      binding: { name: 'checkout-binding', selector: 'checkout' },
    },
  },
};

const newValues = {
  rbac: { allowFederation: true, federationNamespaces: ['shop', 'kube-system'] },
  serviceMonitor: { enabled: true },
  prometheusRule: {
    enabled: true,
    labels: { release: 'prometheus' },
    runbookBase: 'https://git.example/nmi/',
  },
  nmi: {
    cloud: 'usgovernment',
    workloadIdentity: true,
    allowMetadata: ['attested', 'loadbalancer'],
    addressStalenessLimit: '30m',
    rightsStalenessLimit: '2h',
    explainSocket: '/run/nmi.sock',
    allowNetworkPluginKubenet: true,
    entraCaFile: '/etc/entra/ca.pem',
    env: [{ name: 'HTTPS_PROXY', value: 'http://proxy.example:3128' }],
    extraVolumes: [{ name: 'entra-ca', configMap: { name: 'entra-ca' } }],
    extraVolumeMounts: [{ name: 'entra-ca', mountPath: '/etc/entra', readOnly: true }],
  },
  azureIdentities: {
    reports: {
      type: 0,
      clientID: '00000000-0000-0000-0000-000000000004',
      resourceID:
        '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/r',
      binding: { selector: 'reports' },
    },
    federated: {
      type: 3,
      clientID: '00000000-0000-0000-0000-000000000005',
      tenantID: '00000000-0000-0000-0000-000000000002',
      federation: 'node',
      allowedResources: ['https://vault.azure.net', 'https://storage.azure.com/'],
      binding: { selector: 'f', serviceAccount: 'robot' },
    },
  },
};

const renderings: Readonly<Record<string, Omit<RenderOptions, 'helm'>>> = {
  'old-values': {
    release: 'entra-pod-identity',
    namespace: 'default',
    values: { ...oldValues, nameOverride: 'entra-pod-identity' },
  },
  'new-values': { release: 'identity', namespace: 'identity', values: newValues },
};

describe('the chart', { skip }, () => {
  it('passes helm lint, with its defaults and with everything set', () => {
    for (const values of [{}, oldValues, newValues]) {
      const lint = spawnSync(helm, ['lint', '--strict', chartFolder, '--values=-'], {
        encoding: 'utf8',
        input: JSON.stringify(values),
        timeout: 60_000,
      });
      assert.equal(lint.status, 0, lint.stdout + lint.stderr);
    }
  });

  for (const [name, options] of Object.entries(renderings)) {
    // To write it again: node --test --test-update-snapshots test/deploy/chart.helm.test.ts
    it(`renders ${name} as before`, (t) => {
      const golden = join(import.meta.dirname, 'goldens', `${name}.golden`);
      t.assert.fileSnapshot(renderChart({ helm, ...options }), golden, {
        serializers: [(text: unknown) => String(text)],
      });
    });
  }

  it('is the source of the manifests for kubectl (node scripts/manifests.ts)', async () => {
    const fresh = await renderManifests(helm);
    assert.ok(fresh.size > 0);
    for (const [path, text] of fresh) {
      assert.equal(await readFile(join(deploy, path), 'utf8'), text, path);
    }
  });

  it(
    'renders the objects that kustomize renders',
    { skip: kubectl === undefined && 'kubectl cannot be built' },
    () => {
      const kustomize = (folder: string): readonly KubeObject[] => {
        const words = ['kustomize', join(deploy, 'kustomize', folder)];
        const run = spawnSync(kubectl ?? '', words, { encoding: 'utf8', timeout: 60_000 });
        assert.equal(run.status, 0, run.stderr);
        return objectsOf(run.stdout);
      };
      const all = ['agent', 'secrets', 'federation'].flatMap(kustomize);
      const chartedOf = (values: object, options: Omit<RenderOptions, 'helm'> = {}) =>
        // Kustomize sets the registry with `images:`.
        objectsOf(renderChart({ helm, values, ...options }).replaceAll(`${testRepository}/`, ''));
      const rbac = {
        allowAccessToSecrets: true,
        secretsNamespaces: ['my-namespace'],
        allowFederation: true,
      };
      // Only the rights files contain more than the defaults. The agent of the manifests has the rights for every version.
      const charted = [
        ...chartedOf(
          { nmi: { privilegeSplit: false } },
          { flags: ['--include-crds', '--kube-version=1.35.0'] },
        ),
        ...chartedOf({ rbac, nmi: { workloadIdentity: true } }).filter(({ metadata: { name } }) =>
          /-(?:secrets|federation|federation-audiences|fence-token-requests)$/.test(name),
        ),
      ];
      assert.deepEqual(withoutRelease(all), withoutRelease(charted));
      const opening = chartedOf({ uninstall: { openNodes: true } });
      const daemonSets = opening.filter(({ kind }) => kind === 'DaemonSet');
      assert.deepEqual(withoutRelease(kustomize('open-nodes')), withoutRelease(daemonSets));
    },
  );

  it('starts the agent with arguments that it accepts, each value under its flag', () => {
    const parse = (values: object) => {
      const agent = agentOf(objects(values));
      const parsed = parseConfig(flagsOf(agent), environmentOf(agent));
      assert.ok(parsed.ok, JSON.stringify(parsed));
      return parsed;
    };
    assert.deepEqual(parse({}).warnings, []);
    const { config } = parse(newValues);
    assert.equal(config.cloud, 'usgovernment');
    assert.equal(config.workloadIdentity, true);
    assert.deepEqual(config.allowedAreas, ['attested', 'loadbalancer']);
    assert.equal(config.addressStalenessLimitMs, 1_800_000);
    assert.equal(config.rightsStalenessLimitMs, 7_200_000);
    assert.equal(config.explainSocket, '/run/nmi.sock');
    const old = parse(oldValues);
    assert.equal(old.config.metricsPort, 9091);
    assert.equal(old.config.redirectIntervalMs, 60_000);
    assert.equal(old.config.blockInstanceMetadata, true);
    assert.equal(old.config.customUserAgent, 'acme/1');
    assert.equal(old.config.logLevel, 'debug');
    const noEffect = old.warnings.map((text) => /^--?([\w-]+)/.exec(text)?.[1]).toSorted();
    assert.deepEqual(noEffect, [
      'MICNamespace',
      'enable-conntrack-deletion',
      'enableScaleFeatures',
      'find-identity-retry-interval',
      'retry-attempts-for-created',
      'set-retry-after-header',
    ]);
  });

  it('shares no name and no selector with either installation method of aad-pod-identity', () => {
    const plain = objects();
    // An object by that name exists where its manifest was applied; the API server refuses the selector.
    assert.deepEqual(daemonSetOf(plain).selector.matchLabels, {
      component: 'nmi',
      tier: 'node',
      'app.kubernetes.io/component': 'nmi',
    });
    const beside = objects({ nameOverride: 'new' }, { release: 'apid' });
    assert.deepEqual(daemonSetOf(beside).selector.matchLabels, {
      'app.kubernetes.io/name': 'new',
      'app.kubernetes.io/instance': 'apid',
      'app.kubernetes.io/component': 'nmi',
    });
    const names = beside.map(({ kind, metadata }) => `${kind} ${metadata.name}`).toSorted();
    assert.deepEqual(names, [
      'AzurePodIdentityException new-aks-addon-exception',
      'ClusterRole new-nmi',
      'ClusterRole new-nmi-conditions',
      'ClusterRoleBinding new-nmi',
      'ClusterRoleBinding new-nmi-conditions',
      'DaemonSet new-nmi',
      'Deployment new-nmi-conditions',
      'Role new-nmi-conditions',
      'RoleBinding new-nmi-conditions',
      'ServiceAccount new-nmi',
      'ServiceAccount new-nmi-conditions',
      'ValidatingAdmissionPolicy new-nmi-hold-to-node',
      'ValidatingAdmissionPolicyBinding new-nmi-hold-to-node',
    ]);
    for (const all of [plain, beside]) {
      const { selector, template } = daemonSetOf(all);
      for (const [name, value] of Object.entries(selector.matchLabels)) {
        assert.equal(template.metadata.labels[name], value);
      }
    }
  });

  it('gives the agents by the commands of the README the right that its example needs', async () => {
    const readme = await readFile(join(chartFolder, '../../README.md'), 'utf8');
    assert.match(readme, /^ {2}type: 3 /m);
    const flags = allShellBlocks(readme)
      .flatMap((block) => [...block.matchAll(/^helm upgrade .*/gm)])
      .flatMap(([line]) => [...line.matchAll(/--set \S+/g)])
      .flatMap(([words]) => words.split(' '));
    const roles = objectsOf(renderChart({ helm, flags })).filter(({ kind, ...object }) => {
      const text = JSON.stringify(object);
      return kind === 'ClusterRole' && text.includes('serviceaccounts/token');
    });
    assert.equal(roles.length, 1);
  });

  it('guards the boot by a DaemonSet of its own, and shows the agent no folder of the host for it', () => {
    const guardOf = (values: object) =>
      objects(values).find(({ metadata: { name } }) => name.endsWith('-boot-guard'));
    assert.equal(guardOf({}), undefined);
    assert.equal(
      guardOf({ bootGuard: { enabled: true }, uninstall: { openNodes: true } }),
      undefined,
    );
    const all = objects({ nameOverride: 'new', bootGuard: { enabled: true } });
    const own = all.filter(({ metadata: { name } }) => name === 'new-nmi-boot-guard');
    const { selector, template } = daemonSetOf(own);
    for (const [name, value] of Object.entries(selector.matchLabels)) {
      assert.equal(template.metadata.labels[name], value);
    }
    assert.equal(selector.matchLabels['app.kubernetes.io/component'], 'boot-guard');
    const { initContainers = [], containers } = template.spec;
    const folder = { name: 'boot-guard', mountPath: '/host/systemd' };
    assert.deepEqual(initContainers[0]?.volumeMounts, [folder]);
    assert.deepEqual(initContainers[0]?.securityContext.capabilities, { drop: ['ALL'] });
    assert.deepEqual(
      containers.map(({ volumeMounts }) => volumeMounts),
      [undefined],
    );
    const agent = all.filter(({ metadata: { name } }) => name === 'new-nmi');
    assert.doesNotMatch(JSON.stringify(agent), /systemd/);
  });

  it('lets the add-ons of AKS keep the identities of the node if owners are enforced', () => {
    const grantsOf = (flags: readonly string[], values: object = {}) =>
      objects(values, { flags }).filter(({ kind }) => kind === 'AzureIdentityGrant');
    const kinds = ['--api-versions=aadpodidentity.k8s.io/v1/AzureIdentityGrant'];
    assert.deepEqual(
      grantsOf(kinds).map((grant) => grant['spec']),
      [{ namespaces: ['kube-system'], nodeIdentities: true }],
    );
    assert.deepEqual(grantsOf([]), [], 'a cluster may not have the kind');
    assert.deepEqual(grantsOf(kinds, { installMICException: false }), []);
  });

  it('enforces owners with one value', () => {
    const modeOf = (nmi: object) => configOf(agentOf(objects({ nmi }))).identityOwners;
    assert.equal(modeOf({}), 'warn');
    assert.equal(modeOf({ identityOwners: 'enforce' }), 'enforce');
    const wrong = runHelmTemplate({ helm, values: { nmi: { identityOwners: 'on' } } });
    assert.notEqual(wrong.exitCode, 0);
  });

  it('lets editors of a namespace bind identities, and administrators create them', () => {
    const roles = objects({ rbac: { createUserFacingClusterRoles: true } });
    const rightsOfRole = (suffix: string) =>
      rightsOf(roles.filter(({ metadata }) => metadata.name.endsWith(suffix)));
    const write = 'create+update+patch+delete+deletecollection';
    assert.deepEqual(rightsOfRole('-edit'), [`${write} azureidentitybindings`]);
    assert.deepEqual(rightsOfRole('-admin'), [
      `${write} azureidentities+azurepodidentityexceptions`,
    ]);
    assert.deepEqual(rightsOfRole('-view'), [
      'get+list+watch azureidentities+azureidentitybindings+azurepodidentityexceptions',
    ]);
  });

  it('requires the registry of the image, and accepts a digest', () => {
    const nowhere = runHelmTemplate({ helm, values: { image: { repository: '' } } });
    assert.equal(nowhere.exitCode, 1);
    assert.match(nowhere.stderr, /image\.repository is empty\. Nobody publishes an image/);
    const digest = `sha256:${'0'.repeat(64)}`;
    const agent = agentOf(objects({ image: { digest } }));
    assert.equal(agent.image, `${testRepository}/entra-pod-identity@${digest}`);
    const misspelt = runHelmTemplate({ helm, values: { image: { digest: 'sha256:0' } } });
    assert.equal(misspelt.exitCode, 1);
  });

  it('renders each policy with a value, the same as in its file', async () => {
    const files = {
      bindingLabel: 'binding-label',
      dropNetRaw: 'drop-net-raw',
      identityOwners: 'identity-owners',
      warnIdentities: 'warn-identities',
    };
    const plain = objects().length;
    for (const [value, name] of Object.entries(files)) {
      const file = objectsOf(await readFile(join(deploy, `policies/${name}.yaml`), 'utf8'));
      const all = objects({ policies: { [value]: true } });
      assert.equal(all.length, plain + file.length, value);
      assert.deepEqual(
        file.filter((each) => !all.some((other) => isDeepStrictEqual(other, each))),
        [],
      );
    }
  });

  it('is tested by a pod that succeeds once the agent of its node is ready', () => {
    const test = objects({}, { withTests: true }).find(({ kind }) => kind === 'Pod');
    assert.ok(test !== undefined);
    const { hostNetwork, initContainers } = test['spec'] as {
      readonly hostNetwork: boolean;
      readonly initContainers: readonly { readonly startupProbe: unknown }[];
    };
    assert.equal(hostNetwork, true);
    assert.deepEqual(initContainers[0]?.startupProbe, {
      httpGet: { host: '127.0.0.1', port: 8085, path: '/readyz' },
      periodSeconds: 1,
      failureThreshold: 60,
    });
    const without = [{ nmi: { probePort: 0 } }, { uninstall: { openNodes: true } }];
    for (const values of without) {
      assert.ok(!objects(values, { withTests: true }).some(({ kind }) => kind === 'Pod'));
    }
  });

  it('grants only what the enabled features need', () => {
    const base = [
      'impersonate:associated-node nodes',
      'impersonate-on:associated-node:list+impersonate-on:associated-node:watch pods',
      'list+watch azureidentities+azureidentitybindings+azureidentitygrants+azurepodidentityexceptions',
      'create events',
    ];
    const conditions = [
      'list+watch azureidentities+azureidentitybindings+azureidentitygrants',
      'patch azureidentities/status+azureidentitybindings/status',
      'get daemonsets nmi',
    ];
    const off = { conditions: { enabled: false } };
    const granted = (rbac: object, nmi: object = {}) =>
      rightsOf(objects({ rbac, nmi, ...off })).filter((right) => !base.includes(right));
    assert.deepEqual(granted({}), []);
    assert.deepEqual(rightsOf(objects()).toSorted(), [...base, ...conditions].toSorted());
    assert.deepEqual(rightsOf(objects({ uninstall: { openNodes: true } })), base);
    const secretsNamespaces = ['shop'];
    assert.deepEqual(granted({ allowAccessToSecrets: true, secretsNamespaces }), ['get secrets']);
    assert.deepEqual(granted({ allowAccessToSecrets: 'false' }), []);
    const audiences = 'request-serviceaccounts-token-audience ';
    const cloudless = granted({ allowFederation: true }).filter(
      (each) => !each.startsWith(audiences),
    );
    assert.deepEqual(cloudless, ['impersonate-on:associated-node:create serviceaccounts/token']);
    const own = granted({ allowFederation: true }, { entraAudience: 'api://own' }).at(-1) ?? '';
    assert.match(own, /^request-\S+ api:\/\/AzureADTokenExchange\+.*\+api:\/\/own$/);
    const withAccounts = granted({ allowFederation: true }, { workloadIdentity: true });
    assert.ok(withAccounts.includes('get serviceaccounts'));
    assert.deepEqual(rightsOf(objects({ nmi: { events: false }, ...off })), base.slice(0, 3));
    assert.deepEqual(rightsOf(objects({ rbac: { enabled: false } })), []);
  });

  it('holds agents to their nodes by policies where the API server does not', () => {
    const versionFlags = (version: string) => ({ flags: [`--kube-version=${version}`] });
    const renderFor = (version: string, rbac: object, more: object = {}) =>
      objectsOf(renderChart({ helm, values: { rbac, ...more }, ...versionFlags(version) }));
    const federationNamespaces = ['shop'];
    const rbac = { allowFederation: true, federationNamespaces };
    const policiesOf = (all: readonly KubeObject[]) =>
      all.flatMap(({ kind, metadata }) =>
        kind === 'ValidatingAdmissionPolicy' ? [metadata.name] : [],
      );
    const current = renderFor('1.36.0', rbac);
    assert.deepEqual(policiesOf(current), ['nmi-fence-token-requests', 'nmi-hold-to-node']);
    assert.deepEqual(policiesOf(renderFor('1.36.0', {})), ['nmi-hold-to-node']);
    // Where federation is for some namespaces, kubelets get the audiences in these only.
    const bindingsOf = (all: readonly KubeObject[]) =>
      all
        .filter(({ metadata }) => metadata.name.endsWith('-federation-audiences'))
        .map(({ kind, metadata: { namespace = '' } }) => `${kind} ${namespace}`);
    assert.deepEqual(bindingsOf(current), ['ClusterRole ', 'RoleBinding shop']);
    const inAll = renderFor('1.36.0', { allowFederation: true });
    assert.deepEqual(bindingsOf(inAll), ['ClusterRole ', 'ClusterRoleBinding ']);
    const before = renderFor('1.35.9', rbac, { nameOverride: 'second' });
    assert.deepEqual(policiesOf(before), [
      'second-nmi-fence-token-requests',
      'second-nmi-hold-to-node',
    ]);
    const account = 'system:serviceaccount:kube-system:second-nmi';
    for (const policy of before.filter(({ kind }) => kind === 'ValidatingAdmissionPolicy')) {
      assert.ok(JSON.stringify(policy).includes(`'${account}'`), policy.metadata.name);
    }
    assert.ok(rightsOf(before).includes('create serviceaccounts/token'));
    assert.ok(rightsOf(before).includes('list+watch pods'));
    const bindings = before.filter(({ metadata }) => metadata.name.endsWith('-federation'));
    assert.deepEqual(
      bindings.map(({ kind }) => kind),
      ['ClusterRole', 'RoleBinding'],
    );
    assert.deepEqual(policiesOf(renderFor('1.29.0', rbac)), []);
    const quiet = { nmi: { events: false } };
    assert.deepEqual(policiesOf(renderFor('1.36.0', {}, quiet)), []);
    assert.deepEqual(
      policiesOf(renderFor('1.36.0', {}, { nmi: { ...quiet.nmi, startupTaint: 'a/b' } })),
      ['nmi-hold-to-node'],
    );
    const everywhere = runHelmTemplate({
      helm,
      values: { rbac: { allowFederation: true } },
      ...versionFlags('1.35.0'),
    });
    assert.equal(everywhere.exitCode, 1);
    assert.match(
      everywhere.stderr,
      /allowFederation needs rbac\.federationNamespaces on Kubernetes v1\.35\.0/,
    );
  });

  it('gives a token of the API server to the container that asks it, and to no other', () => {
    const { template } = daemonSetOf(objects());
    assert.equal(template.spec.automountServiceAccountToken, false);
    const mounts = template.spec.containers.map(({ name, volumeMounts = [] }) => [
      name,
      volumeMounts.some(
        (each) => each.mountPath === '/var/run/secrets/kubernetes.io/serviceaccount',
      ),
    ]);
    assert.deepEqual(mounts, [
      ['nmi', true],
      ['redirect', false],
    ]);
  });

  it('accepts nmi.podsFrom, and passes it on only for the agent’s warning', () => {
    const ignored = /,"--pods-from=\w+"/g;
    for (const podsFrom of ['kubelet', 'auto', '']) {
      const text = JSON.stringify(objects({ nmi: { podsFrom } }));
      assert.equal(text.match(ignored)?.length ?? 0, podsFrom === '' ? 0 : 2);
      assert.equal(text.replaceAll(ignored, ''), JSON.stringify(objects()));
    }
  });

  it('writes conditions by a Deployment that evaluates as the agents do, unless it is off', () => {
    const secrets = { rbac: { allowAccessToSecrets: true, secretsNamespaces: ['shop'] } };
    const off = { conditions: { enabled: 'false' } };
    const subjectsOf = (values: object) =>
      objects(values).flatMap(({ kind, metadata: { name }, ...rest }) =>
        kind === 'RoleBinding' && name.endsWith('-secrets')
          ? (rest['subjects'] as { name: string }[]).map((subject) => subject.name)
          : [],
      );
    const agents = 'aad-pod-id-nmi-service-account';
    assert.deepEqual(subjectsOf(secrets), [agents, 'nmi-conditions']);
    assert.deepEqual(subjectsOf({ ...secrets, ...off }), [agents]);
    assert.ok(!objects(off).some(({ metadata }) => metadata.name.includes('conditions')));
    const all = objects({
      ...newValues,
      conditions: { maxWatchEventsPerSec: 9_000 },
      podMonitor: { enabled: true },
    });
    const { template } = specOf(all, 'Deployment') as ReturnType<typeof daemonSetOf>;
    const [container] = template.spec.containers;
    assert.ok(container !== undefined);
    const { args = [] } = container;
    assert.equal(args[0], 'conditions');
    const written = configOf({ ...container, args: ['--node=n', ...args.slice(1)] });
    const agent = configOf(agentOf(all));
    for (const key of ['cloud', 'entraAuthorities', 'entraAudience', 'identityOwners'] as const) {
      assert.deepEqual(written[key], agent[key], key);
    }
    assert.equal(written.maxWatchEventsPerSec, 9_000);
    const monitors = all.filter(({ kind }) => kind === 'PodMonitor');
    assert.equal(monitors.length, 2);
    for (const monitor of monitors) {
      const { metadata } = monitor;
      const { selector } = monitor['spec'] as { selector: { matchLabels: object } };
      const matches = Object.entries(selector.matchLabels).every(
        ([label, value]) => template.metadata.labels[label] === value,
      );
      assert.equal(matches, metadata.name.endsWith('-conditions'), metadata.name);
    }
  });

  it('binds a role only in the namespaces that are named', () => {
    const rbac = { allowAccessToSecrets: true, secretsNamespaces: ['shop', 'pay'] };
    const bindings = objects({ rbac }).filter(({ metadata }) => metadata.name.endsWith('-secrets'));
    assert.deepEqual(
      bindings.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}`).toSorted(),
      ['ClusterRole ', 'RoleBinding pay', 'RoleBinding shop'],
    );
  });

  it('starts the new agent of a node beside the old one where an update may surge', () => {
    const rollingUpdate = { maxUnavailable: 0, maxSurge: 1 };
    const all = objects({
      nmi: { updateStrategy: { rollingUpdate } },
      podMonitor: { enabled: true },
      serviceMonitor: { enabled: true },
    });
    const { template, updateStrategy } = daemonSetOf(all);
    assert.deepEqual(updateStrategy.rollingUpdate, rollingUpdate);
    // With more, the controller ignores the new pod, and the update stops.
    const waits = (of: typeof all) =>
      (specOf(of, 'DaemonSet') as { minReadySeconds: number }).minReadySeconds;
    assert.deepEqual([waits(all), waits(objects({}))], [0, 10]);
    const [agent, kernel] = template.spec.containers;
    // Two pods would conflict over the host's ports.
    assert.deepEqual([agent?.ports, kernel?.ports], [undefined, undefined]);
    assert.deepEqual(agent?.startupProbe?.exec?.command, ['nmi', 'ready']);
    assert.ok(kernel !== undefined);
    assert.equal(environmentOf(kernel)['NMI_SLOT_FOLDER'], '/run/nmi-agent');
    const { podMetricsEndpoints } = specOf(all, 'PodMonitor') as {
      podMetricsEndpoints: { port?: string; relabelings: { replacement?: string }[] }[];
    };
    assert.deepEqual(
      podMetricsEndpoints.map(({ port, relabelings }) => [port, relabelings[1]?.replacement]),
      [
        [undefined, '$1:9090'],
        [undefined, '$1:9091'],
      ],
    );
    const { ports } = specOf(all, 'Service') as { ports: { targetPort: unknown }[] };
    assert.deepEqual(
      ports.map(({ targetPort }) => targetPort),
      [9090, 9091],
    );
  });

  it('replaces one agent after the other where two cannot run on a node, and fails for none of it', () => {
    const rollingUpdate = { maxUnavailable: 0, maxSurge: 1 };
    for (const nmi of [
      { privilegeSplit: false },
      { enableHostToken: true },
      { explainSocket: 'off' },
      { redirect: 'none' },
    ]) {
      const all = objects({ nmi: { ...nmi, updateStrategy: { rollingUpdate } } });
      const strategy = daemonSetOf(all).updateStrategy.rollingUpdate;
      assert.deepEqual(strategy, { maxUnavailable: 1, maxSurge: 0 }, JSON.stringify(nmi));
      assert.equal(agentOf(all).startupProbe, undefined);
      assert.notEqual(agentOf(all).ports, undefined);
    }
    const strategyOf = (updateStrategy: object) =>
      daemonSetOf(objects({ nmi: { updateStrategy } })).updateStrategy;
    assert.deepEqual(strategyOf({ type: 'OnDelete' }), { type: 'OnDelete' });
    const cautious = { maxUnavailable: '10%', maxSurge: 0 };
    assert.deepEqual(strategyOf({ rollingUpdate: cautious }).rollingUpdate, cautious);
    // Kubernetes refuses both at once; the chart's default has the first.
    const surging = strategyOf({ rollingUpdate: { maxSurge: '10%' } }).rollingUpdate;
    assert.deepEqual(surging, { maxUnavailable: 0, maxSurge: '10%' });
  });

  it('opens the nodes with the DaemonSet itself, with the agent’s flags', () => {
    const nmi = { listenAddress: '127.0.0.1', iptablesBackend: 'legacy' };
    const { template, updateStrategy } = daemonSetOf(
      objects({ uninstall: { openNodes: true }, nmi }),
    );
    const [opener] = template.spec.initContainers ?? [];
    assert.deepEqual(opener?.args?.slice(0, 2), ['redirect', 'remove']);
    assert.ok(opener.args.includes('--nmi-listen-address=127.0.0.1'));
    assert.ok(opener.args.includes('--iptables-backend=legacy'));
    assert.deepEqual(opener.securityContext.capabilities.add, ['NET_ADMIN', 'NET_RAW', 'BPF']);
    assert.equal(environmentOf(opener)['NMI_BPF_PIN_FOLDER'], '/host/bpf/nmi');
    const [idle] = template.spec.containers;
    assert.deepEqual(idle?.command, ['sleep', 'infinity']);
    assert.deepEqual(idle?.securityContext.capabilities.add, []);
    assert.equal(updateStrategy.rollingUpdate['maxUnavailable'], '100%');
  });

  const account = 'account /var/run/secrets/kubernetes.io/serviceaccount read-only';
  /**
   * Needs of a redirect mode: capabilities, mounts and volumes, and the variables that name them.
   */
  const needs: Readonly<Record<string, readonly (readonly string[])[]>> = {
    auto: [
      ['NET_ADMIN', 'NET_RAW', 'BPF'],
      ['xtables-lock /run/xtables.lock', 'bpf /host/bpf', 'cgroup /host/cgroup read-only', account],
      ['NMI_CGROUP_ROOT=/host/cgroup', 'NMI_BPF_PIN_FOLDER=/host/bpf/nmi'],
    ],
    iptables: [
      ['NET_ADMIN', 'NET_RAW'],
      ['xtables-lock /run/xtables.lock', 'bpf /host/bpf', account],
      ['NMI_BPF_PIN_FOLDER=/host/bpf/nmi'],
    ],
    none: [[], ['bpf /host/bpf read-only', account], ['NMI_BPF_PIN_FOLDER=/host/bpf/nmi']],
  };
  for (const redirect of ['', 'auto', 'ebpf', 'iptables', 'none']) {
    const [capabilities, mounts, variables] = needs[redirect] ?? needs['auto'] ?? [];
    it(`gives what the redirect "${redirect}" needs, and no more`, () => {
      const nmi = { redirect, privilegeSplit: false, allowNetworkPluginKubenet: true };
      const all = objects({ nmi });
      const agent = agentOf(all);
      assert.deepEqual(agent.securityContext.capabilities.add ?? [], capabilities);
      const found = (agent.volumeMounts ?? []).map(({ name, mountPath, readOnly = false }) =>
        [name, mountPath, ...(readOnly ? ['read-only'] : [])].join(' '),
      );
      assert.deepEqual(found, mounts);
      const volumes = daemonSetOf(all).template.spec.volumes ?? [];
      const names = mounts?.map((mount) => mount.split(' ')[0]);
      assert.deepEqual(
        volumes.map(({ name }) => name),
        names,
      );
      const told = Object.entries(environmentOf(agent)).filter(([name]) => name.startsWith('NMI_'));
      const asked = redirect === '' ? [] : [`NMI_REDIRECT=${redirect}`];
      assert.deepEqual(
        told.map((words) => words.join('=')),
        [...(variables ?? []), ...asked],
      );
    });
  }

  it('has the alerts of the plain file, for its own workloads and with absolute links', () => {
    type Rule = { readonly expr: string; readonly annotations: { readonly runbook_url: string } };
    type Spec = { readonly groups: readonly { readonly rules: readonly Rule[] }[] };
    const rulesOf = (prometheusRule: object, values: object = {}) => {
      const rendered = objects({ ...values, prometheusRule: { enabled: true, ...prometheusRule } });
      return (specOf(rendered, 'PrometheusRule') as Spec).groups.flatMap(({ rules }) => rules);
    };
    assert.deepEqual(rulesOf({}), readAlerts());
    const named = rulesOf({ runbookBase: 'https://git.example/nmi' }, { nameOverride: 'apid' });
    const workloads = named.flatMap(({ expr }) =>
      [...expr.matchAll(/(?:daemonset|created_by_name|deployment)="([^"]*)"/g)].map(
        ([, name]) => name,
      ),
    );
    assert.deepEqual(workloads, ['apid-nmi', 'apid-nmi', 'apid-nmi', 'apid-nmi-conditions']);
    for (const { annotations } of named) {
      assert.match(annotations.runbook_url, /^https:\/\/git\.example\/nmi\/docs\//);
    }
  });

  it('has the plain dashboard in the place where Grafana’s sidecar finds it', () => {
    const rendered = objects({ dashboard: { enabled: true } });
    const map = rendered.find(({ kind }) => kind === 'ConfigMap');
    assert.equal(map?.metadata.labels?.['grafana_dashboard'], '1');
    const { 'entra-pod-identity.json': json = '' } = map['data'] as Readonly<
      Record<string, string>
    >;
    assert.deepEqual(JSON.parse(json), readDashboard());
    assert.ok(!objects().some(({ kind }) => ['ConfigMap', 'PrometheusRule'].includes(kind)));
  });

  it('splits the capabilities between two containers', () => {
    const all = objects({ nmi: { logLevel: 'debug' }, podMonitor: { enabled: true } });
    const [serving, kernel, ...others] = daemonSetOf(all).template.spec.containers;
    assert.ok(serving !== undefined && kernel !== undefined);
    assert.deepEqual(others, []);
    assert.deepEqual(serving.securityContext.capabilities, { drop: ['ALL'], add: [] });
    assert.equal(serving.securityContext.runAsUser, 65532);
    assert.deepEqual(kernel.securityContext.capabilities.add, ['NET_ADMIN', 'NET_RAW', 'BPF']);
    assert.deepEqual(kernel.args?.slice(0, 2), ['redirect', 'run']);
    const [side, server] = [
      configOf({ ...kernel, args: [...kernel.args.slice(2), '--node=any'] }),
      configOf(serving),
    ];
    assert.equal(side.redirect, 'auto');
    assert.equal(server.redirect, 'pinned');
    assert.equal(server.cgroupRoot, side.cgroupRoot);
    assert.equal(side.podUid, '7e570000-1ab0-4000-8000-000000000001');
    assert.deepEqual([server.probePort, server.metricsPort], [8085, 9090]);
    assert.deepEqual([side.probePort, side.metricsPort], [8086, 9091]);
    const writable = (serving.volumeMounts ?? []).filter(({ readOnly }) => readOnly !== true);
    // One folder in both containers, which has a file of each, and nothing else of eBPF on the serving side.
    assert.deepEqual(
      writable.map(({ name }) => name),
      ['shared'],
    );
    assert.equal(server.sharedFolder, side.sharedFolder);
    const mountOf = ({ volumeMounts = [] }: typeof serving) =>
      volumeMounts.find(({ mountPath }) => server.sharedFolder === mountPath)?.name;
    assert.equal(mountOf(serving), 'shared');
    assert.equal(mountOf(kernel), 'shared');
    assert.ok(!(serving.volumeMounts ?? []).some(({ mountPath }) => mountPath.includes('bpf')));
  });

  it('splits the capabilities with iptables alone too', () => {
    const all = objects({ nmi: { redirect: 'iptables' } });
    const { containers, volumes = [] } = daemonSetOf(all).template.spec;
    const [serving, kernel] = containers;
    assert.ok(serving !== undefined && kernel !== undefined);
    assert.deepEqual(serving.securityContext.capabilities, { drop: ['ALL'], add: [] });
    assert.deepEqual(kernel.securityContext.capabilities.add, ['NET_ADMIN', 'NET_RAW']);
    const side = configOf({ ...kernel, args: [...(kernel.args ?? []).slice(2), '--node=any'] });
    assert.deepEqual([side.redirect, configOf(serving).redirect], ['iptables', 'pinned']);
    const names = new Set(volumes.map(({ name }) => name));
    for (const { name } of [...(serving.volumeMounts ?? []), ...(kernel.volumeMounts ?? [])]) {
      assert.ok(names.has(name), name);
    }
  });

  it('leaves configured paths in the container unchanged', () => {
    const paths = { cgroupRoot: '/host/cgroup/kubelet', bpfPinFolder: '/host/bpf/other' };
    for (const privilegeSplit of [true, false]) {
      const all = objects({ nmi: { ...paths, privilegeSplit } });
      const { containers } = daemonSetOf(all).template.spec;
      const [agent, kernel = agent] = containers;
      assert.ok(agent !== undefined && kernel !== undefined);
      const typed = parseConfig({ node: 'any' }, environmentOf(kernel));
      assert.ok(typed.ok);
      assert.equal(typed.config.bpfPinFolder, paths.bpfPinFolder);
      for (const { cgroupRoot } of [configOf(agent), typed.config]) {
        assert.equal(cgroupRoot, paths.cgroupRoot);
      }
    }
  });

  it('is one container if there is no redirect for a second one', () => {
    const all = objects({ nmi: { redirect: 'none' } });
    const { containers, volumes = [] } = daemonSetOf(all).template.spec;
    assert.deepEqual(
      containers.map(({ name }) => name),
      ['nmi'],
    );
    assert.equal(configOf(containers[0] ?? assert.fail()).redirect, 'none');
    assert.ok(!volumes.some(({ name }) => name === 'shared'));
  });

  it('gives the second container ports that the values of the first leave free', () => {
    const portsOf = (nmi: object) => {
      const [, kernel] = daemonSetOf(objects({ nmi })).template.spec.containers;
      assert.ok(kernel !== undefined);
      const side = configOf({ ...kernel, args: [...(kernel.args ?? []).slice(2), '--node=any'] });
      return [side.probePort, side.metricsPort];
    };
    assert.deepEqual(portsOf({}), [8086, 9091]);
    assert.deepEqual(portsOf({ probePort: 8086, prometheusPort: '9091' }), [8087, 9092]);
    assert.deepEqual(portsOf({ port: 8086, prometheusPort: 8087 }), [8088, 8089]);
    assert.deepEqual(portsOf({ probePort: 9091 }), [9092, 9093]);
    const off = { probePort: 0, prometheusPort: 0 };
    assert.deepEqual(portsOf({ redirectSide: off }), [0, 0]);
    assert.deepEqual(
      portsOf({ ...off, redirectSide: { probePort: 9, prometheusPort: 10 } }),
      [9, 10],
    );
  });

  it('opens the nodes even if the current agent has no redirect', () => {
    const all = objects({ uninstall: { openNodes: true }, nmi: { redirect: 'none' } });
    const [opener] = daemonSetOf(all).template.spec.initContainers ?? [];
    assert.deepEqual(opener?.securityContext.capabilities.add, ['NET_ADMIN', 'NET_RAW', 'BPF']);
    assert.ok(opener.volumeMounts?.some(({ name, readOnly }) => name === 'bpf' && !readOnly));
    const config = parseConfig(
      { node: 'any', ...flagsOf({ ...opener, args: opener.args?.slice(2) ?? [] }) },
      environmentOf(opener),
    );
    assert.ok(config.ok && config.config.redirect === 'auto');
  });

  it('gives no capability, mount, probe or port that the settings do not need', () => {
    const nmi = {
      redirect: 'none',
      allowNetworkPluginKubenet: true,
      probePort: 0,
      prometheusPort: 0,
    };
    const all = objects({ nmi });
    const agent = agentOf(all);
    assert.equal(agent.securityContext.capabilities.add, undefined);
    const mounts = agent.volumeMounts?.map(({ name, readOnly }) => [name, readOnly]);
    assert.deepEqual(mounts, [
      ['bpf', true],
      ['account', true],
    ]);
    const { volumes = [] } = daemonSetOf(all).template.spec;
    assert.deepEqual(
      volumes.map(({ name }) => name),
      ['bpf', 'account'],
    );
    assert.equal(agent.livenessProbe, undefined);
    assert.equal(agent.readinessProbe, undefined);
    assert.equal(agent.ports, undefined);
  });

  it('refuses every value that the agent would refuse', () => {
    const texts = ['5', '-1', '70000', '5s', '25h', 'foo', 'a b', '1.2.3', '999.9.9.9', 'HTTP://x'];
    const values = chartValues().flatMap(({ path, option }) =>
      option === undefined ? [] : [{ path, option }],
    );
    const nest = (all: readonly (readonly [path: readonly string[], text: string])[]) => {
      const nested: Record<string, Record<string, string> | string> = {};
      for (const [[first = '', second], text] of all) {
        if (second === undefined) nested[first] = text;
        else nested[first] = { ...(nested[first] as object), [second]: text };
      }
      return nested;
    };
    for (const text of texts) {
      const wrong = values.filter(({ option }) => option.type.parse(text) === undefined);
      const { stderr } = runHelmTemplate({
        helm,
        values: nest(wrong.map(({ path }) => [path, text] as const)),
      });
      const missed = wrong.filter(({ path }) => !stderr.includes(`'/${path.join('/')}'`));
      for (const { path, option } of missed) {
        const { exitCode, stderr: said } = runHelmTemplate({ helm, values: nest([[path, text]]) });
        assert.equal(exitCode, 1, `${path.join('.')}=${text}`);
        // As the agent would say it.
        assert.ok(said.includes(`${path.join('.')}=${text} must be ${option.type.allowed}`), said);
      }
    }
  });

  it('writes no name that YAML reads as something else', () => {
    for (const name of ['y', 'on', '1', '1e3', 'null']) {
      const text = renderChart({
        helm,
        release: name,
        namespace: name,
        values: {
          nameOverride: name,
          rbac: {
            allowFederation: true,
            federationNamespaces: [name],
            allowAccessToSecrets: true,
            secretsNamespaces: [name],
            createUserFacingClusterRoles: true,
          },
          bootGuard: { enabled: true },
          podMonitor: { enabled: true },
          prometheusRule: { enabled: true },
          dashboard: { enabled: true },
          azureIdentities: {
            [name]: {
              type: 1,
              clientPassword: { name },
              binding: { selector: name, serviceAccount: name },
            },
          },
        },
      });
      for (const document of parseAllDocuments(text, { version: '1.1' })) {
        const object = document.toJS() as object;
        visit(object, '', (value, place) => {
          const isText = /[.](?:name|namespace|azureIdentity|selector)$|[Ll]abels[.]/.test(place);
          if (isText && typeof value !== 'object') {
            assert.equal(typeof value, 'string', `${name}: ${place}`);
          }
        });
      }
    }
  });

  const refused: readonly (readonly [values: object, says: RegExp])[] = [
    [{ operationMode: 'standard' }, /'\/operationMode': value must be 'managed'/],
    [{ nmi: { probeport: 1 } }, /'\/nmi': additional properties 'probeport' not allowed/],
    [{ nmi: { probePort: 70_000 } }, /'\/nmi\/probePort': maximum: got 70,000, want 65,535/],
    [{ nmi: { prometheusPort: 'http' } }, /'\/nmi\/prometheusPort': 'http' does not match/],
    [{ nmi: { listenAddress: 'fe80::1' } }, /'\/nmi\/listenAddress': 'fe80::1' does not match/],
    [{ nmi: { tag: '1.0 ' } }, /'\/nmi\/tag': '1.0 ' does not match/],
    [{ nmi: { allowMetadata: ['foo'] } }, /'\/nmi\/allowMetadata\/0': 'foo' does not match/],
    [
      { nmi: { addressStalenessLimit: 5 } },
      /nmi\.addressStalenessLimit=5 must be a duration from 10s to 24h, or 0/,
    ],
    [{ nmi: { redirect: 'ipvs' } }, /'\/nmi\/redirect': value must be one of 'auto', 'ebpf'/],
    [{ nmi: { metadataGuard: 'maybe' } }, /'\/nmi\/metadataGuard': value must be one of true/],
    [{ azureIdentities: { a: { type: 0 } } }, /'\/azureIdentities\/a': missing property 'binding'/],
    [
      { azureIdentities: { a: { type: 5, binding: { selector: 'a' } } } },
      /'\/azureIdentities\/a\/type': value must be one of 0, 1, 2, 3, 4/,
    ],
    [{ rbac: { pspEnabled: true } }, /'\/rbac\/pspEnabled': value must be one of false/],
    [
      { image: { repository: 'mcr.microsoft.com/oss/azure/aad-pod-identity' } },
      /image\.repository names the image of aad-pod-identity/,
    ],
    [
      { rbac: { allowAccessToSecrets: true } },
      /rbac\.allowAccessToSecrets needs rbac\.secretsNamespaces/,
    ],
    [{ nmi: { workloadIdentity: true } }, /nmi\.workloadIdentity needs rbac\.allowFederation/],
    [{ nmi: { redirectSide: { probePort: 8085 } } }, /port 8085 is given to both containers/],
    [{ nmi: { redirect: 'pinned' } }, /nmi\.redirect=pinned is what nmi\.privilegeSplit sets/],
    [{ nmi: { probePort: 2579 } }, /nmi\.probePort must differ from nmi\.port/],
    [
      { nmi: { redirect: 'address' } },
      /nmi\.redirect=address is no mode any more: set auto, ebpf or iptables, .* nothing else has to change\n/,
    ],
    [
      { nmi: { prometheusPort: 0 }, podMonitor: { enabled: true } },
      /podMonitor, serviceMonitor and prometheusRule need the metrics page/,
    ],
  ];
  for (const [values, says] of refused) {
    it(`refuses ${JSON.stringify(values)} readably`, () => {
      const { exitCode, stderr } = runHelmTemplate({ helm, values });
      assert.notEqual(exitCode, 0);
      assert.match(stderr, says);
    });
  }
});
