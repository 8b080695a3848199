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
import { parse, parseAllDocuments } from 'yaml';
import { chartFolder, chartValues } from '../../../scripts/chart-schema.ts';
import { renderManifests } from '../../../scripts/manifests.ts';
import { parseConfig, type Config } from '../../../src/nmi/config/config.ts';
import { provideCluster, provideHelm } from '../support/binaries.ts';
import { allShellBlocks } from '../support/page-commands.ts';
import {
  agentOf,
  at,
  daemonSetOf,
  defaultOf,
  environmentOf,
  flagsOf,
  objectsOf,
  renderChart,
  rightsOf,
  runHelmTemplate,
  specOf,
  testRepository,
  withoutRelease,
  type Container,
  type KubeObject,
  type RenderOptions,
} from './chart-render.ts';
import { newValues, oldValues } from './chart-values.ts';
import { readAlerts, readDashboard } from '../../unit/deploy/monitoring/queries.ts';

const deploy = join(import.meta.dirname, '../../../deploy');
const provided = provideHelm();
const skip = provided.missing ?? false;
const helm = provided.programs ?? '';
const kubectl = provideCluster().programs?.kubectl;

function objects(values: object = {}, options: Omit<RenderOptions, 'helm'> = {}) {
  return objectsOf(renderChart({ helm, values, ...options }));
}

/** Kind, namespace and name of those that the values add or remove. */
function namesOf(all: readonly KubeObject[], pattern: RegExp): readonly string[] {
  const names = all.map(({ kind, metadata: { name, namespace = '' } }) =>
    [kind, namespace, name].filter((word) => word !== '').join(' '),
  );
  return names.filter((name) => pattern.test(name));
}

function containersOf(values: object): readonly [agent: Container, kernel: Container] {
  const [agent, kernel = agent] = daemonSetOf(objects(values)).template.spec.containers;
  assert.ok(agent !== undefined && kernel !== undefined);
  return [agent, kernel];
}

/** The arguments after the verbs, as the program parses them. */
function parseArguments(container: Container) {
  const args = container.args?.filter((word) => word.startsWith('-')) ?? [];
  const flags = { node: 'any', ...flagsOf({ ...container, args }) };
  const parsed = parseConfig(flags, environmentOf(container));
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed;
}

const configOf = (container: Container): Config => parseArguments(container).config;

/** Asserts only the fields that are expected. */
function assertFields(actual: object, expected: object): void {
  const fields = Object.entries(actual).filter(([name]) => Object.hasOwn(expected, name));
  assert.deepEqual(Object.fromEntries(fields), expected);
}

/** Every value below, with the names that lead to it. */
function visit(value: unknown, place: string, on: (value: unknown, place: string) => void): void {
  on(value, place);
  if (typeof value !== 'object' || value === null) return;
  for (const [name, each] of Object.entries(value)) visit(each, `${place}.${name}`, on);
}

const ofEveryObject =
  /^\S+ [\w-]+\.(?:apiVersion|kind|metadata\.name|metadata\.labels\.(?:app|helm).*)$/;

/** Each leaf of the objects, as a line. */
function leavesOf(all: readonly KubeObject[]): ReadonlySet<string> {
  const leaves = new Set<string>();
  for (const object of all) {
    visit(object, `${object.kind} ${object.metadata.name}`, (value, place) => {
      if (typeof value === 'object' || ofEveryObject.test(place)) return;
      leaves.add(`${place.replace(/\.\d+$/, '')}: ${JSON.stringify(value)}`);
    });
  }
  return leaves;
}

/** Objects that other tests here compare with files. */
const comparedElsewhere = /^(?:PrometheusRule|ValidatingAdmissionPolicy|ClusterRole|RoleBinding) /;

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

  for (const [name, values] of Object.entries({ oldValues, newValues })) {
    // To write it again: node --test --test-update-snapshots test/cluster/chart/chart.helm.test.ts
    it(`differs from its defaults by ${name} as before`, (t) => {
      const [plain, changed] = [{}, values].map((each) => leavesOf(objects(each)));
      assert.ok(plain !== undefined && changed !== undefined);
      const lines = [
        ...[...plain.difference(changed)].map((leaf) => `- ${leaf}\n`),
        ...[...changed.difference(plain)].map((leaf) => `+ ${leaf}\n`),
      ].filter((line) => !comparedElsewhere.test(line.slice(2)));
      const golden = join(import.meta.dirname, 'goldens', `${name}.golden`);
      t.assert.fileSnapshot(lines.join(''), golden, {
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

  const noKubectl = kubectl === undefined && 'kubectl cannot be built';
  it('renders the objects that kustomize renders', { skip: noKubectl }, () => {
    const kustomize = (folder: string): readonly KubeObject[] => {
      const words = ['kustomize', join(deploy, 'kustomize', folder)];
      const run = spawnSync(kubectl ?? '', words, { encoding: 'utf8', timeout: 60_000 });
      assert.equal(run.status, 0, run.stderr);
      return objectsOf(run.stdout);
    };
    const charted = (values: object, flags: readonly string[] = []) =>
      // Kustomize sets the registry with `images:`.
      objectsOf(renderChart({ helm, values, flags }).replaceAll(`${testRepository}/`, ''));
    const rbac = {
      allowAccessToSecrets: true,
      secretsNamespaces: ['my-namespace'],
      allowFederation: true,
    };
    const rights = /-(?:secrets|federation|federation-audiences|fence-token-requests)$/;
    // Only the rights files contain more than the defaults. The agent of the manifests has the rights for every version.
    const expected = [
      ...charted({ nmi: { privilegeSplit: false } }, ['--include-crds', '--kube-version=1.35.0']),
      ...charted({ rbac, nmi: { workloadIdentity: true } }).filter(({ metadata: { name } }) =>
        rights.test(name),
      ),
    ];
    const all = ['agent', 'secrets', 'federation'].flatMap(kustomize);
    assert.deepEqual(withoutRelease(all), withoutRelease(expected));
    const opening = charted({ uninstall: { openNodes: true } });
    const daemonSets = opening.filter(({ kind }) => kind === 'DaemonSet');
    assert.deepEqual(withoutRelease(kustomize('open-nodes')), withoutRelease(daemonSets));
  });

  it('starts the agent with arguments that it accepts, each value under its flag', () => {
    const parsed = (values: object) => parseArguments(agentOf(objects(values)));
    assert.deepEqual(parsed({}).warnings, []);
    assertFields(parsed(newValues).config, {
      cloud: 'usgovernment',
      workloadIdentity: true,
      allowedAreas: ['attested', 'loadbalancer'],
      addressStalenessLimitMs: 1_800_000,
      rightsStalenessLimitMs: 7_200_000,
      explainSocket: '/run/nmi.sock',
    });
    const old = parsed(oldValues);
    assertFields(old.config, {
      metricsPort: 9091,
      redirectIntervalMs: 60_000,
      blockInstanceMetadata: true,
      customUserAgent: 'acme/1',
      logLevel: 'debug',
    });
    const noEffect = old.warnings.map((text) => /^--?([\w-]+)/.exec(text)?.[1]).toSorted();
    assert.deepEqual(noEffect, [
      ...['MICNamespace', 'enable-conntrack-deletion', 'enableScaleFeatures'],
      ...['find-identity-retry-interval', 'retry-attempts-for-created', 'set-retry-after-header'],
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
    const names = beside.map(({ metadata: { name } }) => name);
    assert.deepEqual([...new Set(names)].toSorted(), [
      ...['new-aks-addon-exception', 'new-nmi', 'new-nmi-conditions', 'new-nmi-hold-to-node'],
    ]);
    assert.equal(names.length, 13);
    for (const all of [plain, beside]) {
      const { selector, template } = daemonSetOf(all);
      assertFields({ ...template.metadata.labels }, { ...selector.matchLabels });
    }
  });

  it('gives the agents by the commands of the README the right that its example needs', async () => {
    const readme = await readFile(join(chartFolder, '../../README.md'), 'utf8');
    assert.match(readme, /^ {2}type: 3 /m);
    const flags = allShellBlocks(readme)
      .flatMap((block) => [...block.matchAll(/^helm upgrade .*/gm)])
      .flatMap(([line]) => [...line.matchAll(/--set \S+/g)])
      .flatMap(([words]) => words.split(' '));
    const rights = rightsOf(objects({}, { flags }));
    assert.equal(rights.filter((right) => right.includes('serviceaccounts/token')).length, 1);
  });

  it('guards the boot by a DaemonSet of its own, and shows the agent no folder of the host for it', () => {
    const bootGuard = { enabled: true };
    for (const values of [{}, { bootGuard, uninstall: { openNodes: true } }]) {
      assert.deepEqual(namesOf(objects(values), /-boot-guard$/), []);
    }
    const all = objects({ nameOverride: 'new', bootGuard });
    const own = all.filter(({ metadata: { name } }) => name === 'new-nmi-boot-guard');
    const { selector, template } = daemonSetOf(own);
    assertFields({ ...template.metadata.labels }, { ...selector.matchLabels });
    assert.equal(selector.matchLabels['app.kubernetes.io/component'], 'boot-guard');
    const { initContainers = [], containers } = template.spec;
    const folder = { name: 'boot-guard', mountPath: '/host/systemd' };
    assert.deepEqual(initContainers[0]?.volumeMounts, [folder]);
    assert.deepEqual(initContainers[0]?.securityContext.capabilities, { drop: ['ALL'] });
    const mounts = containers.map(({ volumeMounts }) => volumeMounts);
    assert.deepEqual(mounts, [undefined]);
    const agent = all.filter(({ metadata: { name } }) => name === 'new-nmi');
    assert.doesNotMatch(JSON.stringify(agent), /systemd/);
  });

  it('lets the add-ons of AKS keep the identities of the node if owners are enforced', () => {
    const flags = ['--api-versions=aadpodidentity.k8s.io/v1/AzureIdentityGrant'];
    const grantsOf = (values: object, options: Omit<RenderOptions, 'helm'>) =>
      objects(values, options).flatMap((object) =>
        object.kind === 'AzureIdentityGrant' ? [object['spec']] : [],
      );
    const grant = { namespaces: ['kube-system'], nodeIdentities: true };
    assert.deepEqual(grantsOf({}, { flags }), [grant]);
    assert.deepEqual(grantsOf({}, {}), [], 'a cluster may not have the kind');
    assert.deepEqual(grantsOf({ installMICException: false }, { flags }), []);
    const modeOf = (nmi: object) => configOf(agentOf(objects({ nmi }))).identityOwners;
    assert.deepEqual([modeOf({}), modeOf({ identityOwners: 'enforce' })], ['warn', 'enforce']);
  });

  it('lets editors of a namespace bind identities, and administrators create them', () => {
    const roles = objects({ rbac: { createUserFacingClusterRoles: true } });
    const write = 'create+update+patch+delete+deletecollection';
    for (const [suffix, right] of [
      ['-edit', `${write} azureidentitybindings`],
      ['-admin', `${write} azureidentities+azurepodidentityexceptions`],
      ['-view', 'get+list+watch azureidentities+azureidentitybindings+azurepodidentityexceptions'],
    ] as const) {
      const own = roles.filter(({ metadata }) => metadata.name.endsWith(suffix));
      assert.deepEqual(rightsOf(own), [right]);
    }
  });

  it('accepts the digest of an image', () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    const { image } = agentOf(objects({ image: { digest } }));
    assert.equal(image, `${testRepository}/entra-pod-identity@${digest}`);
  });

  it('renders each policy with a value, the same as in its file', async () => {
    const plain = objects().length;
    for (const [value, name] of [
      ['bindingLabel', 'binding-label'],
      ['dropNetRaw', 'drop-net-raw'],
      ['identityOwners', 'identity-owners'],
      ['warnIdentities', 'warn-identities'],
    ] as const) {
      const file = objectsOf(await readFile(join(deploy, `policies/${name}.yaml`), 'utf8'));
      const all = objects({ policies: { [value]: true } });
      assert.equal(all.length, plain + file.length, value);
      for (const each of file) assert.ok(all.some((other) => isDeepStrictEqual(other, each)));
    }
  });

  it('is tested by a pod that succeeds once the agent of its node is ready', () => {
    const testOf = (values: object) =>
      objects(values, { withTests: true }).find(({ kind }) => kind === 'Pod')?.['spec'];
    const test = testOf({});
    assert.equal(at(test, 'hostNetwork'), true);
    assert.deepEqual(at(test, 'initContainers.0.startupProbe'), {
      httpGet: { host: '127.0.0.1', port: 8085, path: '/readyz' },
      periodSeconds: 1,
      failureThreshold: 60,
    });
    assert.equal(testOf({ nmi: { probePort: 0 } }), undefined);
    assert.equal(testOf({ uninstall: { openNodes: true } }), undefined);
  });

  const base = [
    'impersonate:associated-node nodes',
    'impersonate-on:associated-node:list+impersonate-on:associated-node:watch pods',
    'list+watch azureidentities+azureidentitybindings+azureidentitygrants+azurepodidentityexceptions',
    'create events',
  ];

  it('grants only what the enabled features need', () => {
    const conditions = [
      'list+watch azureidentities+azureidentitybindings+azureidentitygrants',
      'patch azureidentities/status+azureidentitybindings/status',
      'get daemonsets nmi',
    ];
    const granted = (rbac: object, nmi: object = {}) =>
      rightsOf(objects({ rbac, nmi, conditions: { enabled: false } }));
    assert.deepEqual(rightsOf(objects()).toSorted(), [...base, ...conditions].toSorted());
    assert.deepEqual(rightsOf(objects({ uninstall: { openNodes: true } })), base);
    assert.deepEqual(granted({}), base);
    assert.deepEqual(granted({}, { events: false }), base.slice(0, 3));
    assert.deepEqual(rightsOf(objects({ rbac: { enabled: false } })), []);
    const more = (rbac: object, nmi: object = {}) =>
      granted(rbac, nmi).filter((right) => !base.includes(right));
    const secretsNamespaces = ['shop'];
    assert.deepEqual(more({ allowAccessToSecrets: true, secretsNamespaces }), ['get secrets']);
    assert.deepEqual(more({ allowAccessToSecrets: 'false' }), []);
    const federation = { allowFederation: true };
    const [token, audiences, ...none] = more(federation);
    assert.deepEqual(none, []);
    assert.equal(token, 'impersonate-on:associated-node:create serviceaccounts/token');
    assert.match(audiences ?? '', /^request-serviceaccounts-token-audience /);
    const own = more(federation, { entraAudience: 'api://own' }).at(-1) ?? '';
    assert.match(own, /^request-\S+ api:\/\/AzureADTokenExchange\+.*\+api:\/\/own$/);
    assert.ok(more(federation, { workloadIdentity: true }).includes('get serviceaccounts'));
  });

  it('binds the rights on Secrets and on tokens only in the namespaces that are named', () => {
    const secrets = { allowAccessToSecrets: true, secretsNamespaces: ['shop', 'pay'] };
    const oneNamespace = { allowFederation: true, federationNamespaces: ['shop'] };
    for (const [rbac, suffix, expected] of [
      [secrets, 'secrets', ['ClusterRole', 'RoleBinding shop', 'RoleBinding pay']],
      // Kubelets get the audiences in these only.
      [oneNamespace, 'federation-audiences', ['ClusterRole', 'RoleBinding shop']],
      [{ allowFederation: true }, 'federation-audiences', ['ClusterRole', 'ClusterRoleBinding']],
    ] as const) {
      const names = namesOf(objects({ rbac }), new RegExp(`-${suffix}$`));
      const ends = names.map((name) => name.split(' ').slice(0, -1).join(' '));
      assert.deepEqual(ends.toSorted(), [...expected].toSorted());
    }
  });

  it('holds agents to their nodes by policies where the API server does not', () => {
    const federated = { allowFederation: true, federationNamespaces: ['shop'] };
    const renderFor = (version: string, values: object) =>
      objects(values, { flags: [`--kube-version=${version}`] });
    const [hold, fence] = ['nmi-hold-to-node', 'nmi-fence-token-requests'];
    for (const [version, values, expected] of [
      ['1.36.0', { rbac: federated }, [fence, hold]],
      ['1.36.0', {}, [hold]],
      ['1.35.9', { rbac: federated, nameOverride: 'x' }, [`x-${fence}`, `x-${hold}`]],
      ['1.29.0', { rbac: federated }, []],
      ['1.36.0', { nmi: { events: false } }, []],
      ['1.36.0', { nmi: { events: false, startupTaint: 'a/b' } }, [hold]],
    ] as const) {
      const policies = namesOf(renderFor(version, values), /^ValidatingAdmissionPolicy /);
      assert.deepEqual(
        policies.map((name) => name.split(' ')[1]),
        expected,
      );
    }
    const before = renderFor('1.35.9', { rbac: federated, nameOverride: 'second' });
    for (const policy of before.filter(({ kind }) => kind === 'ValidatingAdmissionPolicy')) {
      const account = "'system:serviceaccount:kube-system:second-nmi'";
      assert.ok(JSON.stringify(policy).includes(account), policy.metadata.name);
    }
    const rights = rightsOf(before);
    for (const right of ['create serviceaccounts/token', 'list+watch pods']) {
      assert.ok(rights.includes(right), right);
    }
    assert.deepEqual(namesOf(before, /-federation$/), [
      'ClusterRole second-nmi-federation',
      'RoleBinding shop second-nmi-federation',
    ]);
  });

  it('gives a token of the API server to the container that asks it, and to no other', () => {
    const { automountServiceAccountToken, containers } = daemonSetOf(objects()).template.spec;
    assert.equal(automountServiceAccountToken, false);
    const folder = '/var/run/secrets/kubernetes.io/serviceaccount';
    const mounts = containers.map(({ volumeMounts = [] }) =>
      volumeMounts.some(({ mountPath }) => mountPath === folder),
    );
    assert.deepEqual(mounts, [true, false]);
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
    const readersOf = (values: object) =>
      objects(values).flatMap((object) =>
        namesOf([object], /^RoleBinding .*-secrets$/).length === 0 ? [] : [object['subjects']],
      );
    const readers = (...names: readonly string[]) => [
      names.map((name) => ({ kind: 'ServiceAccount', name, namespace: 'kube-system' })),
    ];
    const agents = 'aad-pod-id-nmi-service-account';
    assert.deepEqual(readersOf(secrets), readers(agents, 'nmi-conditions'));
    assert.deepEqual(readersOf({ ...secrets, ...off }), readers(agents));
    assert.deepEqual(namesOf(objects(off), /conditions/), []);
    const conditions = { maxWatchEventsPerSec: 9_000 };
    const all = objects({ ...newValues, conditions, podMonitor: { enabled: true } });
    const { template } = specOf(all, 'Deployment') as ReturnType<typeof daemonSetOf>;
    const [container] = template.spec.containers;
    assert.equal(container?.args?.[0], 'conditions');
    const written = configOf(container);
    const { cloud, entraAuthorities, entraAudience, identityOwners } = configOf(agentOf(all));
    const alike = { cloud, entraAuthorities, entraAudience, identityOwners };
    assertFields(written, { ...alike, maxWatchEventsPerSec: 9_000 });
    const monitors = all.filter(({ kind }) => kind === 'PodMonitor');
    assert.equal(monitors.length, 2);
    for (const { metadata, spec } of monitors) {
      const labels = Object.entries(at(spec, 'selector.matchLabels') as object);
      const matches = labels.every(([label, value]) => template.metadata.labels[label] === value);
      assert.equal(matches, metadata.name.endsWith('-conditions'), metadata.name);
    }
  });

  it('starts the new agent of a node beside the old one where an update may surge', () => {
    const rollingUpdate = { maxUnavailable: 0, maxSurge: 1 };
    const monitor = { enabled: true };
    const all = objects({
      nmi: { updateStrategy: { rollingUpdate } },
      podMonitor: monitor,
      serviceMonitor: monitor,
    });
    const { template, updateStrategy } = daemonSetOf(all);
    assert.deepEqual(updateStrategy.rollingUpdate, rollingUpdate);
    // With more, the controller ignores the new pod, and the update stops.
    const waits = [all, objects()].map((each) => at(specOf(each, 'DaemonSet'), 'minReadySeconds'));
    assert.deepEqual(waits, [0, 10]);
    const [agent, kernel] = template.spec.containers;
    // Two pods would conflict over the host's ports.
    assert.deepEqual([agent?.ports, kernel?.ports], [undefined, undefined]);
    assert.deepEqual(agent?.startupProbe?.exec?.command, ['nmi', 'ready']);
    assert.ok(kernel !== undefined);
    assert.equal(environmentOf(kernel)['NMI_SLOT_FOLDER'], '/run/nmi-agent');
    const endpoints = at(specOf(all, 'PodMonitor'), 'podMetricsEndpoints') as readonly unknown[];
    assert.deepEqual(
      endpoints.map((each) => [at(each, 'port'), at(each, 'relabelings.1.replacement')]),
      [9090, 9091].map((port) => [undefined, `$1:${port}`]),
    );
    const ports = at(specOf(all, 'Service'), 'ports') as readonly unknown[];
    assert.deepEqual(
      ports.map((port) => at(port, 'targetPort')),
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
      const { startupProbe, ports } = agentOf(all);
      assert.deepEqual([startupProbe, ports === undefined], [undefined, false]);
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

  const all = ['NET_ADMIN', 'NET_RAW', 'BPF'];

  it('opens the nodes with the DaemonSet itself, with the agent’s flags', () => {
    for (const redirect of ['auto', 'none']) {
      const nmi = { redirect, listenAddress: '127.0.0.2', iptablesBackend: 'legacy' };
      const opening = daemonSetOf(objects({ uninstall: { openNodes: true }, nmi }));
      const [opener] = opening.template.spec.initContainers ?? [];
      assert.ok(opener !== undefined);
      assert.deepEqual(opener.args?.slice(0, 2), ['redirect', 'remove']);
      assert.ok(opener.args.includes('--nmi-listen-address=127.0.0.2'));
      assertFields(configOf(opener), {
        redirect: 'auto',
        iptablesBackend: 'legacy',
        bpfPinFolder: '/host/bpf/nmi',
      });
      assert.deepEqual(opener.securityContext.capabilities.add, all);
      assert.ok(opener.volumeMounts?.some(({ name, readOnly }) => name === 'bpf' && !readOnly));
      const [idle] = opening.template.spec.containers;
      assert.deepEqual(idle?.command, ['sleep', 'infinity']);
      assert.deepEqual(idle?.securityContext.capabilities.add, []);
      assert.equal(opening.updateStrategy.rollingUpdate['maxUnavailable'], '100%');
    }
  });

  const account = 'account /var/run/secrets/kubernetes.io/serviceaccount read-only';
  const lock = 'xtables-lock /run/xtables.lock';
  const cgroup = 'cgroup /host/cgroup read-only';
  const [root, pins] = ['NMI_CGROUP_ROOT=/host/cgroup', 'NMI_BPF_PIN_FOLDER=/host/bpf/nmi'];
  /** Needs of a redirect mode: capabilities, mounts and volumes, and the variables that name them. */
  const needs: readonly (readonly [mode: string, ...(readonly string[])[]])[] = [
    ['', all, [lock, 'bpf /host/bpf', cgroup, account], [root, pins]],
    ['auto', all, [lock, 'bpf /host/bpf', cgroup, account], [root, pins]],
    ['ebpf', all, [lock, 'bpf /host/bpf', cgroup, account], [root, pins]],
    ['iptables', ['NET_ADMIN', 'NET_RAW'], [lock, 'bpf /host/bpf', account], [pins]],
    ['none', [], ['bpf /host/bpf read-only', account], [pins]],
  ];
  for (const [redirect, capabilities, mounts = [], variables = []] of needs) {
    it(`gives what the redirect "${redirect}" needs, and no more`, () => {
      const rendered = objects({
        nmi: { redirect, privilegeSplit: false, allowNetworkPluginKubenet: true },
      });
      const agent = agentOf(rendered);
      assert.deepEqual(agent.securityContext.capabilities.add ?? [], capabilities);
      const found = (agent.volumeMounts ?? []).map(({ name, mountPath, readOnly = false }) =>
        [name, mountPath, ...(readOnly ? ['read-only'] : [])].join(' '),
      );
      assert.deepEqual(found, mounts);
      assert.deepEqual(
        daemonSetOf(rendered).template.spec.volumes?.map(({ name }) => name),
        mounts.map((mount) => mount.split(' ')[0]),
      );
      const told = Object.entries(environmentOf(agent)).map((words) => words.join('='));
      const asked = redirect === '' ? [] : [`NMI_REDIRECT=${redirect}`];
      assert.deepEqual(
        told.filter((words) => words.startsWith('NMI_')),
        [...variables, ...asked],
      );
    });
  }

  it('has the alerts of the plain file, for its own workloads and with absolute links', () => {
    type Rule = { readonly expr: string; readonly annotations: { readonly runbook_url: string } };
    const rulesOf = (prometheusRule: object, values: object = {}) => {
      const rendered = objects({ ...values, prometheusRule: { enabled: true, ...prometheusRule } });
      const groups = at(specOf(rendered, 'PrometheusRule'), 'groups') as readonly unknown[];
      return groups.flatMap((group) => at(group, 'rules') as readonly Rule[]);
    };
    assert.deepEqual(rulesOf({}), readAlerts());
    const named = rulesOf({ runbookBase: 'https://git.example/nmi' }, { nameOverride: 'apid' });
    const workload = /(?:daemonset|created_by_name|deployment)="([^"]*)"/g;
    const workloads = named.flatMap(({ expr }) =>
      [...expr.matchAll(workload)].map(([, name]) => name),
    );
    assert.deepEqual(workloads, ['apid-nmi', 'apid-nmi', 'apid-nmi', 'apid-nmi-conditions']);
    for (const { annotations } of named) {
      assert.match(annotations.runbook_url, /^https:\/\/git\.example\/nmi\/docs\//);
    }
  });

  it('has the plain dashboard in the place where Grafana’s sidecar finds it', () => {
    const map = objects({ dashboard: { enabled: true } }).find(({ kind }) => kind === 'ConfigMap');
    assert.equal(map?.metadata.labels?.['grafana_dashboard'], '1');
    const data = map['data'] as Readonly<Record<string, string>>;
    assert.deepEqual(JSON.parse(data['entra-pod-identity.json'] ?? ''), readDashboard());
    assert.deepEqual(namesOf(objects(), /^(?:ConfigMap|PrometheusRule)/), []);
  });

  it('splits the capabilities between two containers', () => {
    const [serving, kernel] = containersOf({ nmi: { logLevel: 'debug' } });
    assert.deepEqual(serving.securityContext.capabilities, { drop: ['ALL'], add: [] });
    assert.equal(serving.securityContext.runAsUser, 65532);
    assert.deepEqual(kernel.securityContext.capabilities.add, all);
    assert.deepEqual(kernel.args?.slice(0, 2), ['redirect', 'run']);
    const [side, server] = [configOf(kernel), configOf(serving)];
    const { cgroupRoot, sharedFolder } = side;
    const podUid = '7e570000-1ab0-4000-8000-000000000001';
    assertFields(side, { redirect: 'auto', podUid, probePort: 8086, metricsPort: 9091 });
    const ports = { probePort: 8085, metricsPort: 9090 };
    assertFields(server, { redirect: 'pinned', cgroupRoot, sharedFolder, ...ports });
    // One folder in both containers, which has a file of each, and nothing else of eBPF on the serving side.
    for (const { volumeMounts = [] } of [serving, kernel]) {
      const shared = volumeMounts.find(({ mountPath }) => mountPath === sharedFolder);
      assert.equal(shared?.name, 'shared');
    }
    const mounts = serving.volumeMounts ?? [];
    const writable = mounts.filter(({ readOnly }) => readOnly !== true);
    assert.equal(writable.length, 1, 'the shared folder');
    assert.ok(!mounts.some(({ mountPath }) => mountPath.includes('bpf')));
  });

  it('splits the capabilities with iptables alone too', () => {
    const nmi = { redirect: 'iptables' };
    const [serving, kernel] = containersOf({ nmi });
    assert.deepEqual(serving.securityContext.capabilities, { drop: ['ALL'], add: [] });
    assert.deepEqual(kernel.securityContext.capabilities.add, ['NET_ADMIN', 'NET_RAW']);
    const modes = [configOf(kernel), configOf(serving)].map(({ redirect }) => redirect);
    assert.deepEqual(modes, ['iptables', 'pinned']);
    const { volumes = [] } = daemonSetOf(objects({ nmi })).template.spec;
    const names = new Set(volumes.map(({ name }) => name));
    for (const { name } of [...(serving.volumeMounts ?? []), ...(kernel.volumeMounts ?? [])]) {
      assert.ok(names.has(name), name);
    }
  });

  it('leaves configured paths in the container unchanged', () => {
    const paths = { cgroupRoot: '/host/cgroup/kubelet', bpfPinFolder: '/host/bpf/other' };
    for (const privilegeSplit of [true, false]) {
      const [agent, kernel] = containersOf({ nmi: { ...paths, privilegeSplit } });
      // Also for a command that is typed in the container.
      assertFields(configOf({ ...kernel, args: [] }), paths);
      assert.equal(configOf(agent).cgroupRoot, paths.cgroupRoot);
    }
  });

  it('is one container, with no probe and no port, if the settings need none', () => {
    const off = { probePort: 0, prometheusPort: 0 };
    const rendered = objects({
      nmi: { redirect: 'none', allowNetworkPluginKubenet: true, ...off },
    });
    const { containers, volumes = [] } = daemonSetOf(rendered).template.spec;
    const [agent, ...others] = containers;
    assert.ok(agent !== undefined);
    assert.deepEqual(others, []);
    assert.equal(configOf(agent).redirect, 'none');
    const { livenessProbe, readinessProbe, ports, securityContext } = agent;
    const nothing = [livenessProbe, readinessProbe, ports, securityContext.capabilities.add];
    assert.deepEqual(nothing, [undefined, undefined, undefined, undefined]);
    assert.deepEqual(
      volumes.map(({ name }) => name),
      ['bpf', 'account'],
    );
  });

  it('gives the second container ports that the values of the first leave free', () => {
    const off = { probePort: 0, prometheusPort: 0 };
    for (const [nmi, probePort, metricsPort] of [
      [{}, 8086, 9091],
      [{ probePort: 8086, prometheusPort: '9091' }, 8087, 9092],
      [{ port: 8086, prometheusPort: 8087 }, 8088, 8089],
      [{ probePort: 9091 }, 9092, 9093],
      [{ redirectSide: off }, 0, 0],
      [{ ...off, redirectSide: { probePort: 9, prometheusPort: 10 } }, 9, 10],
    ] as const) {
      assertFields(configOf(containersOf({ nmi })[1]), { probePort, metricsPort });
    }
  });

  it('refuses every value that the agent would refuse', () => {
    const texts = ['5', '-1', '70000', '5s', '25h', 'foo', 'a b', '1.2.3', '999.9.9.9', 'HTTP://x'];
    const values = chartValues().flatMap(({ path, option }) =>
      option === undefined ? [] : [{ path, option }],
    );
    const nest = (paths: readonly (readonly string[])[], text: string) => {
      const nested: Record<string, Record<string, string> | string> = {};
      for (const [first = '', second] of paths) {
        if (second === undefined) nested[first] = text;
        else nested[first] = { ...(nested[first] as object), [second]: text };
      }
      return nested;
    };
    for (const text of texts) {
      const wrong = values.filter(({ option }) => option.type.parse(text) === undefined);
      const paths = wrong.map(({ path }) => path);
      const { stderr } = runHelmTemplate({ helm, values: nest(paths, text) });
      for (const { path, option } of wrong) {
        if (stderr.includes(`'/${path.join('/')}'`)) continue;
        const alone = runHelmTemplate({ helm, values: nest([path], text) });
        assert.equal(alone.exitCode, 1, `${path.join('.')}=${text}`);
        // As the agent would say it.
        const says = `${path.join('.')}=${text} must be ${option.type.allowed}`;
        assert.ok(alone.stderr.includes(says), alone.stderr);
      }
    }
  });

  it('writes no name that YAML reads as something else', () => {
    const enabled = { enabled: true };
    for (const name of ['y', 'on', '1', '1e3', 'null']) {
      const values = {
        nameOverride: name,
        rbac: {
          allowFederation: true,
          federationNamespaces: [name],
          allowAccessToSecrets: true,
          secretsNamespaces: [name],
          createUserFacingClusterRoles: true,
        },
        bootGuard: enabled,
        podMonitor: enabled,
        prometheusRule: enabled,
        dashboard: enabled,
        azureIdentities: {
          [name]: {
            type: 1,
            clientPassword: { name },
            binding: { selector: name, serviceAccount: name },
          },
        },
      };
      const text = renderChart({ helm, release: name, namespace: name, values });
      for (const document of parseAllDocuments(text, { version: '1.1' })) {
        visit(document.toJS(), '', (value, place) => {
          const isText = /[.](?:name|namespace|azureIdentity|selector)$|[Ll]abels[.]/.test(place);
          if (isText && typeof value !== 'object') {
            assert.equal(typeof value, 'string', `${name}: ${place}`);
          }
        });
      }
    }
  });

  const before136 = ['--kube-version=1.35.0'];
  const refused: readonly (readonly [values: object, says: RegExp, flags?: readonly string[]])[] = [
    [{ operationMode: 'standard' }, /'\/operationMode': value must be 'managed'/],
    [{ nmi: { probeport: 1 } }, /'\/nmi': additional properties 'probeport' not allowed/],
    [{ nmi: { probePort: 70_000 } }, /'\/nmi\/probePort': maximum: got 70,000, want 65,535/],
    [{ nmi: { prometheusPort: 'http' } }, /'\/nmi\/prometheusPort': 'http' does not match/],
    [{ nmi: { listenAddress: 'fe80::1' } }, /'\/nmi\/listenAddress': 'fe80::1' does not match/],
    [{ nmi: { tag: '1.0 ' } }, /'\/nmi\/tag': '1.0 ' does not match/],
    [{ nmi: { allowMetadata: ['foo'] } }, /'\/nmi\/allowMetadata\/0': 'foo' does not match/],
    [{ nmi: { addressStalenessLimit: 5 } }, /Limit=5 must be a duration from 10s to 24h, or 0/],
    [{ nmi: { redirect: 'ipvs' } }, /'\/nmi\/redirect': value must be one of 'auto', 'ebpf'/],
    [{ nmi: { metadataGuard: 'maybe' } }, /'\/nmi\/metadataGuard': value must be one of true/],
    [{ nmi: { identityOwners: 'on' } }, /'\/nmi\/identityOwners': value must be one of/],
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
    [{ image: { repository: '' } }, /image\.repository is empty\. Nobody publishes an image/],
    [{ image: { digest: 'sha256:0' } }, /'\/image\/digest': 'sha256:0' does not match/],
    [{ rbac: { allowAccessToSecrets: true } }, /AccessToSecrets needs rbac\.secretsNamespaces/],
    [
      { rbac: { allowFederation: true } },
      /allowFederation needs rbac\.federationNamespaces on Kubernetes v1\.35\.0/,
      before136,
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
  for (const [values, says, flags = []] of refused) {
    it(`refuses ${JSON.stringify(values)} readably`, () => {
      const { exitCode, stderr } = runHelmTemplate({ helm, values, flags });
      assert.equal(exitCode, 1);
      assert.match(stderr, says);
    });
  }
});

describe('the redirect by Cilium', { skip }, async () => {
  const folder = join(deploy, 'cilium');
  const policies = objectsOf(await readFile(join(folder, 'local-redirect.yaml'), 'utf8'));
  const values = parse(await readFile(join(folder, 'values.yaml'), 'utf8')) as object;
  const rendered = skip === false ? objects(values) : [];
  const metadataIp = defaultOf('metadata-ip');

  it('leads to the pods of the chart, from the address and to the port of the agent', () => {
    const daemonSet = rendered.find(({ kind }) => kind === 'DaemonSet');
    assert.equal(policies[0]?.metadata.namespace, daemonSet?.metadata.namespace);
    const redirect = specOf(policies, 'CiliumLocalRedirectPolicy');
    const ports = (name: string) => [{ port: defaultOf(name), protocol: 'TCP' }];
    assert.deepEqual(at(redirect, 'redirectFrontend'), {
      addressMatcher: { ip: metadataIp, toPorts: ports('metadata-port') },
    });
    assert.deepEqual(at(redirect, 'redirectBackend.toPorts'), ports('nmi-port'));
    const selected = at(redirect, 'redirectBackend.localEndpointSelector.matchLabels') as object;
    const { labels } = daemonSetOf(rendered).template.metadata;
    assert.deepEqual({ ...labels, ...selected }, labels);
  });

  it('denies the address itself, and switches no other policy on', () => {
    assert.deepEqual(specOf(policies, 'CiliumClusterwideNetworkPolicy'), {
      endpointSelector: {},
      enableDefaultDeny: { egress: false, ingress: false },
      egressDeny: [{ toCIDR: [`${metadataIp}/32`] }],
    });
  });

  it('uses an agent that changes nothing and listens on the address of its node', () => {
    const agent = agentOf(rendered);
    assert.deepEqual(agent.securityContext.capabilities, { drop: ['ALL'] });
    assert.deepEqual(
      agent.volumeMounts?.map(({ name, readOnly }) => [name, readOnly]),
      ['bpf', 'kubelet-config', 'account'].map((name) => [name, true]),
    );
    assertFields(configOf(agent), { redirect: 'none', listenIp: '10.0.0.4' });
  });
});
