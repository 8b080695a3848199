/**
 * The world of network namespaces, seen from inside the azure namespace: fakes on the metadata
 * address and on the node's uplink, the agent in the node, each pod in a namespace of its own.
 */
import type { ChildProcess } from 'node:child_process';
import { AgentProcess } from './agent-process.ts';
import { fabricAddresses, type Fabric } from './fabric.ts';
import { openFabricPod } from './pod-client.ts';
import { selfCommand } from './self-command.ts';
import { openSurroundings } from './surroundings.ts';
import { nodeName, type Ground, type RunResult } from './world.ts';

const kubePort = 6443;
const entraPort = 8443;
const probePort = 8085;

/** @param redirect how the agent redirects, as its flag takes it. */
export async function openFabricGround(
  fabric: Fabric,
  redirect: string,
): Promise<Ground & AsyncDisposable> {
  await using opening = new AsyncDisposableStack();
  const { imdsIp, azureIp, nodeIp } = fabricAddresses;
  const surroundings = opening.use(
    await openSurroundings({
      imds: { host: imdsIp, port: 80 },
      ...{ host: azureIp, kubePort, entraPort, nodeIp },
    }),
  );
  const [program, ...leading] = selfCommand();
  const openAgent = (adminPort: number): AgentProcess =>
    new AgentProcess({
      adminUrl: `http://${nodeIp}:${adminPort}`,
      spawn: (flags) =>
        fabric.exec('node', program, [...leading, ...flags], {
          env: { ...process.env, ...surroundings.agentEnvironment },
        }),
    });
  const agent = opening.use(openAgent(probePort));
  const owned = opening.move();
  return {
    kind: 'namespaces',
    ...surroundings,
    agent,
    agentFlags: [
      ...surroundings.agentFlags,
      // Without a redirect nobody brings up the agent's own address; the node's is there anyway.
      ...(redirect === 'none' ? [`--nmi-listen-address=${nodeIp}`] : []),
      ...[`--node=${nodeName}`, '--operation-mode=managed', '--forceNamespaced'],
      ...[`--http-probe-port=${probePort}`, `--prometheus-port=${probePort}`],
      ...['--ipt-update-interval-sec=1', `--redirect=${redirect}`],
    ],
    nodeIp,
    openPod: async (name, ip) => {
      const pod = await fabric.addPod(name, ip === undefined ? {} : { ip });
      return { ips: pod.ips, client: await openFabricPod({ fabric, space: name }) };
    },
    closePod: (name) => fabric.removePod(name),
    openHostClient: () => openFabricPod({ fabric, space: 'node' }),
    openAgent,
    runInNode: (command, args, input) =>
      collect(fabric.exec('node', command, args, { stdio: ['pipe', 'pipe', 'pipe'] }), input),
    runInPod: (pod, command, args) =>
      collect(fabric.exec(pod, command, args, { stdio: ['pipe', 'pipe', 'pipe'] }), undefined),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function collect(child: ChildProcess, input: string | undefined): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.once('error', reject);
    child.once('close', (code) => {
      resolve({ code: code ?? 1, stdout, stderr });
    });
    // A tool may end without reading its input.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}
