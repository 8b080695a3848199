/**
 * A node with cgroupfs: its startup taint, reused addresses, a power cut, and the other
 * installation methods.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parse } from 'yaml';
import { aadPodIdentity, provideModule } from '../cluster/support/go-module.ts';
import { writeArchive } from '../../scripts/image/oci.ts';
import { repositoryRoot } from '../conventions/tree.ts';
import { askFrom, clientPod, describeAnswer, untilPodsReady } from './support/client-pods.ts';
import { eventuallyByProcess } from './support/machine.ts';
import { provideNodeSystem } from './support/node-system.ts';
import { productImage } from './support/images.ts';
import {
  assertNothingLeft,
  installChart,
  untilAgentEnded,
  untilRolledOut,
} from './support/install.ts';
import {
  assertClosed,
  assertIndependent,
  describeLoad,
  startLoad,
  startStaticLoad,
  type Load,
} from './support/load.ts';
import { grantOfIdentities, identities, openNode, type TestNode } from './support/node.ts';
import { assertGets, assertReusedAddress } from './support/pod-kinds.ts';

const nodeSystem = provideNodeSystem();
const old = provideModule(aadPodIdentity);
const startupTaint = 'nmi.example/starting';
describe('a real node with cgroupfs', { skip: nodeSystem.missing ?? false }, () => {
  let node: TestNode;
  let load: Load;

  before(async () => {
    assert.ok(nodeSystem.programs !== undefined);
    node = await openNode(nodeSystem.programs, { cgroupDriver: 'cgroupfs', startupTaint });
  });
  after(() => node?.[Symbol.asyncDispose]());

  /** A file of `deploy` with the image's registry, as set by the README's `sed`. */
  async function manifest(file: string): Promise<string> {
    const text = await readFile(join(repositoryRoot, 'deploy', file), 'utf8');
    return text.replaceAll('image: ', `image: ${productImage.repository}/`);
  }
  const applyText = (text: string): Promise<string> =>
    node.kubectl(['apply', '-f', '-'], { input: text });
  async function install(file: string): Promise<void> {
    await applyText(await manifest(file));
    await untilRolledOut(node);
  }
  const inSystem = '--namespace=kube-system';

  it('keeps pods off a node until its agent is ready', async () => {
    await node.apply(clientPod({ name: 'waiting', labels: { aadpodidbinding: 'app' } }));
    const waiting = ['wait', '--for=condition=PodScheduled=False', 'pod/waiting', '--timeout=30s'];
    await node.kubectl(waiting);
    // Agents of a cluster without identities enforce owners.
    await node.kubectl(['delete', 'azureidentities,azurepodidentityexceptions', '--all']);
    await installChart(node, { redirect: 'ebpf', startupTaint }, { bootGuard: { enabled: true } });
    const agent = await node.kubectl(['get', 'daemonset', 'nmi', inSystem, '--output=yaml']);
    assert.match(agent, /--identity-owners=enforce/);
    await node.apply(...identities(), grantOfIdentities);
    const guard = ['rollout', 'status', 'daemonset/nmi-boot-guard', inSystem, '--timeout=60s'];
    await node.kubectl(guard, { timeoutMs: 70_000 });
    await untilPodsReady(node, 'waiting');
    await assertGets(node, 'waiting', 'app');
  });

  it('returns the new pod’s token for a reused address', () => assertReusedAddress(node));

  it('is closed to pods from boot on after a power cut', async (t) => {
    load = await startLoad(node, 50);
    const staticLoad = startStaticLoad(node);
    await eventuallyByProcess(
      () => Promise.resolve(assert.ok((staticLoad.since(0).outcomes['400'] ?? 0) > 0)),
      60_000,
    );
    await node.machine.powerCut();
    const bootMs = Date.now();
    await node.boot();
    // The DaemonSet's status is from before the cut until the kubelet has reported.
    await eventuallyByProcess(() => assertGets(node, 'waiting', 'app'), 120_000);
    await untilRolledOut(node);
    await load.during(() => assertGets(node, 'waiting', 'app'));
    const report = load.since(bootMs);
    t.diagnostic(describeLoad(report));
    // Until the agent has started, policy routing cannot distinguish a pod on the host network from
    // the node.
    assertClosed(report, ['app', 'node']);
    // The kubelet may start it after the others.
    await eventuallyByProcess(() => {
      assert.ok((staticLoad.since(bootMs).outcomes['400'] ?? 0) > 0);
      return Promise.resolve();
    }, 60_000);
    const { outcomes } = staticLoad.since(bootMs);
    t.diagnostic(`static: ${JSON.stringify(outcomes)}`);
    assert.ok(!Object.keys(outcomes).some((outcome) => outcome.startsWith('200')));
  });

  it('serves, refuses and hides what the hardened values say', async () => {
    const file = join(repositoryRoot, 'deploy/chart/values-hardened.yaml');
    const { nmi, ...more } = parse(await readFile(file, 'utf8')) as Readonly<
      Record<string, object>
    >;
    await installChart(node, { redirect: 'ebpf', ...nmi }, more);
    await node.kubectl(['delete', 'azureidentitygrant', grantOfIdentities.metadata.name]);
    await eventuallyByProcess(() => assertGets(node, 'load-bound', '400'), 30_000);
    await applyText(await node.plugin(['grants']));
    await eventuallyByProcess(() => assertGets(node, 'load-bound', 'app'), 30_000);
    await assertGets(node, 'load-unbound', '400');
    await assertGets(node, 'load-host', '403');
    const listening = await node.machine.run(['ss', '--listening', '--tcp', '--numeric']);
    assert.deepEqual([...new Set(listening.match(/\S+(?=:909[01] )/g))], ['127.0.0.1']);
    assert.ok(existsSync(node.machine.path('/etc/systemd/system/nmi-guard.service')));
  });

  it('imports an archive of ./dev image under its name', async () => {
    const folder = node.machine.path('/srv/archive');
    mkdirSync(join(folder, 'root'), { recursive: true });
    const image = {
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      root: join(folder, 'root'),
    };
    const name = 'localhost/an-image:1.2.3';
    const facts = { epoch: 1_700_000_000, version: '1.2.3', name, labels: {} };
    writeArchive(join(folder, 'layout'), join(folder, 'archive.tar'), [image], facts);
    const ctr = ['ctr', '--namespace=k8s.io', 'images'];
    await node.machine.run([...ctr, 'import', '/srv/archive/archive.tar']);
    const names = await node.machine.run([...ctr, 'list', '--quiet']);
    assert.ok(names.split('\n').includes(name), names);
  });

  it('opens by the chart, and removes the unit of the guard', async () => {
    const uninstall = { uninstall: { openNodes: true } };
    await installChart(node, { redirect: 'ebpf' }, uninstall);
    await assertGets(node, 'load-unbound', 'node');
    await node.helm(['uninstall', 'nmi', inSystem, '--wait']);
    await assertNothingLeft(node);
  });

  it('serves pods installed by nmi.yaml', async () => {
    await install('nmi.yaml');
    await assertGets(node, 'load-bound', 'app');
    await assertGets(node, 'load-unbound', '400');
    await assertGets(node, 'load-host', 'app');
  });

  it('writes status conditions by a pod that is no agent', async () => {
    const patience = '--timeout=120s';
    await node.kubectl(['rollout', 'status', 'deployment/nmi-conditions', inSystem, patience], {
      timeoutMs: 130_000,
    });
    await node.apply({
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentityBinding',
      metadata: { name: 'new', namespace: 'default' },
      spec: { azureIdentity: 'app', selector: 'new' },
    });
    await node.kubectl(['wait', '--for=condition=Ready', 'azidb/new', patience], {
      timeoutMs: 130_000,
    });
    const log = ['logs', 'deployment/nmi-conditions', inSystem];
    assert.doesNotMatch(await node.kubectl(log), /"level":"error"/);
  });

  it('names the missing permission for federation', async () => {
    await node.apply(clientPod({ name: 'federated', labels: { aadpodidbinding: 'fed' } }));
    await untilPodsReady(node, 'federated');
    await eventuallyByProcess(async () => {
      const answer = describeAnswer(await askFrom(node, 'federated'));
      assert.match(answer, /^400 .*serviceaccounts\/token/, answer);
    }, 30_000);
  });

  it('stays closed when the agent is deleted without opening the node', async (t) => {
    await node.kubectl(['delete', '-f', '-', '--wait'], { input: await manifest('nmi.yaml') });
    await untilAgentEnded(node);
    const startMs = Date.now();
    await delay(3_000);
    const report = load.since(startMs);
    t.diagnostic(describeLoad(report));
    for (const name of ['bound', 'unbound', 'host'] as const) {
      assert.deepEqual(Object.keys(report[name].outcomes), ['ECONNREFUSED'], describeLoad(report));
    }
    assertIndependent(report);
  });

  it('opens by open-nodes.yaml, and nothing is left of it', async () => {
    await install('open-nodes.yaml');
    await assertGets(node, 'load-unbound', 'node');
    await node.kubectl(['delete', '-f', '-', '--wait', '--ignore-not-found'], {
      input: await manifest('nmi.yaml'),
    });
    await assertNothingLeft(node);
  });

  it('runs by the manifest of the old agent', { skip: old.missing ?? false }, async () => {
    const path = join(old.programs ?? '', 'deploy/infra/managed-mode-deployment.yaml');
    const text = await readFile(path, 'utf8');
    await applyText(text.replaceAll(/image: .*/g, `image: ${productImage.name}`));
    await untilRolledOut(node);
    await assertGets(node, 'load-bound', 'app');
    await assertGets(node, 'load-unbound', '400');
  });

  it('refuses nmi.yaml in the place of that manifest', { skip: old.missing ?? false }, async () => {
    await assert.rejects(install('nmi.yaml'), /field is immutable/);
    await assertGets(node, 'load-bound', 'app');
    await node.kubectl(['delete', 'daemonset/nmi', inSystem, '--wait']);
  });

  it('serves pods with split privileges', async (t) => {
    const report = await load.during(() => install('nmi-split.yaml'));
    t.diagnostic(describeLoad(report));
    // The old manifest uses iptables, which does not redirect pods on the host network.
    assertClosed(report, ['app', 'node']);
    await assertGets(node, 'load-bound', 'app');
    await assertGets(node, 'load-unbound', '400');
  });
});
