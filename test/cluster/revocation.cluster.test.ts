/**
 * `kubectl nmi identity revoke --apply` on a real server, and fifty agents that watch it: the time from
 * the write to the last answer with a token from before. Watches, index, keys and cache are the
 * agent's; the source of tokens is the test's.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { asRecord, stringAt } from '../../src/base/json-value.ts';
import { systemClock } from '../../src/base/time/clock.ts';
import type { Token } from '../../src/cache/token/token.ts';
import { tokenKey } from '../../src/nmi/grants/cache-key.ts';
import { IdentitiesInUse } from '../../src/nmi/grants/identities-in-use.ts';
import { UpstreamResolver } from '../../src/nmi/grants/resolve-upstream.ts';
import type { UpstreamIdentity } from '../../src/nmi/sources/upstream-identity.ts';
import { TokenBroker } from '../../src/nmi/tokens/broker.ts';
import { runOn } from '../kubectl/support/real-kubectl.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';
import { createOwners } from '../support/owners.ts';
import type { ApiAccess } from './support/api.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import { runPod } from './support/pods.ts';
import { openWatchedNode, type WatchedNode } from './support/watched-node.ts';

const namespace = 'revoked';
const path = `/apis/aadpodidentity.k8s.io/v1/namespaces/${namespace}/azureidentities/orders`;
const resource = 'https://vault.azure.net';
const party = { namespace, pod: 'web' };
const agents = 50;
const objects = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: orders, namespace: ${namespace} }
spec: { type: 0, clientID: 431054d5-1b5d-4836-8331-11abcaa2c1d8 }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: orders, namespace: ${namespace} }
spec: { azureIdentity: orders, selector: orders }
`;

interface Agent extends AsyncDisposable {
  readonly network: WatchedNode['network'];
  /** What its pod gets at this moment: from memory, else undefined while a fetch begins. */
  answer(): string | undefined;
}

async function openAgent(access: ApiAccess, node: string, ip: string): Promise<Agent> {
  await using opening = new AsyncDisposableStack();
  const watched = opening.use(await openWatchedNode({ access, node }));
  await watched.servable(ip);
  const { pods, grants } = watched;
  const upstreams = new UpstreamResolver(() => ({ ok: false, problem: 'nobody asks' }));
  const { owners } = createOwners('off');
  let fetched = 0;
  const fetch = (): Promise<{ readonly ok: true; readonly token: Token }> => {
    const nowS = systemClock.wallMs() / 1000;
    const accessToken = `${node} ${++fetched}`;
    const times = { expiresAtWallS: nowS + 86_400, notBeforeWallS: nowS };
    const token = { accessToken, clientId: '', resource, extExpiresAtWallS: undefined, ...times };
    return Promise.resolve({ ok: true, token });
  };
  const budget = { maxConcurrent: 4, maxPerSec: 20, maxQueued: 100 };
  const broker = opening.use(
    new TokenBroker({
      imds: { source: { fetch }, budget },
      entra: { source: { fetch }, budget },
      demand: new IdentitiesInUse({
        pods,
        grants,
        owners,
        upstreams,
        workloadIdentities: undefined,
      }),
      clock: systemClock,
      random: Math.random,
      maxEntries: 100,
      waitMs: 1_000,
      nextImdsFetchId: () => '',
      observer: {
        onFetch: () => {},
        onRefresh: () => {},
        onSourceBug: (bug) => assert.fail(String(bug)),
      },
    }),
  );
  const upstreamNow = (): UpstreamIdentity => {
    const found = pods.byIp(ip);
    assert.ok(found.kind === 'pod');
    const bound = grants.grantsOf(found.pod.uid);
    const [identity] = bound?.kind === 'bound' ? bound.identities : [];
    assert.ok(identity !== undefined);
    const choice = upstreams.of(identity, found.pod);
    assert.ok(choice.kind === 'upstream', JSON.stringify(choice));
    return choice.upstream;
  };
  const opened = opening.move();
  return {
    network: watched.network,
    answer() {
      const upstream = upstreamNow();
      const rendered = broker.peek(tokenKey(upstream, resource));
      if (rendered === undefined) void broker.get(upstream, resource, party);
      return rendered?.token.accessToken;
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function untilAnswered(all: readonly Agent[]): Promise<readonly string[]> {
  return eventually(() => {
    const answers = all.map((agent) => agent.answer());
    assert.ok(answers.every((each) => each !== undefined));
    return Promise.resolve(answers);
  }, 10_000);
}

describeOnNewestVersion('a revoked identity', (cluster) => {
  const addresses = Array.from({ length: agents }, (_, at) => `10.9.0.${at + 1}`);
  const run = (...words: readonly string[]) => {
    const { binaries, adminKubeconfig, folder } = cluster();
    const machine = { kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder };
    return runOn(machine, [...words, '-n', namespace]);
  };
  const specNow = async () => asRecord((await cluster().admin.expect('GET', path))['spec']);

  before(async () => {
    const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
    await cluster().apply(await readFile(crds, 'utf8'));
    await cluster().createNamespace(namespace);
    await cluster().apply(objects);
    for (const [at, ip] of addresses.entries()) {
      const labels = { aadpodidbinding: 'orders' };
      await runPod(cluster().admin, {
        namespace,
        name: `web-${at}`,
        node: `node-${at}`,
        ip,
        labels,
      });
    }
  });

  it('has the time of the server, although the clock of the machine is ten minutes ahead', async () => {
    const earliestMs = Math.floor(Date.now() / 1000) * 1000;
    const { code, stderr } = await run('identity', 'revoke', 'orders', '--apply');
    assert.equal(code, 0, stderr);
    const atMs = Date.parse(stringAt(await specNow(), 'notBefore'));
    assert.ok(atMs >= earliestMs && atMs <= Date.now(), stringAt(await specNow(), 'notBefore'));
  });

  it('is answered with new tokens by fifty agents within a second of the write', async (t) => {
    await using opened = new AsyncDisposableStack();
    const { adminAccess, admin } = cluster();
    const all = await Promise.all(
      addresses.map(async (ip, at) => opened.use(await openAgent(adminAccess, `node-${at}`, ip))),
    );
    const slowestMs: number[] = [];
    for (let round = 0; round < 5; round++) {
      const old = await untilAnswered(all);
      const spec = { notBefore: new Date().toISOString() };
      using time = new OwnTime();
      const type = { contentType: 'application/merge-patch+json' };
      const written = admin.expect('PATCH', path, { spec }, type);
      let lastOldMs = 0;
      while (time.nowMs() < 2_000) {
        if (all.some((agent, at) => agent.answer() === old[at])) lastOldMs = time.nowMs();
        await delay(2);
      }
      await written;
      slowestMs.push(lastOldMs);
      const after = await untilAnswered(all);
      assert.ok(after.every((each, at) => each !== old[at]));
    }
    t.diagnostic(`last old answers, ms after the write: ${slowestMs.map(Math.round).join(', ')}`);
    assert.ok(Math.max(...slowestMs) < 1_000, slowestMs.join(' '));
  });

  it('reaches an agent that was away as soon as it is back', async () => {
    const { adminAccess, admin } = cluster();
    await using agent = await openAgent(adminAccess, 'node-0', '10.9.0.1');
    const [old] = await untilAnswered([agent]);
    await agent.network.stop();
    const spec = { notBefore: new Date().toISOString() };
    await admin.expect('PATCH', path, { spec }, { contentType: 'application/merge-patch+json' });
    await delay(500);
    assert.equal(agent.answer(), old, 'it cannot know yet');
    await agent.network.start();
    await eventually(() => {
      assert.notEqual(agent.answer() ?? old, old);
      return Promise.resolve();
    }, 40_000);
  });

  it('is not revoked where the definition is older, and the verb says so', async () => {
    const crd =
      '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/azureidentities.aadpodidentity.k8s.io';
    const { admin } = cluster();
    const field = '/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/notBefore';
    const steps = [{ op: 'remove', path: field }];
    await admin.expect('PATCH', crd, steps, { contentType: 'application/json-patch+json' });
    await eventually(async () => {
      const { code, stderr } = await run('identity', 'revoke', 'orders', '--apply');
      assert.equal(code, 1, 'the server has not taken the definition over yet');
      assert.match(stderr, /is not revoked: the cluster does not keep its spec\.notBefore/);
    }, 20_000);
  });
});
