/** The agent on a test node: installed as in the README, and the operations on it there. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fabricAddresses } from '../../../lab/fabric/fabric.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import { eventuallyByProcess } from './machine.ts';
import { productImage } from './images.ts';
import type { TestNode } from './node.ts';

const namespace = 'kube-system';
const inNamespace = `--namespace=${namespace}`;
const chart = join(repositoryRoot, 'deploy/chart');
const entraCa = 'entra-ca';
const entraFolder = '/etc/entra';

/** As {@link applyChart}, until the agent runs. */
export async function installChart(...words: Parameters<typeof applyChart>): Promise<void> {
  await applyChart(...words);
  await untilRolledOut(words[0]);
}

/**
 * By the chart, with identities federated with the cluster; `nmi` are the chart's values for it.
 * @param from folder of the chart.
 */
export async function applyChart(
  node: TestNode,
  nmi: Readonly<Record<string, unknown>>,
  more: Readonly<Record<string, unknown>> = {},
  from = chart,
): Promise<void> {
  await node.apply({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: entraCa, namespace },
    data: { 'ca.pem': node.caPem },
  });
  const values = {
    image: { repository: productImage.repository, imagePullPolicy: 'Never' },
    nmi: {
      entraAuthority: `https://${fabricAddresses.azureIp}:8443`,
      entraCaFile: `${entraFolder}/ca.pem`,
      extraVolumes: [{ name: entraCa, configMap: { name: entraCa } }],
      extraVolumeMounts: [{ name: entraCa, mountPath: entraFolder, readOnly: true }],
      ...nmi,
    },
    rbac: { allowFederation: true },
    ...more,
  };
  const words = ['upgrade', '--install', 'nmi', from, inNamespace, '--values=-'];
  await node.helm(words, { input: JSON.stringify(values) });
}

/** Fails with the log of the agent. */
export async function untilRolledOut(node: TestNode): Promise<void> {
  const status = ['rollout', 'status', 'daemonset/nmi', inNamespace, '--timeout=120s'];
  try {
    await node.kubectl(status, { timeoutMs: 130_000 });
  } catch (err) {
    const pods = await node.kubectl(['describe', 'pods', inNamespace, '--selector=component=nmi']);
    throw new Error(`${pods.slice(-3000)}\n${await agentLog(node)}`, { cause: err });
  }
}

function agentLog(node: TestNode, lines = 20): Promise<string> {
  return node.kubectl([
    ...['logs', inNamespace, '--selector=component=nmi', '--container=nmi'],
    ...['--prefix=false', `--tail=${lines}`],
  ]);
}

/** Name of the agent's pod that is not terminating. */
export async function agentPod(node: TestNode): Promise<string> {
  return eventuallyByProcess(async () => {
    const list = await node.kubectl([
      ...['get', 'pods', inNamespace, '--selector=component=nmi', '--output=json'],
    ]);
    const { items } = JSON.parse(list) as {
      readonly items: readonly {
        readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
      }[];
    };
    const [pod] = items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    assert.ok(pod !== undefined, 'there is no agent');
    return pod.metadata.name;
  }, 30_000);
}

/** The agent's process id, as seen on the node. */
export async function agentPid(node: TestNode): Promise<number> {
  const found = await node.machine.run(['pgrep', '--full', '^nmi --node=']);
  const pids = found.trim().split('\n');
  assert.equal(pids.length, 1, `agents: ${pids.join(' ')}`);
  return Number(pids[0]);
}

/** Objects are deleted before their processes end. */
export async function untilAgentEnded(node: TestNode): Promise<void> {
  const running = "pgrep --full '^nmi --node=' >&2 && exit 1 || exit 0";
  await eventuallyByProcess(() => node.machine.run(['sh', '-c', running]), 40_000);
}

/** A command in the agent's container. */
export async function inAgent(
  node: TestNode,
  container: 'nmi' | 'redirect',
  ...words: readonly string[]
): Promise<string> {
  const exec = ['exec', inNamespace, await agentPod(node), `--container=${container}`, '--', 'nmi'];
  return node.kubectl([...exec, ...words]);
}

/** No rule, link or pin of the agent is on the node; rules of `others` may be. */
export async function assertNothingLeft(node: TestNode, others = /(?!)/): Promise<void> {
  const listed = await node.machine.run(['sh', '-c', 'iptables-save; ip6tables-save; ip rule']);
  const rules = listed.split('\n').filter((line) => !others.test(line));
  assert.doesNotMatch(rules.join('\n'), /nmi|169\.254\./);
  assert.doesNotMatch(await node.machine.run(['ip', '-brief', 'link']), /nmi/);
  assert.ok(!existsSync(node.machine.path('/etc/systemd/system/nmi-guard.service')));
  const sockets = ['sh', '-c', 'ls -A /run/nmi-agent 2>&1 || true'];
  assert.match(await node.machine.run(sockets), /^$|No such file/);
  // The kernel has its own files there.
  const pinned = ['find', '/sys/fs/bpf', '-mindepth', '1', '!', '-name', '*.debug'];
  assert.equal(await node.machine.run(pinned), '');
}
