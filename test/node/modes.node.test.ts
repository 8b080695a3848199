/**
 * The agent on a real node, installed by the chart in eBPF mode and then upgraded to iptables mode:
 * every kind of pod, and failures of the agent and of the node, under load.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fabricAddresses } from '../../lab/fabric/fabric.ts';
import { clientPod, untilPodsReady } from './support/client-pods.ts';
import { eventuallyByProcess } from './support/machine.ts';
import { provideNodeSystem } from './support/node-system.ts';
import {
  agentPid,
  agentPod,
  assertNothingLeft,
  inAgent,
  installChart,
  untilRolledOut,
} from './support/install.ts';
import {
  assertClosed,
  assertIndependent,
  describeLoad,
  startLoad,
  type Load,
} from './support/load.ts';
import { openNode, type TestNode } from './support/node.ts';
import {
  assertEarlyPods,
  assertGets,
  assertPodKinds,
  startPodKinds,
  type Mode,
} from './support/pod-kinds.ts';

const nodeSystem = provideNodeSystem();
const byIptables = { redirect: 'iptables' };
const isLong = process.env['TEST_SIZE'] === 'long';
/** A minute in the long run. */
const absentMs = isLong ? 60_000 : 15_000;
/** Three minutes in the long run; three failed probes make an agent unready after 15 s at most. */
const neverReadyMs = isLong ? 180_000 : 25_000;
const lateMs = isLong ? 60_000 : 25_000;
const apiServer = { ip: fabricAddresses.nodeIp, port: '6443' };
/** Of the documentation: the node drops what goes there. */
const silentServer = '192.0.2.1';
/** Releases whose agent does not get ready, while its container `redirect` does. */
const badReleases = {
  'cannot start': { args: ['--no-such-flag'] },
  'has a silent API server': { env: [{ name: 'KUBERNETES_SERVICE_HOST', value: silentServer }] },
} as const;
const killAndAwait = `
  killed=$(pgrep --full "$1") && kill -KILL $killed || exit
  for look in $(seq 800); do
    now=$(pgrep --full "$1") && [ "$now" != "$killed" ] && exit
    sleep 0.05
  done
  exit 1`;

describe('the agent on a real node', { skip: nodeSystem.missing ?? false }, () => {
  let node: TestNode;
  let load: Load;

  before(async () => {
    assert.ok(nodeSystem.programs !== undefined);
    node = await openNode(nodeSystem.programs, { cgroupDriver: 'systemd' });
  });
  after(() => node?.[Symbol.asyncDispose]());

  const agent = ['--namespace=kube-system'] as const;
  const signalAgent = async (signal: string): Promise<void> => {
    await node.machine.run(['kill', `-${signal}`, String(await agentPid(node))]);
  };
  /**
   * Kills a process of the agent's pod, and waits until there is another: by one program of the node, since the
   * pods' time without an answer counts meanwhile.
   */
  const killByCommand = (command: string): Promise<string> =>
    node.machine.run(['sh', '-c', killAndAwait, 'sh', `^${command}`]);
  const systemctl = (...words: readonly string[]) => node.machine.run(['systemctl', ...words]);

  /** A pod starts and gets its token: API server, kubelet, runtime, network and agent work. */
  async function untilPodsStart(): Promise<void> {
    await node.apply(clientPod({ name: 'next', labels: { aadpodidbinding: 'two' } }));
    await untilPodsReady(node, 'next');
    await assertGets(node, 'next', 'two');
    await node.kubectl(['delete', 'pod', 'next']);
  }

  /**
   * The failures, and the longest time in which a pod may be without an answer. A new agent starts
   * within two seconds on an idle machine; the limits are for a busy one.
   */
  const events: readonly {
    readonly name: string;
    readonly happen: () => Promise<unknown>;
    readonly limitMs: number;
  }[] = [
    {
      name: 'a rollout',
      happen: async () => {
        await node.kubectl(['rollout', 'restart', 'daemonset/nmi', ...agent]);
        await untilRolledOut(node);
      },
      limitMs: 9_000,
    },
    {
      name: 'a deleted agent',
      happen: async () => {
        await node.kubectl(['delete', 'pod', await agentPod(node), ...agent]);
        await untilRolledOut(node);
      },
      limitMs: 9_000,
    },
    {
      // The kubelet would wait for its back-off after the second time, or the first after a reboot.
      name: 'an agent that is killed twice',
      happen: async () => {
        for (let times = 0; times < 2; times += 1) {
          await killByCommand('nmi --node=');
          await delay(3_000);
          // On a busy machine it is not back by then, and a kill of what has not served would show nothing new.
          await untilRolledOut(node);
        }
      },
      limitMs: 6_000,
    },
    {
      name: 'a process of the redirect that is killed twice',
      happen: async () => {
        await killByCommand('nmi redirect run');
        await killByCommand('nmi redirect run');
      },
      limitMs: 3_000,
    },
    {
      name: 'an agent that hangs',
      happen: async () => {
        // Until the startup probe has passed, after the restart before, liveness is not probed.
        await untilRolledOut(node);
        await signalAgent('STOP');
      },
      // Three probes fail, 5 s each; then the probe's own grace period of 3 s.
      limitMs: 35_000,
    },
    {
      name: 'a time without an agent',
      happen: async () => {
        await untilRolledOut(node);
        const nowhere = { spec: { template: { spec: { nodeSelector: { 'no/node': 'yes' } } } } };
        const back = { spec: { template: { spec: { nodeSelector: { 'no/node': null } } } } };
        const patch = (change: object) =>
          node.kubectl(['patch', 'daemonset', 'nmi', ...agent, '-p', JSON.stringify(change)]);
        await patch(nowhere);
        await delay(absentMs);
        await patch(back);
        await untilRolledOut(node);
      },
      limitMs: absentMs + 30_000,
    },
    {
      name: 'a restart of the kubelet',
      happen: async () => {
        await systemctl('restart', 'kubelet');
        await untilPodsStart();
      },
      limitMs: 3_000,
    },
    {
      name: 'a restart of containerd',
      happen: async () => {
        await systemctl('restart', 'containerd');
        await untilPodsStart();
      },
      limitMs: 3_000,
    },
    {
      name: 'a cleanup by kube-proxy',
      happen: async () => {
        await systemctl('stop', 'kube-proxy');
        await node.machine.run(['kube-proxy', '--cleanup']);
        await systemctl('start', 'kube-proxy');
        await untilPodsStart();
      },
      limitMs: 3_000,
    },
  ];

  function itStaysClosed(mode: Mode): void {
    for (const { name, happen, limitMs } of events) {
      it(`stays closed through ${name}, and answers again`, async (t: TestContext) => {
        const report = await load.during(happen, 90_000);
        t.diagnostic(describeLoad(report));
        assertClosed(report, mode === 'ebpf' ? ['app'] : ['node']);
        assertIndependent(report);
        for (const { silentMs } of Object.values(report)) {
          assert.ok(silentMs <= limitMs, describeLoad(report));
        }
      });
    }
  }

  /** The agent's pod, and since when it is ready. */
  async function servingAgent(): Promise<string> {
    const name = await agentPod(node);
    const ready = '{.metadata.uid} {.status.conditions[?(@.type=="Ready")]}';
    return node.kubectl(['get', 'pod', name, ...agent, `--output=jsonpath=${ready}`]);
  }

  function itOutlasts(mode: Mode, releases: readonly (keyof typeof badReleases)[]): void {
    for (const release of releases) {
      it(`refuses no request beside a release whose agent ${release}, when that is undone, and in an update right after`, async (t) => {
        await untilRolledOut(node);
        await node.machine.run([
          'iptables',
          '-w',
          '-I',
          'OUTPUT',
          '-d',
          silentServer,
          '-j',
          'DROP',
        ]);
        const old = await servingAgent();
        assert.match(old, /"status":"True"/);
        const container = { name: 'nmi', ...badReleases[release] };
        const change = { spec: { template: { spec: { containers: [container] } } } };
        const daemonSet = ['daemonset/nmi', ...agent];
        const report = await load.during(async () => {
          await node.kubectl(['patch', ...daemonSet, '--patch', JSON.stringify(change)]);
          await delay(neverReadyMs);
          await node.kubectl(['rollout', 'undo', ...daemonSet]);
          await untilRolledOut(node);
          assert.equal(await servingAgent(), old);
          await node.kubectl(['rollout', 'restart', ...daemonSet]);
          await untilRolledOut(node);
        });
        t.diagnostic(describeLoad(report));
        assert.notEqual(await servingAgent(), old);
        assertClosed(report, mode === 'ebpf' ? ['app'] : ['node']);
        assertIndependent(report);
        const outcomes = Object.keys({ ...report.bound.outcomes, ...report.unbound.outcomes });
        assert.deepEqual(outcomes.sort(), ['200 app', '400'], describeLoad(report));
      });
    }
  }

  function itOutlastsALateServer(mode: Mode): void {
    it('refuses no request beside a new agent whose API server answers late, which then takes over', async (t) => {
      await untilRolledOut(node);
      const old = await servingAgent();
      const daemonSet = ['daemonset/nmi', ...agent];
      // The old agent reaches the server by its service, at another address.
      const late = [
        'OUTPUT',
        '-p',
        'tcp',
        '--dport',
        apiServer.port,
        '-m',
        'conntrack',
        '--ctorigdst',
      ];
      const silence = [...late, apiServer.ip, '-m', 'owner', '--uid-owner', '65532', '-j', 'DROP'];
      await node.machine.run(['iptables', '-w', '-I', ...silence]);
      const env = [
        { name: 'KUBERNETES_SERVICE_HOST', value: apiServer.ip },
        { name: 'KUBERNETES_SERVICE_PORT', value: apiServer.port },
      ];
      const change = { spec: { template: { spec: { containers: [{ name: 'nmi', env }] } } } };
      const name = await agentPod(node);
      const report = await load.during(async () => {
        await node.kubectl(['patch', ...daemonSet, '--patch', JSON.stringify(change)]);
        await delay(lateMs);
        const ready = '{.metadata.uid} {.status.conditions[?(@.type=="Ready")]}';
        const now = ['get', 'pod', name, ...agent, `--output=jsonpath=${ready}`];
        assert.equal(await node.kubectl(now), old, 'the old agent is there, and was never unready');
        await node.machine.run(['iptables', '-w', '-D', ...silence]);
        await untilRolledOut(node);
        await node.kubectl(['rollout', 'undo', ...daemonSet]);
        await untilRolledOut(node);
      });
      t.diagnostic(describeLoad(report));
      assertClosed(report, mode === 'ebpf' ? ['app'] : ['node']);
      assertIndependent(report);
      const outcomes = Object.keys({ ...report.bound.outcomes, ...report.unbound.outcomes });
      assert.deepEqual(outcomes.sort(), ['200 app', '400'], describeLoad(report));
    });
  }

  async function assertExplains(mode: Mode): Promise<void> {
    for (const pod of ['burstable', 'static-node-1']) {
      const explained = await inAgent(node, 'nmi', 'explain', `--pod=default/${pod}`);
      assert.match(explained, /gets a token of AzureIdentity two /, explained);
    }
    // kube-proxy put its jump first when it started; the next check, within 10 s, moves ours there.
    await eventuallyByProcess(async () => {
      // The container with the required capabilities; a variable sets its mode.
      const verified = await inAgent(node, 'redirect', 'redirect', 'verify');
      assert.ok(verified.startsWith(`${mode}: active (`), verified);
    }, 20_000);
  }

  describe('by eBPF', () => {
    before(async () => {
      await installChart(node, { redirect: 'ebpf' });
    });

    it('serves every kind of pod', async () => {
      await startPodKinds(node);
      await assertPodKinds(node, 'ebpf');
      await assertEarlyPods(node);
      const { entra } = await node.azure.take();
      const exchanges = entra.map(({ credential, subject, status }) => ({
        credential,
        subject,
        status,
      }));
      const subject = 'system:serviceaccount:default:default';
      assert.deepEqual(exchanges[0], { credential: 'federated', subject, status: 200 });
      load = await startLoad(node, 50);
    });

    itStaysClosed('ebpf');

    it('answers all while the container `redirect` is away', async (t) => {
      const report = await load.during(async () => {
        await killByCommand('nmi-supervise nmi redirect run');
        // From the second time on the kubelet waits.
        await killByCommand('nmi-supervise nmi redirect run');
        await untilRolledOut(node);
      }, 90_000);
      t.diagnostic(describeLoad(report));
      assertClosed(report, ['app']);
      assertIndependent(report);
      assert.deepEqual(Object.keys(report.bound.outcomes), ['200 app']);
    });

    it('refuses no request in an upgrade of the chart, which starts the new agent beside the old one', async (t) => {
      // The DaemonSet's controller keeps the old pod until the new one is ready only while the old one is ready: right
      // after the container `redirect` was away, it has to be so for good.
      await untilRolledOut(node);
      const report = await load.during(async () => {
        await installChart(node, { redirect: 'ebpf', podAnnotations: { upgrade: '2' } });
      });
      t.diagnostic(describeLoad(report));
      const surge = 'jsonpath={.spec.updateStrategy.rollingUpdate.maxSurge}';
      assert.equal(await node.kubectl(['get', 'daemonset', 'nmi', ...agent, '-o', surge]), '1');
      assertClosed(report, ['app']);
      assertIndependent(report);
      assert.deepEqual(Object.keys(report.bound.outcomes), ['200 app']);
    });

    itOutlastsALateServer('ebpf');
    itOutlasts('ebpf', ['cannot start', 'has a silent API server']);

    it('explains itself by kubectl exec', () => assertExplains('ebpf'));

    it('answers every verb of kubectl nmi that reads a cluster', async (t) => {
      for (const [words, shows] of [
        ['doctor', /agents +1 ready of 1, on 1 nodes\n/],
        ['explain pod burstable -n default', /GRANTED/],
        [
          'explain pod burstable -n default --live',
          /\nLive, from the agent [^]*\nnode .*redirect ebpf/,
        ],
        ['analyze -A', /0 errors/],
        ['test --pod burstable -n default', /^A token came\./],
        ['identity list -n default', /two/],
        ['migrate to-workload-identity -n default', /./],
        ['sysdump', /nmi_build_info/],
      ] as const) {
        const printed = await node.plugin(words.split(' '), { timeoutMs: 150_000 });
        t.diagnostic(`${words}: ${printed.slice(0, 600)}`);
        assert.match(printed, shows, words);
      }
    });
  });

  describe('by iptables, after an upgrade', () => {
    it('stays closed through the upgrade', async (t) => {
      const report = await load.during(() => installChart(node, byIptables));
      t.diagnostic(describeLoad(report));
      // Only eBPF redirects pods on the host network.
      assertClosed(report, ['app', 'node']);
    });

    it('serves every kind of pod', async () => {
      await assertPodKinds(node, 'iptables');
    });

    itStaysClosed('iptables');

    it('starts the next agent beside the old one again, once the redirect stays the same', async () => {
      await installChart(node, { ...byIptables, podAnnotations: { upgrade: '3' } });
    });

    itOutlastsALateServer('iptables');
    itOutlasts('iptables', isLong ? ['cannot start', 'has a silent API server'] : ['cannot start']);

    it('explains itself by kubectl exec', () => assertExplains('iptables'));
  });

  describe('about to be uninstalled', () => {
    it('opens the node on request', async (t) => {
      await assertGets(node, 'unbound', '400');
      const report = await load.during(async () => {
        await installChart(node, byIptables, { uninstall: { openNodes: true } });
      });
      t.diagnostic(describeLoad(report));
      await assertGets(node, 'unbound', 'node');
    });

    it('leaves nothing on the node', async () => {
      await node.helm(['uninstall', 'nmi', ...agent, '--wait']);
      await assertNothingLeft(node);
    });
  });
});
