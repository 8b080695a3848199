/**
 * A test bed without root: everything on 127.0.0.1, pods told apart by source addresses of 127.0.0.0/8.
 * The whole agent runs, only the redirect does not: pods dial the agent itself.
 */
import { spawn } from 'node:child_process';
import { AgentProcess } from './agent-process.ts';
import { twoFreePorts } from '../fabric/free-ports.ts';
import { LabError } from '../fabric/lab-error.ts';
import { openLoopbackPod } from '../pods/pod-client.ts';
import type { Command } from '../fabric/lab-command.ts';
import { openServices } from './services.ts';
import { nodeName, type Environment } from './test-bed.ts';

const host = '127.0.0.1';
const firstPodHost = 11;

/** @param agentCommand starts `nmi`. */
export async function openLoopbackEnvironment(
  agentCommand: Command,
): Promise<Environment & AsyncDisposable> {
  await using opening = new AsyncDisposableStack();
  const services = opening.use(
    await openServices({
      imds: { host, port: 0 },
      host,
      kubePort: 0,
      entraPort: 0,
      nodeIp: host,
    }),
  );
  const agentEnvironment = {
    ...services.agentEnvironment,
    // Programs of an agent that this machine may have are not the lab's to report.
    NMI_BPF_PIN_FOLDER: '/sys/fs/bpf/nmi-lab',
  };
  const [port, adminPort] = await twoFreePorts();
  const [program, ...leading] = agentCommand;
  const agent = opening.use(
    new AgentProcess({
      adminUrl: `http://${host}:${adminPort}`,
      spawn: (flags) =>
        spawn(program, [...leading, ...flags], {
          stdio: ['ignore', 'pipe', 'pipe'],
          env: { ...process.env, ...agentEnvironment },
        }),
    }),
  );
  const owned = opening.move();
  let nextHost = firstPodHost;
  return {
    kind: 'loopback',
    ...services,
    agent,
    agentCommand,
    agentCgroup: () => undefined,
    podCgroup: () => undefined,
    agentEnvironment,
    redirectFlags: ['--redirect=none'],
    mode: 'none',
    agentFlags: [
      ...services.agentFlags,
      ...[`--node=${nodeName}`, '--operation-mode=managed', '--forceNamespaced'],
      ...['--redirect=none', `--nmi-listen-address=${host}`, `--nmi-port=${port}`],
      ...[`--metadata-ip=${host}`, `--metadata-port=${services.imds.port}`],
      ...[`--http-probe-port=${adminPort}`, `--prometheus-port=${adminPort}`],
      '--allow-network-plugin-kubenet',
    ],
    nodeIp: host,
    openPod: ({ name, ip, hostNetwork }) => {
      if (hostNetwork) return noNamespaces();
      const sourceIp = ip ?? `127.0.0.${nextHost++}`;
      const client = openLoopbackPod({ name, sourceIp, host, port });
      return Promise.resolve({ ips: [sourceIp], client });
    },
    closePod: () => Promise.resolve(),
    movePod: () => undefined,
    openHostClient: noNamespaces,
    openOutsider: noNamespaces,
    openAgent: () => {
      throw noNamespace();
    },
    openInside: noNamespaces,
    openContainer: noNamespaces,
    podNamespace: () => {
      throw noNamespace();
    },
    startInPod: () => {
      throw noNamespace();
    },
    runInNode: noNamespaces,
    runInPod: noNamespaces,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function noNamespaces(): Promise<never> {
  return Promise.reject(noNamespace());
}

function noNamespace(): LabError {
  return new LabError('NAMESPACE_WRONG', 'on loopback there are no namespaces');
}
