/**
 * Pods from the kubelet's own socket: what the agent knows by it, also while the API server is away, beside the
 * API server's view of the same pods, and how soon a new pod is known by each.
 */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readPodEvent } from '../../../src/nmi/kube/kubelet/pod-event.ts';
import { watchKubelet } from '../../../src/nmi/kube/kubelet/pods-api.ts';
import { parsePod } from '../../../src/nmi/kube/watch/parse.ts';
import { clientPod, untilPodsReady } from '../support/client-pods.ts';
import { eventuallyByProcess } from '../support/eventually-by-process.ts';
import { pauseImage } from '../support/images.ts';
import { provideNodeSystem } from '../support/node-system.ts';
import { agentPid, inAgent, installChart } from '../support/install.ts';
import { startLoad, startStaticLoad, type Load } from '../support/load.ts';
import { openNode, type TestNode } from '../support/node.ts';
import { assertGets } from '../support/pod-kinds.ts';
import { assertReusedAddress } from '../support/reused-address.ts';

const nodeSystem = provideNodeSystem();
const churned = 200;
const atOnce = 20;
/** Whose addresses are timed. */
const timed = 40;
/** Ends what is watched meanwhile. */
const stopFile = '/run/timed';
/** An agent that reads pods from the kubelet sees a change of labels alone as late as this. */
const labelsMs = 60_000;

/** What `nmi explain` reports of a pod. */
interface Line {
  readonly namespace: string;
  readonly name: string;
  readonly ip: string;
  readonly phase: string;
  readonly label?: string;
  readonly outcome: object;
}

describe('the kubelet’s pods on a real node', { skip: nodeSystem.missing ?? false }, () => {
  let node: TestNode;
  let load: Load;

  before(async () => {
    assert.ok(nodeSystem.programs !== undefined);
    node = await openNode(nodeSystem.programs, { cgroupDriver: 'systemd' });
    await install('kubelet');
    load = await startLoad(node, 100);
  });
  after(() => node?.[Symbol.asyncDispose]());

  const install = (podsFrom: string, redirect = 'ebpf') =>
    installChart(node, { redirect, podsFrom });
  const systemctl = (...words: readonly string[]) => node.machine.run(['systemctl', ...words]);

  async function explain(): Promise<readonly Line[]> {
    const text = await inAgent(node, 'nmi', 'explain', '--output=json');
    return (JSON.parse(text) as { readonly pods: readonly Line[] }).pods;
  }

  async function knownByAgent(): Promise<readonly string[]> {
    return (await explain()).map(describePod).sort();
  }

  async function knownByApiServer(): Promise<readonly string[]> {
    const selector = 'spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed';
    const every = ['get', 'pods', '--all-namespaces', `--field-selector=${selector}`];
    const list = JSON.parse(await node.kubectl([...every, '--output=json'])) as {
      readonly items: readonly {
        readonly metadata: Pick<Line, 'namespace' | 'name'> & {
          readonly labels?: Readonly<Record<string, string>>;
        };
        readonly status: { readonly podIP?: string; readonly phase: string };
      }[];
    };
    const lines = list.items.map(({ metadata, status }) => {
      const label = metadata.labels?.['aadpodidbinding'];
      const ip = status.podIP ?? '';
      return describePod({ ...metadata, ip, phase: status.phase, ...(label && { label }) });
    });
    return lines.sort();
  }

  /** The tokens that a pod got since a moment, which it writes to the node's disk. */
  async function untilStaticGets(name: string, identity: string, maxMs: number): Promise<number> {
    const startMs = Date.now();
    const seen = startStaticLoad(node, name, { aadpodidbinding: identity });
    await eventuallyByProcess(() => {
      const { outcomes } = seen.since(0);
      assert.ok((outcomes[`200 ${identity}`] ?? 0) > 0, `${name} got ${JSON.stringify(outcomes)}`);
      return Promise.resolve();
    }, maxMs);
    const got = Object.keys(seen.since(0).outcomes).filter((outcome) => outcome.startsWith('200'));
    assert.deepEqual(got, [`200 ${identity}`]);
    return Date.now() - startMs;
  }

  function openKubelet(signal = AbortSignal.timeout(5_000)) {
    const path = node.machine.path('/var/lib/kubelet/pods-api/pods-api.sock');
    return watchKubelet(() => Promise.resolve(connect({ path })), signal);
  }

  /** When each pod has an address by the kubelet, by name, until the signal aborts. */
  async function seenByKubelet(signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    const seen = new Map<string, number>();
    try {
      for await (const message of openKubelet(signal)) {
        const pod = parsePod(readPodEvent(message).object);
        if (!pod.ok || pod.value.ips.length === 0 || seen.has(pod.value.name)) continue;
        seen.set(pod.value.name, Date.now());
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    return seen;
  }

  /** The output of a command, until the file is there. */
  const untilStopped = (command: string, file: string): string =>
    `${command} & pid=$!; until [ -e ${file} ]; do sleep 0.2; done; kill $pid`;

  /** The same by the API server. */
  async function seenByApiServer(): Promise<ReadonlyMap<string, number>> {
    const form = '{.metadata.name} {.status.podIP}{"\\n"}';
    const watch = `kubectl get pods --watch --output='jsonpath=${form}'`;
    const stopped = untilStopped(watch, node.machine.path(stopFile));
    const script = `(${stopped}) | while read -r line; do echo "$(date +%s%3N) $line"; done`;
    const lines = (await node.type(script, tmpdir())).trim().split('\n');
    const seen = new Map<string, number>();
    for (const [at, name = '', ip] of lines.map((line) => line.split(' '))) {
      if (ip !== undefined && !seen.has(name)) seen.set(name, Number(at));
    }
    return seen;
  }

  /** When containerd started each container, by its id. */
  async function startedContainers(): Promise<ReadonlyMap<string, number>> {
    const script = untilStopped('ctr --namespace=k8s.io events', stopFile);
    const events = await node.machine.run(['sh', '-c', script], { timeoutMs: 300_000 });
    const starts = events.matchAll(
      /^(\S+ [\d:]+\.\d{3})\d* .* \/tasks\/start \{.*"container_id":"(\w+)"/gm,
    );
    return new Map(Array.from(starts, ([, at = '', id = '']) => [id, Date.parse(`${at}Z`)]));
  }

  it('needs no right to list pods, and no way to the node’s files', async () => {
    const account = 'system:serviceaccount:kube-system:aad-pod-id-nmi-service-account';
    const asked = ['auth', 'can-i', 'list', 'pods', '--all-namespaces', `--as=${account}`];
    await assert.rejects(node.kubectl(asked), /no/);
    assert.match(await inAgent(node, 'nmi', 'explain'), /pods from the kubelet/);
    const root = `/proc/${await agentPid(node)}/root`;
    assert.doesNotMatch(await node.machine.run(['ls', join(root, 'var/lib')]), /kubelet/);
    await assertGets(node, 'load-bound', 'app');
    await assertGets(node, 'load-unbound', '400');
  });

  it('serves a new static pod and a restarted pod while the API server is away', async (t) => {
    const ip = ['get', 'pod', 'load-bound', '--output=jsonpath={.status.podIP}'];
    const ipBefore = await node.kubectl(ip);
    // A stop waits a minute for watches.
    await systemctl('stop', '--no-block', 'kube-apiserver');
    await systemctl('kill', '--signal=KILL', 'kube-apiserver');
    try {
      const takenMs = await untilStaticGets('dark', 'two', 60_000);
      t.diagnostic(`a static pod had its token ${takenMs} ms after its file was there`);
      // Its sandbox ends too: the kubelet gives it a new one, with another address.
      const slice = await node.machine.run(['pgrep', '--full', 'load/bound']);
      const script = `slice=$(sed -n 's,^0::\\(.*\\)/[^/]*$,\\1,p' /proc/$1/cgroup); kill -9 $(cat /sys/fs/cgroup$slice/*/cgroup.procs)`;
      await node.machine.run(['sh', '-c', script, 'sh', slice.trim()]);
      const restartMs = Date.now();
      await eventuallyByProcess(() => {
        const { outcomes } = load.since(restartMs).bound;
        assert.ok((outcomes['200 app'] ?? 0) > 3, JSON.stringify(outcomes));
        return Promise.resolve();
      }, 60_000);
      t.diagnostic(`a restarted pod got ${JSON.stringify(load.since(restartMs).bound)}`);
    } finally {
      await systemctl('start', 'kube-apiserver');
    }
    await eventuallyByProcess(async () => {
      assert.notEqual(await node.kubectl(ip), ipBefore);
    }, 60_000);
  });

  it('keeps what it knows while the kubelet restarts', async (t) => {
    const startMs = Date.now();
    for (let restart = 0; restart < 2; restart++) {
      await systemctl('restart', 'kubelet');
      await delay(4_000);
    }
    await systemctl('stop', 'kubelet');
    await delay(4_000);
    await systemctl('start', 'kubelet');
    await delay(4_000);
    const { outcomes, silentMs } = load.since(startMs).bound;
    assert.deepEqual(Object.keys(outcomes), ['200 app'], JSON.stringify(outcomes));
    t.diagnostic(`longest time without an answer: ${silentMs} ms`);
    await node.apply(clientPod({ name: 'after', labels: { aadpodidbinding: 'two' } }));
    await untilPodsReady(node, 'after');
    await assertGets(node, 'after', 'two');
  });

  it('sees a change of labels within a minute', async (t) => {
    const label = { aadpodidbinding: 'two' };
    await node.apply(clientPod({ name: 'late' }), clientPod({ name: 'early', labels: label }));
    await untilPodsReady(node, 'late', 'early');
    await assertGets(node, 'late', '400');
    await assertGets(node, 'early', 'two');
    const changedMs = Date.now();
    await node.kubectl(['label', 'pod', 'late', 'aadpodidbinding=two']);
    await node.kubectl(['label', 'pod', 'early', 'aadpodidbinding-']);
    await eventuallyByProcess(() => assertGets(node, 'late', 'two'), labelsMs + 10_000);
    await assertGets(node, 'early', '400');
    t.diagnostic(`seen after ${Date.now() - changedMs} ms`);
  });

  it(`knows after ${churned} pods came and went what the API server knows`, async (t) => {
    for (let first = 0; first < churned; first += atOnce) {
      const names = Array.from({ length: atOnce }, (_, at) => `churn-${first + at}`);
      await node.apply(...names.map(pausePod));
      // Some are deleted before they run, some by force.
      if (first % 60 !== 0) await untilPodsReady(node, ...names);
      const last = first + atOnce >= churned;
      const gone = names.filter((_, at) => !last || at % 2 === 0);
      const force = first % 40 === 0 ? ['--grace-period=0', '--force'] : ['--wait=false'];
      await node.kubectl(['delete', 'pod', ...gone, ...force]);
    }
    const restMs = Date.now();
    await eventuallyByProcess(async () => {
      const [agent, server] = [await knownByAgent(), await knownByApiServer()];
      assert.deepEqual(agent, server);
    }, labelsMs + 30_000);
    t.diagnostic(`equal ${Date.now() - restMs} ms after the last change`);
  });

  it('has a pod sooner than the API server', async (t) => {
    const stop = new AbortController();
    const [starts, byServer, byKubelet] = [
      startedContainers(),
      seenByApiServer(),
      seenByKubelet(stop.signal),
    ];
    try {
      for (let first = 0; first < timed; first += 5) {
        const names = Array.from({ length: 5 }, (_, at) => `timed-${first + at}`);
        await node.apply(...names.map(pausePod));
        await untilPodsReady(node, ...names);
      }
    } finally {
      node.machine.write(stopFile, '');
    }
    const list = await node.kubectl(['get', 'pods', '--output=json']);
    const { items } = JSON.parse(list) as {
      readonly items: readonly {
        readonly metadata: { readonly name: string };
        readonly status: {
          readonly containerStatuses: readonly { readonly containerID: string }[];
        };
      }[];
    };
    const [started, server] = [await starts, await byServer];
    stop.abort();
    const kubelet = await byKubelet;
    const waits = items.flatMap(({ metadata: { name }, status }) => {
      const id = status.containerStatuses[0]?.containerID.replace('containerd://', '') ?? '';
      const startMs = started.get(id) ?? NaN;
      if (!name.startsWith('timed-')) return [];
      return [[(kubelet.get(name) ?? NaN) - startMs, (server.get(name) ?? NaN) - startMs] as const];
    });
    assert.equal(waits.length, timed);
    for (const [at, from] of ['the kubelet', 'the API server'].entries()) {
      const sorted = waits.map((wait) => wait[at] ?? NaN).sort((a, b) => a - b);
      const part = (share: number) => sorted[Math.ceil(share * timed) - 1] ?? NaN;
      assert.ok(Number.isFinite(part(1)), `${from}: ${sorted.join(' ')}`);
      t.diagnostic(
        `from a container's start to its pod's address at ${from}: p50 ${part(0.5)} ms, p99 ${part(0.99)} ms`,
      );
    }
    assert.ok(waits.every(([kubeletMs, serverMs]) => kubeletMs < serverMs + 100));
  });

  it('answers as with the pods of the API server', async () => {
    const lines = await explain();
    await install('auto');
    assert.match(await inAgent(node, 'nmi', 'explain'), /pods from the kubelet/);
    await install('api-server');
    assert.match(await inAgent(node, 'nmi', 'explain'), /asked as this node/);
    const others = (all: readonly Line[]) =>
      all
        .filter(({ name }) => !name.startsWith('nmi-'))
        .map((line) => `${describePod(line)} ${JSON.stringify(line.outcome)}`);
    assert.deepEqual(others(await explain()), others(lines));
  });

  it('returns the new pod’s token for a reused address that is the only evidence', async () => {
    await install('kubelet', 'iptables');
    await assertReusedAddress(node);
    await assertGets(node, 'load-bound', 'app');
  });

  it('goes over to the API server when the kubelet is away, and back', async () => {
    await install('auto');
    const untilFrom = (source: string, maxMs: number) =>
      eventuallyByProcess(async () => {
        // Not by a command in the container, which the kubelet would run.
        const script = String.raw`printf 'GET /metrics HTTP/1.0\r\n\r\n' | socat -t5 - TCP:127.0.0.1:9090`;
        const metrics = await node.machine.run(['sh', '-c', script]);
        assert.equal(/nmi_pods_from\{source="(.+)"\} 1/.exec(metrics)?.[1], source);
      }, maxMs);
    await untilFrom('kubelet', 30_000);
    const startMs = Date.now();
    await systemctl('stop', 'kubelet');
    await untilFrom('api-server', 60_000);
    await systemctl('start', 'kubelet');
    await eventuallyByProcess(() => openKubelet().next(), 60_000);
    // The watch ends, and the kubelet is tried again. The unit restarts by itself.
    await systemctl('kill', '--signal=KILL', 'kube-apiserver');
    await untilFrom('kubelet', 60_000);
    const { outcomes } = load.since(startMs).bound;
    assert.deepEqual(Object.keys(outcomes), ['200 app'], JSON.stringify(outcomes));
  });
});

function pausePod(name: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { aadpodidbinding: 'app' } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'pause', image: pauseImage, imagePullPolicy: 'Never' }],
    },
  };
}

function describePod({ namespace, name, ip, phase, label = '' }: Omit<Line, 'outcome'>): string {
  return `${namespace}/${name} ${ip} ${phase} ${label}`;
}
