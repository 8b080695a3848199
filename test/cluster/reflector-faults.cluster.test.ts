/** The agent's watches on real servers, with their production timing, through single faults. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../src/base/time/clock.ts';
import type { ObjectRef, Pod } from '../../src/cache/index/objects.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openKubeClient } from '../../src/nmi/kube/api/client.ts';
import { parsePod } from '../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../src/nmi/kube/watch/reflector.ts';
import { keptLog, MapStore, quick, temporaryDir } from '../unit/nmi/kube/kube-test-bed.ts';
import {
  replayCut,
  streamBytes,
  type RawObject,
  type Recording,
} from '../unit/nmi/kube/recorded-stream.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';
import type { Cluster } from './support/cluster.ts';
import { openFaultProxy } from './support/fault-proxy.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';
import { deletePod, runPod, setPodStatus } from './support/pods.ts';
import { openWatchedNode, type WatchedNode } from './support/watched-node.ts';

const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
const bound = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: demo, namespace: faults }
spec: { type: 0, clientID: 00000000-0000-4000-8000-000000000001 }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: demo, namespace: faults }
spec: { azureIdentity: demo, selector: demo }
`;

/** The server begins to serve one kind after the other; until then their watches fail. */
async function defineKinds(cluster: Cluster): Promise<void> {
  for (const { metadata } of await cluster.applyOverHttp(await readFile(crds, 'utf8'))) {
    const [plural = '', ...group] = (metadata?.name ?? '').split('.');
    const path = `/apis/${group.join('.')}/v1/${plural}`;
    await eventually(() => cluster.admin.expect('GET', path), 30_000);
  }
}

/** Runs a fault from beginning to end; it gets the cluster and the network. */
interface Fault {
  readonly name: string;
  run(testBed: { cluster: Cluster; network: WatchedNode['network'] }): Promise<void>;
  /** The server is down, so the new pod is written after the fault. */
  readonly isServerAway?: true;
}

const faults: readonly Fault[] = [
  {
    name: 'all connections were reset',
    async run({ network }) {
      network.cut();
    },
  },
  {
    name: 'connections were refused for 4 s',
    async run({ network }) {
      await network.stop();
      await delay(4000);
      await network.start();
    },
  },
  {
    name: 'nothing came through for 4 s',
    async run({ network }) {
      network.blackHole();
      await delay(4000);
      network.thaw();
    },
  },
  {
    name: 'connections were reset and new ones led nowhere for 4 s',
    async run({ network }) {
      network.cut();
      network.blackHole();
      await delay(4000);
      network.thaw();
    },
  },
  {
    name: 'the server was killed and started again',
    isServerAway: true,
    async run({ cluster }) {
      await cluster.killApiserver();
      await delay(1000);
      await cluster.startApiserver();
    },
  },
  {
    name: 'the server was stopped in good order and started again',
    isServerAway: true,
    async run({ cluster }) {
      await cluster.restart();
    },
  },
];

describeOnEveryVersion('the watches of a node', (cluster) => {
  const admin = () => cluster().admin;
  let lastIp = 0;

  /** A pod of node-a with an identity. */
  function wish(name: string) {
    lastIp += 1;
    const ip = `10.1.${lastIp >> 8}.${lastIp & 255}`;
    const labels = { aadpodidbinding: 'demo' };
    return { namespace: 'faults', name, node: 'node-a', ip, labels };
  }

  function openNode(): Promise<WatchedNode> {
    return openWatchedNode({ access: cluster().adminAccess, node: 'node-a' });
  }

  before(async () => {
    await defineKinds(cluster());
    await cluster().createNamespace('faults');
    await eventually(() => cluster().applyOverHttp(bound), 30_000);
  });

  for (const fault of faults) {
    it(`serve a new pod within 1 s after ${fault.name}, and known ones all the time`, async (t) => {
      await using node = await openNode();
      const { network, pods } = node;
      const known = wish(`known-${lastIp}`);
      await runPod(admin(), known);
      await node.servable(known.ip);
      // The state after a long time without a fault.
      await delay(1200);
      let emptied = 0;
      const forget = pods.onChange(() => {
        if (pods.byIp(known.ip).kind !== 'pod') emptied += 1;
      });
      const fresh = wish(`fresh-${lastIp}`);
      const running = fault.run({ cluster: cluster(), network });
      if (fault.isServerAway !== true) await runPod(admin(), fresh);
      await running;
      using time = new OwnTime();
      if (fault.isServerAway === true) await runPod(admin(), fresh);
      await node.servable(fresh.ip);
      const tookMs = time.nowMs();
      forget();
      t.diagnostic(`${Math.round(tookMs)} ms`);
      assert.ok(tookMs < 1000, `${tookMs} ms`);
      assert.equal(emptied, 0);
      await deletePod(admin(), fresh);
      await deletePod(admin(), known);
    });
  }

  it('serve a new pod on request, while their connections carry nothing and stay open', async () => {
    await using node = await openNode();
    // The state after a long time without a fault.
    await delay(1200);
    node.network.freeze();
    const fresh = wish('asking');
    await runPod(admin(), fresh);
    using time = new OwnTime();
    node.watches.checkNow();
    await node.servable(fresh.ip);
    const tookMs = time.nowMs();
    assert.ok(tookMs < 1000, `${tookMs} ms`);
    await deletePod(admin(), fresh);
  });

  it('continue without a pod that is too large to read, in the list and after it', async (t) => {
    // Stored as protobuf, where `<` is one byte; as JSON it is six.
    async function runLargePod(name: string): Promise<void> {
      const args = ['<'.repeat(1_450_000)];
      await admin().expect('POST', '/api/v1/namespaces/faults/pods', {
        metadata: { name, labels: { aadpodidbinding: 'demo' } },
        spec: { nodeName: 'node-a', containers: [{ name: 'app', image: 'app', args }] },
      });
      const status = { phase: 'Running', podIPs: [{ ip: '10.3.0.1' }], podIP: '10.3.0.1' };
      await setPodStatus(admin(), { namespace: 'faults', name }, status);
    }
    await runLargePod('large-before');
    await using node = await openNode();
    const beside = wish('beside');
    await runPod(admin(), beside);
    await node.servable(beside.ip);
    await runLargePod('large-after');
    const behind = wish('behind');
    await runPod(admin(), behind);
    await node.servable(behind.ip);
    const { pods } = node.watches.stats();
    assert.deepEqual([pods.errorsByKind.refusal, pods.relists], [0, 0]);
    assert.equal(node.pods.byIp('10.3.0.1').kind, 'unknown');
    const named = node.log
      .filter(({ message }) => message === 'unusable object ignored')
      .map(({ fields }) => (fields['object'] as ObjectRef).name);
    assert.deepEqual(named, ['large-before', 'large-after']);
    t.diagnostic(`${pods.rejected} versions of 2 pods were skipped`);
    for (const name of ['large-before', 'large-after', 'beside', 'behind']) {
      await deletePod(admin(), { namespace: 'faults', name });
    }
  });

  it('list compressed, and get what follows at once', async (t) => {
    const plural = 'azureidentitybindings';
    const many = Array.from({ length: 1_499 }, (_, index) => {
      const name = `many-${index}`;
      return { name, spec: { azureIdentity: 'demo', selector: name } };
    });
    await cluster().copy(`aadpodidentity.k8s.io/${plural}`, 'faults', 'demo', many);
    const path = `/apis/aadpodidentity.k8s.io/v1/${plural}`;
    const list = await admin().expect('GET', path);
    const plainBytes = JSON.stringify(list).length;
    await using node = await openNode();
    assert.equal(node.grants.stats.bindings, 1_500);
    const { receivedBytes } = node.network;
    t.diagnostic(`${receivedBytes} bytes, TLS and the other kinds included, of ${plainBytes}`);
    assert.ok(receivedBytes < plainBytes / 5, `${receivedBytes}`);
    const fresh = wish('compressed');
    await runPod(admin(), fresh);
    await node.servable(fresh.ip);
    await deletePod(admin(), fresh);
    await admin().expect('DELETE', `/apis/aadpodidentity.k8s.io/v1/namespaces/faults/${plural}`);
    await eventually(() => assert.equal(node.grants.stats.bindings, 0));
    await eventually(() => cluster().applyOverHttp(bound), 30_000);
    assert.equal(node.watches.stats().bindings.restarts, 0);
  });

  it('list again, in one step, when etcd and the server have dropped the changes since', async () => {
    await using node = await openNode();
    const { network, pods, watches } = node;
    const kept = wish('kept');
    const gone = wish('gone');
    for (const pod of [kept, gone]) await runPod(admin(), pod);
    for (const { ip } of [kept, gone]) await node.servable(ip);
    const seen = new Set<string>();
    const forget = pods.onChange(() => {
      seen.add([kept, gone].map(({ ip }) => pods.byIp(ip).kind).join(' '));
    });
    await network.stop();
    await deletePod(admin(), gone);
    const came = wish('came');
    await runPod(admin(), came);
    await cluster().compact();
    await cluster().restart();
    await network.start();
    await node.servable(came.ip);
    forget();
    assert.deepEqual([...seen], ['pod unknown']);
    assert.ok(watches.stats().pods.errorsByKind.expiry >= 1);
    assert.ok(watches.stats().pods.relists >= 1);
    await eventually(() => {
      const { identities } = watches.stats();
      assert.ok(identities.relists >= 1 && identities.stalenessMs < 5000);
    });
    for (const pod of [kept, came]) await deletePod(admin(), pod);
  });

  it('keep grants that the server refuses to list after an expired version', async () => {
    const { url, caPem } = cluster();
    const account = { namespace: 'faults', name: 'lister' };
    await using actor = await cluster().createServiceAccountClient(account);
    const subject = `--serviceaccount=${account.namespace}:${account.name}`;
    const plurals = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'];
    const rights = {
      'list-others': ['pods', ...plurals.map((each) => `${each}.aadpodidentity.k8s.io`)].join(),
      'list-grants': 'azureidentitygrants.aadpodidentity.k8s.io',
    };
    for (const [name, resources] of Object.entries(rights)) {
      const rule = ['--verb=list,watch', `--resource=${resources}`];
      await cluster().kubectl(['create', 'clusterrole', name, ...rule]);
      await cluster().kubectl([
        'create',
        'clusterrolebinding',
        name,
        `--clusterrole=${name}`,
        subject,
      ]);
    }
    const path = '/apis/aadpodidentity.k8s.io/v1/azureidentitygrants';
    const grant = {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentityGrant',
      metadata: { name: 'faults' },
      spec: { namespaces: ['faults'], nodeIdentities: true },
    };
    await admin().expect('POST', path, grant);
    await using node = await openWatchedNode({
      access: { url, ...(caPem === undefined ? {} : { caPem }), token: actor.token },
      node: 'node-a',
      // The list waits until it is hurried, so that the right can be taken away before.
      timing: { relistJitterMs: 0, relistJitterPerObjectMs: 60_000 },
    });
    const { network, owners, watches } = node;
    const hasGrant = () => owners.grantOfNodeIdentities('faults') !== undefined;
    await eventually(() => assert.ok(hasGrant()));
    let emptied = 0;
    owners.onChange(() => {
      if (!hasGrant()) emptied += 1;
    });
    await network.stop();
    await admin().expect('POST', path, { ...grant, metadata: { name: 'another' } });
    await cluster().compact();
    await cluster().restart();
    await network.start();
    await eventually(() => assert.equal(watches.stats().grants.errorsByKind.expiry, 1), 30_000);
    await cluster().kubectl(['delete', 'clusterrolebinding', 'list-grants']);
    await eventually(async () => {
      assert.equal((await actor.api.request('GET', path)).status, 403);
    });
    watches.hurry();
    await eventually(() => assert.equal(watches.stats().grants.failure?.code, 'FORBIDDEN'), 30_000);
    assert.deepEqual([watches.stats().grants.relists, hasGrant()], [0, true]);
    const role = '--clusterrole=list-grants';
    await cluster().kubectl(['create', 'clusterrolebinding', 'list-grants', role, subject]);
    await eventually(() => assert.equal(watches.stats().grants.failure, undefined), 30_000);
    assert.deepEqual([watches.stats().grants.relists, owners.grants.size, emptied], [1, 2, 0]);
    for (const name of ['faults', 'another']) await admin().expect('DELETE', `${path}/${name}`);
  });

  it('list again when a server restored from a backup only stays silent', async () => {
    const timing = { silenceMs: 5_000 };
    await using node = await openWatchedNode({
      access: cluster().adminAccess,
      node: 'node-a',
      timing,
    });
    const { pods, watches, log } = node;
    const kept = wish('restored');
    await runPod(admin(), kept);
    await node.servable(kept.ip);
    await cluster().backUp();
    const lost = wish('lost');
    await eventually(() => setPodStatus(admin(), kept, { message: 'backed up' }), 30_000);
    await runPod(admin(), lost);
    // The restored server makes its own versions, which must not reach ours meanwhile.
    for (let count = 0; count < 300; count += 1) {
      await setPodStatus(admin(), lost, { message: `${count}` });
    }
    await node.servable(lost.ip);
    await cluster().restore();
    await eventually(() => assert.equal(pods.byIp(lost.ip).kind, 'unknown'), 30_000);
    assert.equal(pods.byIp(kept.ip).kind, 'pod');
    const { relists, errorsByKind: errors } = watches.stats().pods;
    assert.ok(relists >= 1);
    assert.equal(errors.expiry, 0);
    assert.ok(log.some(({ message }) => message.includes('went backwards')));
    await deletePod(admin(), kept);
  });

  it('continue after a cut at any byte of the connection, without another list', async () => {
    await using node = await openNode();
    const { network, watches } = node;
    const app = wish('app');
    await runPod(admin(), app);
    await node.servable(app.ip);
    // TLS needs about 2,500 bytes of it.
    for (let round = 0; round < 30; round += 1) {
      network.cutNextAfter(1 + Math.floor(Math.random() * 8000));
      network.cut();
      const ip = `10.2.0.${round}`;
      await setPodStatus(admin(), app, { podIP: ip, podIPs: [{ ip }] });
      await node.servable(ip);
    }
    assert.equal(watches.stats().pods.relists, 0);
    assert.ok(watches.stats().pods.errorsByKind.outage >= 30);
    await eventually(() => assert.ok(network.connections <= 5, `${network.connections}`));
    await deletePod(admin(), app);
  });

  it('lose, repeat and empty nothing wherever a recorded stream is cut', async (t) => {
    await cluster().createNamespace('recorded');
    // Of the watched kinds one with short lines: a pod has four times as many bytes to cut at.
    const apiVersion = 'aadpodidentity.k8s.io/v1';
    const path = `/apis/${apiVersion}/namespaces/recorded/azureidentities`;
    const create = (name: string) =>
      admin().expect('POST', path, {
        apiVersion,
        kind: 'AzureIdentity',
        metadata: { name },
        spec: { type: 0, clientID: '00000000-0000-4000-8000-000000000001' },
      });
    await create('a');
    const { items, metadata } = await admin().expect('GET', path);
    const version = metadata.resourceVersion;
    await create('b');
    await admin().expect(
      'PATCH',
      `${path}/b`,
      { metadata: { labels: { team: 'b' } } },
      { contentType: 'application/merge-patch+json' },
    );
    await admin().expect('DELETE', `${path}/a`);
    const lines: string[] = [];
    for await (const line of admin().watch(`${path}?watch=1&resourceVersion=${version}`)) {
      lines.push(JSON.stringify(line));
      if (lines.length === 3) break;
    }
    const recording: Recording = { before: items as readonly RawObject[], version, lines };
    let cuts = 0;
    for (const listBy of ['pages', 'stream'] as const) {
      const { length } = streamBytes(recording, listBy);
      for (let cutAt = 0; cutAt <= length; cutAt += 1) {
        await replayCut(recording, listBy, cutAt);
        cuts += 1;
      }
    }
    t.diagnostic(`${cuts} cuts`);
  });

  it('continue when tokens are rotated and revoked', async () => {
    const { url, caPem } = cluster();
    await cluster().kubectl([
      'create',
      'clusterrole',
      'watch-pods',
      '--verb=list,watch',
      '--resource=pods',
    ]);
    const account = { namespace: 'faults', name: 'agent' };
    const secret = async (name: string) => {
      const path = '/api/v1/namespaces/faults/secrets';
      const { metadata } = await admin().expect('POST', path, { metadata: { name } });
      return { kind: 'Secret', name, uid: metadata.uid } as const;
    };
    const tokenOf = async (name: string): Promise<string> => {
      const boundTo = await secret(name);
      await using actor = await cluster().createServiceAccountClient({ ...account, boundTo });
      return actor.token;
    };
    const first = await tokenOf('first');
    const role = ['--clusterrole=watch-pods', '--serviceaccount=faults:agent'];
    await cluster().kubectl(['create', 'clusterrolebinding', 'watch-pods', ...role]);
    await using network = await openFaultProxy(url);
    await using folder = await temporaryDir();
    await writeFile(join(folder.path, 'ca.crt'), caPem);
    await writeFile(join(folder.path, 'token'), first);
    const { hostname, port } = new URL(network.url);
    await using client = await openKubeClient({
      environment: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
      serviceAccountDir: folder.path,
      userAgent: 'nmi-test/1',
    });
    const store = new MapStore<Pod>();
    await using reflector = openReflector<Pod>({
      listsBy: 'stream',
      name: 'pods',
      path: '/api/v1/pods',
      query: { fieldSelector: 'spec.nodeName=node-a' },
      parse: parsePod,
      store,
      client,
      clock: systemClock,
      random: Math.random,
      log: keptLog(),
      timing: quick,
    });
    await reflector.whenSynced();
    for (const [last, next] of [
      ['first', 'second'],
      ['second', 'third'],
    ] as const) {
      const { errorsByKind: errors } = reflector.stats();
      await writeFile(join(folder.path, 'token'), await tokenOf(next));
      await admin().expect('DELETE', `/api/v1/namespaces/faults/secrets/${last}`);
      // The server caches a valid token for ten seconds.
      await delay(11_000);
      network.cut();
      await runPod(admin(), wish(`after-${last}`));
      await store.until('the pod', () => store.items.has(`faults/after-${last}`));
      // Refused once, read again and accepted, all within one attempt.
      assert.equal(reflector.stats().errorsByKind.refusal, errors.refusal);
      assert.equal(reflector.stats().relists, 0);
    }
  });
});

describeOnEveryVersion(
  'the watches of a node, on a server that streams no lists',
  (cluster) => {
    it('list page by page, once streaming is refused', async () => {
      await defineKinds(cluster());
      await cluster().createNamespace('faults');
      await eventually(() => cluster().applyOverHttp(bound), 30_000);
      const pod = { namespace: 'faults', name: 'p', node: 'node-a', ip: '10.1.0.1' };
      const labels = { aadpodidbinding: 'demo' };
      await runPod(cluster().admin, { ...pod, labels });
      await using node = await openWatchedNode({ access: cluster().adminAccess, node: 'node-a' });
      await node.servable(pod.ip);
      const refused = node.log.filter(({ message }) => message.includes('page by page'));
      assert.ok(refused.length >= 1 && refused.length <= 5);
      assert.match(String(refused[0]?.fields['reason']), /sendInitialEvents is forbidden/);
      for (const [watch, { errorsByKind }] of Object.entries(node.watches.stats())) {
        const errors = Object.entries(errorsByKind).filter(([, count]) => count > 0);
        assert.deepEqual(errors, [], watch);
      }
      await cluster().killApiserver();
      await cluster().startApiserver();
      const late = { ...pod, name: 'late', ip: '10.1.0.2', labels };
      await runPod(cluster().admin, late);
      await node.servable(late.ip);
    });
  },
  ['--feature-gates=WatchList=false'],
);
