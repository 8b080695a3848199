/**
 * Every object of the manifests, the policies and the chart before real API servers: accepted, with strict
 * field validation, and replacing the old DaemonSet. The definitions of other projects' kinds come from
 * those projects.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { parse, stringify } from 'yaml';
import { chartFolder } from '../../scripts/chart-schema.ts';
import { provideHelm } from './support/binaries.ts';
import { constraintFramework, prometheusOperator, provideModule } from './support/go-module.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import {
  at,
  flagsOf,
  objectsOf,
  renderChart,
  testRepository,
  type Container,
  type DaemonSetSpec,
  type RenderOptions,
} from './chart/chart-render.ts';
import { newValues, oldValues } from './chart/chart-values.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const read = (path: string): Promise<string> => readFile(join(deploy, path), 'utf8');
const helm = provideHelm();

const monitors = provideModule(prometheusOperator);
const constraints = provideModule(constraintFramework);
const monitorsIn = 'example/prometheus-operator-crd/monitoring.coreos.com_';
const definitions = [
  ...['podmonitors', 'servicemonitors', 'prometheusrules'].map(
    (plural) => [monitors, `${monitorsIn}${plural}.yaml`] as const,
  ),
  [constraints, 'deploy/crds.yaml'],
] as const;

/** By group: why its objects cannot be tested, undefined if they can. */
const foreign: Readonly<Record<string, string | undefined>> = {
  'monitoring.coreos.com': monitors.missing,
  'templates.gatekeeper.sh': constraints.missing,
  // Gatekeeper itself makes this definition, from the template.
  'constraints.gatekeeper.sh': 'its definition is made by a running Gatekeeper',
  'cilium.io': 'its definition is not at hand',
};

const renderings: Readonly<Record<string, Omit<RenderOptions, 'helm'>>> = {
  'its defaults': {},
  'another name': { namespace: 'default', values: { nameOverride: 'entra-pod-identity' } },
  'the values of the replaced chart': { values: oldValues },
  'its own values': { namespace: 'identity', values: newValues },
  'the hardened values': {
    values: parse(await read('chart/values-hardened.yaml')) as Readonly<Record<string, unknown>>,
  },
  'all rights in one': { values: { nmi: { privilegeSplit: false } } },
  'opening nodes': { values: { uninstall: { openNodes: true } } },
};

/** A DaemonSet of the replaced system, with the fields that affect its replacement. */
function oldDaemonSet(name: string, namespace: string, labels: Readonly<Record<string, string>>) {
  return stringify({
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name, namespace, labels },
    spec: {
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { hostNetwork: true, containers: [{ name: 'nmi', image: 'nmi:v1.8.17' }] },
      },
    },
  });
}

describeOnNewestVersion('the manifests', (cluster) => {
  before(async () => {
    for (const [{ programs: folder }, file] of definitions) {
      if (folder !== undefined) await cluster().kubectl(['create', '-f', join(folder, file)]);
    }
    await cluster().apply(await read('crds.yaml'));
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
  });

  const kinds = new Set<string>();
  async function assertTaken(yaml: string): Promise<void> {
    const objects = objectsOf(yaml).filter(
      ({ apiVersion }) => foreign[apiVersion.split('/')[0] ?? ''] === undefined,
    );
    for (const { kind, metadata } of objects) {
      kinds.add(kind);
      const { namespace = 'default' } = metadata;
      // The server has these two; without a service account they show a chart that it sees nothing there.
      if (['default', 'kube-system'].includes(namespace)) continue;
      await cluster().createNamespace(namespace);
    }
    const text = objects.map((object) => stringify(object)).join('---\n');
    const taken = await cluster().applyOverHttp(text, { dryRun: true });
    assert.equal(taken.length, objects.length);
  }

  for (const file of globSync(['*.yaml', 'policies/*.yaml'], { cwd: deploy }).sort()) {
    it(`in ${file} are accepted by the server`, async () => assertTaken(await read(file)));
  }
  for (const [group, why] of Object.entries(foreign)) {
    if (why !== undefined)
      it(`of ${group} are accepted by the server`, { skip: why }, () => assert.fail(why));
  }
  for (const [name, options] of Object.entries(renderings)) {
    it(`of the chart with ${name} are accepted by the server`, { skip: helm.missing }, () =>
      assertTaken(renderChart({ helm: helm.programs ?? '', ...options })),
    );
  }

  it('are of every kind', { skip: helm.missing ?? monitors.missing }, () => {
    for (const kind of [
      ...['DaemonSet', 'Deployment', 'NetworkPolicy', 'Service'],
      ...['PodMonitor', 'ServiceMonitor', 'PrometheusRule'],
    ]) {
      assert.ok(kinds.has(kind), kind);
    }
  });

  it('would be refused with an unknown field', async () => {
    const misspelt = (await read('nmi.yaml')).replace('hostNetwork: true', 'hostnetwork: true');
    const answer = cluster().applyOverHttp(misspelt, { dryRun: true });
    await assert.rejects(answer, /hostnetwork: field not declared/);
  });

  const daemonSetPath = '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi';

  /** What its pods run now, with nothing from before. */
  async function podsRun(): Promise<'the agent' | 'the agent in two' | 'what opens nodes'> {
    const daemonSet = await cluster().admin.expect('GET', daemonSetPath);
    const pod = at(daemonSet, 'spec.template.spec');
    const [opener, agent, second] = ['initContainers.0', 'containers.0', 'containers.1'].map(
      (place) => at(pod, place),
    );
    const rights = at(agent, 'securityContext.capabilities.add');
    const verbs = [opener, agent, second].map((container) =>
      (at(container, 'args') as readonly string[] | undefined)?.slice(0, 2).join(' '),
    );
    assert.deepEqual([at(agent, 'name'), at(pod, 'containers.2')], ['nmi', undefined]);
    if (opener !== undefined) {
      assert.deepEqual(verbs, ['redirect remove', undefined, undefined]);
      assert.deepEqual(at(agent, 'command'), ['sleep', 'infinity']);
      assert.deepEqual(
        [at(agent, 'livenessProbe'), rights, second],
        [undefined, undefined, undefined],
      );
      return 'what opens nodes';
    }
    assert.match(verbs[1] ?? '', /^--node=\$\(NODE_NAME\) /);
    assert.equal(at(agent, 'command'), undefined);
    assert.notEqual(at(agent, 'livenessProbe'), undefined);
    if (second === undefined) {
      assert.deepEqual(rights, ['NET_ADMIN', 'NET_RAW', 'BPF']);
      return 'the agent';
    }
    assert.deepEqual([rights, verbs[2]], [undefined, 'redirect run']);
    return 'the agent in two';
  }

  it('for kubectl replace each other, and never the old DaemonSet', async () => {
    await cluster().apply(oldDaemonSet('nmi', 'kube-system', { component: 'nmi', tier: 'node' }));
    // The old agent would open the node before the new one runs.
    await assert.rejects(cluster().apply(await read('nmi.yaml')), /field is immutable/);
    await cluster().kubectl(['delete', 'daemonset', 'nmi', '--namespace=kube-system']);
    for (const [file, runs] of [
      ['nmi.yaml', 'the agent'],
      ['nmi-split.yaml', 'the agent in two'],
      ['open-nodes.yaml', 'what opens nodes'],
      ['nmi.yaml', 'the agent'],
    ] as const) {
      await cluster().apply(await read(file));
      assert.equal(await podsRun(), runs);
    }
  });

  const image = `--set=image.repository=${testRepository}`;
  function runHelm(...words: readonly string[]) {
    return spawnSync(helm.programs ?? '', [...words, '--namespace=kube-system'], {
      encoding: 'utf8',
      timeout: 60_000,
      env: { ...process.env, KUBECONFIG: cluster().adminKubeconfig, HOME: cluster().folder },
    });
  }
  /** Helm on the release; returns what it prints. */
  function run(verb: string, ...words: readonly string[]): string {
    const { status, stdout, stderr } = runHelm(verb, 'nmi', ...words);
    assert.equal(status, 0, stderr);
    return stdout;
  }

  it(
    'are taken over, opened, rolled back and removed by helm',
    { skip: helm.missing },
    async () => {
      await cluster().apply(await read('nmi.yaml'));
      run('upgrade', chartFolder, '--install', '--take-ownership', '--server-side=false', image);
      assert.equal(await podsRun(), 'the agent in two');
      run('upgrade', chartFolder, '--reuse-values', '--set=uninstall.openNodes=true');
      assert.equal(await podsRun(), 'what opens nodes');
      const grant = ['get', 'azidg', 'aks-addon-exception', '-o', 'jsonpath={.spec}'];
      const spec = JSON.parse(await cluster().kubectl(grant)) as unknown;
      assert.deepEqual(spec, { namespaces: ['kube-system'], nodeIdentities: true });
      run('rollback');
      assert.equal(await podsRun(), 'the agent in two');
      run('upgrade', chartFolder, '--reuse-values', '--set=nmi.privilegeSplit=false');
      assert.equal(await podsRun(), 'the agent');
      run('uninstall');
      assert.equal((await cluster().admin.request('GET', daemonSetPath)).status, 404);
      const crds = await cluster().kubectl(['get', 'crds', '-o', 'name']);
      assert.match(crds, /azureidentities\.aadpodidentity\.k8s\.io/);
    },
  );

  it(
    'refuse a second release on the same nodes, and not beside aad-pod-identity',
    { skip: helm.missing },
    async () => {
      const old = { component: 'nmi', 'app.kubernetes.io/component': 'nmi' };
      await cluster().apply(oldDaemonSet('old-nmi', 'kube-system', old));
      run('upgrade', chartFolder, '--install', image);
      const second = (...flags: readonly string[]): string =>
        runHelm('upgrade', '--install', 'second', chartFolder, image, ...flags).stderr;
      const name = '--set=nameOverride=second,installMICException=false';
      const pool = '--set=nmi.nodeSelector.pool=second';
      const said = /DaemonSet nmi runs agents on the same nodes, and a node has one/;
      assert.match(second(name), said);
      assert.match(second(name, pool), said, 'the first one is on that pool too');
      run('upgrade', chartFolder, image, '--set=nmi.nodeSelector.pool=first');
      assert.match(second(name), said, 'the second one would be on its pool too');
      assert.equal(second(name, pool), '');
      assert.match(
        runHelm('upgrade', 'nmi', chartFolder, image).stderr,
        /DaemonSet second-nmi runs agents on the same nodes/,
      );
      const excluding =
        '--set-json=nmi.affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"pool","operator":"NotIn","values":["second"]}]}]}}}';
      run('upgrade', chartFolder, image, excluding);
      assert.equal(second(name, pool), '');
      assert.equal(runHelm('uninstall', 'second').status, 0);
      run('uninstall');
      await cluster().kubectl(['delete', 'daemonset', 'old-nmi', '--namespace=kube-system']);
    },
  );

  it(
    'start the new agent of a node beside the old one where that one passes its socket on',
    { skip: helm.missing },
    async () => {
      const upgrade = async (...flags: readonly string[]) => {
        run('upgrade', chartFolder, '--install', image, ...flags);
        const { spec } = await cluster().admin.expect('GET', daemonSetPath);
        const { maxSurge } = (spec as DaemonSetSpec).updateStrategy.rollingUpdate;
        return maxSurge;
      };
      const rollOut = async (updated: number) => {
        const { metadata } = await cluster().admin.expect('GET', daemonSetPath);
        const { generation } = metadata as unknown as { readonly generation: number };
        const status = { observedGeneration: generation, desiredNumberScheduled: 2 };
        await cluster().admin.expect(
          'PATCH',
          `${daemonSetPath}/status`,
          { status: { ...status, updatedNumberScheduled: updated } },
          { contentType: 'application/merge-patch+json' },
        );
      };
      assert.equal(await upgrade(), 0, 'a namespace that shows nothing');
      assert.equal(await upgrade(), 0, 'of which nothing is known yet');
      await rollOut(1);
      assert.equal(await upgrade(), 0, 'a node has the agent before');
      await rollOut(2);
      assert.equal(await upgrade(), 1);
      await rollOut(2);
      assert.equal(await upgrade('--set=nmi.tag=0.0.9'), 1);
      await rollOut(2);
      assert.equal(await upgrade('--set=nmi.redirect=iptables'), 0, 'another redirect');
      await rollOut(2);
      assert.equal(await upgrade('--set=nmi.redirect=iptables'), 1);
      await rollOut(2);
      assert.equal(await upgrade('--set=nmi.privilegeSplit=false'), 0, 'no folder for slots');
      await rollOut(2);
      assert.equal(await upgrade(), 0, 'the agents before cannot');
      await cluster().kubectl(['delete', 'daemonset', 'nmi', '--namespace=kube-system']);
      await cluster().kubectl(['create', 'serviceaccount', 'default', '--namespace=kube-system']);
      assert.equal(await upgrade(), 1, 'no agent to replace');
    },
  );

  describe('for --identity-owners', { skip: helm.missing }, () => {
    const root = '/apis/aadpodidentity.k8s.io/v1/namespaces/default';
    const oldNmi = '/apis/apps/v1/namespaces/default/daemonsets/nmi';

    /** The mode that agents and conditions have now, none being their default. */
    const modeNow = async (): Promise<string | undefined> => {
      const deployment = '/apis/apps/v1/namespaces/kube-system/deployments/nmi-conditions';
      const modes = [];
      for (const path of [daemonSetPath, deployment]) {
        const { spec } = await cluster().admin.expect('GET', path);
        const [container] = (spec as DaemonSetSpec).template.spec.containers;
        modes.push(flagsOf(container as Container)['identity-owners']);
      }
      assert.equal(modes[0], modes[1]);
      return modes[0];
    };
    const upgrade = (...flags: readonly string[]) => {
      run('upgrade', chartFolder, '--install', image, ...flags);
      return modeNow();
    };
    const installAnew = (...flags: readonly string[]) => {
      run('uninstall', '--ignore-not-found');
      return upgrade(...flags);
    };
    const create = (plural: string, kind: string, spec: object) =>
      cluster().admin.expect('POST', `${root}/${plural}`, {
        apiVersion: 'aadpodidentity.k8s.io/v1',
        kind,
        metadata: { name: 'x' },
        spec,
      });
    const remove = (path: string) => cluster().admin.expect('DELETE', path);
    const clientID = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
    const createIdentity = () => create('azureidentities', 'AzureIdentity', { clientID });

    it('enforce in a cluster without identities, and keep the mode of what is installed', async () => {
      assert.equal(await installAnew(), 'enforce');
      assert.match(run('status'), /no namespace uses an identity of the nodes\s+without a grant/);
      await createIdentity();
      assert.equal(await upgrade(), 'enforce');
      await remove(daemonSetPath);
      assert.equal(await upgrade(), 'enforce', 'a DaemonSet that somebody deleted');
      run('upgrade', chartFolder, '--reuse-values', '--set=uninstall.openNodes=true');
      assert.equal(await upgrade(), 'enforce', 'after the nodes were opened');
      assert.equal(await upgrade('--set=nmi.identityOwners=warn'), 'warn');
      await remove(`${root}/azureidentities/x`);
      assert.equal(await upgrade(), 'warn');
      assert.match(run('status'), /kubectl nmi grants/);
      assert.equal(await upgrade('--set=nmi.identityOwners=off'), 'off');
    });

    it('change nothing where something may be served already', async () => {
      await createIdentity();
      assert.equal(await installAnew(), undefined, 'an identity');
      await remove(`${root}/azureidentities/x`);
      assert.equal(await upgrade(), undefined, 'an agent without the flag');

      const exceptions = 'azurepodidentityexceptions';
      await create(exceptions, 'AzurePodIdentityException', { podLabels: { app: 'x' } });
      assert.equal(await installAnew(), undefined, 'an exception');
      await remove(`${root}/${exceptions}/x`);

      const named = `--set-json=azureIdentities={"a":{"type":0,"clientID":"${clientID}","binding":{"selector":"a"}}}`;
      assert.equal(await installAnew(named), undefined, 'an identity of the values');
      const variable = '--set-json=nmi.env=[{"name":"NMI_IDENTITY_OWNERS","value":"off"}]';
      assert.equal(await installAnew(variable), 'off', 'the variable, for the conditions too');
      const source = '"valueFrom":{"configMapKeyRef":{"name":"nmi","key":"owners"}}';
      const elsewhere = variable.replace('"value":"off"', source);
      assert.equal(await installAnew(elsewhere), undefined, 'a variable that is kept elsewhere');
    });

    it('take `enforce` from another release of the agent, and no other mode', async () => {
      run('uninstall');
      await cluster().apply(oldDaemonSet('nmi', 'default', { component: 'nmi', tier: 'node' }));
      assert.equal(await upgrade(), undefined);
      const contentType = 'application/strategic-merge-patch+json';
      const giveMode = async (mode: string): Promise<void> => {
        const args = ['--node=$(NODE_NAME)', '--identity-owners', mode];
        const spec = { template: { spec: { containers: [{ name: 'nmi', args }] } } };
        await cluster().admin.expect('PATCH', oldNmi, { spec }, { contentType });
      };
      await giveMode('enforce');
      assert.equal(await installAnew(), 'enforce');
      await giveMode('off');
      assert.equal(await installAnew(), undefined, 'which anybody may have made');
      await remove(oldNmi);
    });
  });
});
