/**
 * `main.ts once FOLDER PROGRAM ARGS...`: an agent on loopback that serves one pod and ends. The build keeps the
 * code that such a start compiles (scripts/code-cache.ts), so nothing here may come in another order each time.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { twoFreePorts } from './fabric/free-ports.ts';
import { openFakeImds } from './fakes/imds/fake-imds.ts';
import { openFakeKube, type FakeKube } from './fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from './fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from './fakes/kube/manifests.ts';

const host = '127.0.0.1';
const nodeName = 'node';
/** When another processor is emulated, a start takes many seconds. */
const patienceMs = 120_000;

/**
 * @param folder for files of the agent.
 * @param command the agent's program and its first arguments; its flags follow. A message ends it.
 */
export async function serveOnce([folder = '', ...command]: readonly string[]): Promise<void> {
  await using kube = await openFakeKube();
  const identity = createLabIdentity('one');
  const { clientId, resourceId } = identity;
  kube.apply(createAzureIdentity({ name: 'one', clientId, resourceId }));
  kube.apply(createAzureIdentityBinding({ name: 'one', azureIdentity: 'one', selector: 'one' }));
  kube.apply(createPodManifest({ name: 'one', nodeName, ips: [host], binding: 'one' }));
  // What runs for a pod without a binding ran for the first one, too, if its list came before that of the bindings.
  kube.apply(createPodManifest({ name: 'two', nodeName, ips: ['127.0.0.2'], binding: 'two' }));
  await using imds = await openFakeImds({
    host,
    port: 0,
    nodeIps: [host],
    systemAssigned: createNodeIdentity(),
    userAssigned: [identity],
  });
  await using gate = await openGate(Number(new URL(kube.url).port));
  const kubeconfig = join(folder, 'kubeconfig');
  const socket = join(folder, 'explain.sock');
  // The agent of the run before has left it; code that finds it would run, too.
  rmSync(socket, { force: true });
  writeFileSync(kubeconfig, kube.kubeconfig().replaceAll(new URL(kube.url).host, gate.host));
  const [port, adminPort] = await twoFreePorts();
  const flags = [
    ...[`--node=${nodeName}`, '--redirect=none', `--nmi-listen-address=${host}`],
    ...[`--nmi-port=${port}`, `--metadata-ip=${host}`, `--metadata-port=${imds.port}`],
    ...[`--http-probe-port=${adminPort}`, `--prometheus-port=${adminPort}`],
  ];
  const [program = '', ...before] = command;
  const agent = spawn(program, [...before, ...flags], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    env: { KUBECONFIG: kubeconfig, NMI_EXPLAIN_SOCKET: socket },
  });
  const ended = once(agent, 'exit');
  try {
    // What looks once at a start whether the agent is ready has looked by the second answer.
    await ask(agent, `http://${host}:${adminPort}/readyz`);
    await ask(agent, `http://${host}:${adminPort}/readyz`);
    gate.open();
    await until(agent, () => hasListed(kube));
    await askForTokens(agent, port);
    for (const page of ['readyz', 'healthz', 'metrics']) {
      await ask(agent, `http://${host}:${adminPort}/${page}`);
    }
    agent.send('end');
    await ended;
    if (agent.exitCode !== 0) throw new Error('it failed');
  } finally {
    agent.kill('SIGKILL');
  }
}

interface Gate extends AsyncDisposable {
  readonly host: string;
  open(): void;
}

/** Connections to a port of this machine that get no byte through until it is open. */
async function openGate(port: number): Promise<Gate> {
  const opened = Promise.withResolvers<void>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    void opened.promise.then(() => {
      const to = connect(port, host);
      void pipeline(socket, to, socket).catch(() => undefined);
    });
  }).listen(0, host);
  await once(server, 'listening');
  return {
    host: `${host}:${portOf(server)}`,
    open: opened.resolve,
    async [Symbol.asyncDispose]() {
      server.close();
      // Those of an agent that ended before the gate was opened.
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

/** Pods and the three identity kinds: a watch starts after its list. */
function hasListed(kube: FakeKube): boolean {
  return kube.watches() >= 4;
}

async function until(agent: ChildProcess, holds: () => boolean): Promise<void> {
  const untilMs = performance.now() + patienceMs;
  while (!holds()) {
    if (agent.exitCode !== null || performance.now() > untilMs) {
      throw new Error('it does not start');
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The first is a miss, the others are hits. */
async function askForTokens(agent: ChildProcess, port: number): Promise<void> {
  const target =
    '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://one.example';
  for (let answers = 0; answers < 5; answers++) {
    const status = await ask(agent, `http://${host}:${port}${target}`);
    if (status !== 200) throw new Error('it does not serve');
  }
}

/** Retries while the agent does not listen yet; the agent sees none of these attempts. */
async function ask(agent: ChildProcess, url: string): Promise<number> {
  const untilMs = performance.now() + patienceMs;
  for (;;) {
    try {
      const reply = await fetch(url, { headers: { Metadata: 'true' } });
      await reply.text();
      return reply.status;
    } catch (err) {
      if (agent.exitCode !== null || performance.now() > untilMs) throw err;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}
