/** The agent as a child process on loopback, started with the arguments of a command line. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openFakeImds, type FakeImds } from '../../../lab/fakes/imds/fake-imds.ts';
import { openFakeKube, type FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../../../lab/fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../../lab/fakes/kube/manifests.ts';
import { openLoopbackPod, type PodClient } from '../../../lab/pods/pod-client.ts';
import { agentCommand } from '../../support/agent-command.ts';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';
import { sourceEnvironment } from '../../support/source-environment.ts';

export const nodeName = 'node-1';
const podIp = '127.0.0.11';
/** A busy machine takes many seconds to start the agent. */
const startMs = 60_000;

export interface Child {
  readonly pid: number;
  /** Its output so far. */
  stdout(): string;
  stderr(): string;
  /** Resolves when standard output has matched; rejects if the process ends first. */
  untilPrinted(text: RegExp): Promise<void>;
  /** Whether its standard output is read. */
  read(isRead: boolean): void;
  signal(name: NodeJS.Signals): void;
  /** Its exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>;
}

/** `nmi` with these arguments; no variable of this process's configures it. */
export function startNmi(words: readonly string[], env: NodeJS.ProcessEnv = {}): Child {
  const [program, ...leading] = agentCommand;
  const child: ChildProcess = spawn(program, [...leading, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...sourceEnvironment, ...env },
  });
  let stdout = '';
  let stderr = '';
  const waiting = new Set<() => void>();
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    for (const look of waiting) look();
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const exited = new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      resolve(signal ?? code ?? 1);
    });
  });
  return {
    pid: child.pid ?? 0,
    stdout: () => stdout,
    stderr: () => stderr,
    untilPrinted: (text) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (!text.test(stdout)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
        void exited.then((outcome) => {
          reject(new Error(`ended with ${outcome}: ${stdout}${stderr}`));
        });
      }),
    read: (isRead) => {
      if (isRead) child.stdout?.resume();
      else child.stdout?.pause();
    },
    signal: (name) => {
      child.kill(name);
    },
    exited,
  };
}

export interface Services extends AsyncDisposable {
  readonly kube: FakeKube;
  readonly imds: FakeImds;
  readonly listenPort: number;
  readonly probePort: number;
  readonly kubeconfig: string;
  /** Folder for the files of a test. */
  readonly folder: string;
  /** The flags that put the agent on loopback beside these fakes. */
  readonly flags: readonly string[];
  /** The only pod, bound to an identity named `a`. */
  readonly pod: PodClient;
  /** Starts the agent; it is killed with its services. */
  start(words?: readonly string[], env?: NodeJS.ProcessEnv): Child;
  /** A page of the probe port, or undefined while nothing answers. */
  page(path: string): Promise<{ status: number; text: string } | undefined>;
  /** Until `/readyz` is 200; rejects with that page and all that the agents printed. */
  untilReady(): Promise<void>;
}

export async function openServices(): Promise<Services> {
  await using opening = new AsyncDisposableStack();
  const identity = createLabIdentity('a');
  const kube = opening.use(await openFakeKube());
  const { clientId, resourceId } = identity;
  kube.apply(createAzureIdentity({ name: 'a', clientId, resourceId }));
  kube.apply(createAzureIdentityBinding({ name: 'a', azureIdentity: 'a', selector: 'app' }));
  kube.apply(createPodManifest({ name: 'p', nodeName, ips: [podIp], binding: 'app' }));
  const imds = opening.use(
    await openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: ['127.0.0.1'],
      systemAssigned: createNodeIdentity(),
      userAssigned: [identity],
    }),
  );
  const folder = await mkdtemp(join(tmpdir(), 'nmi-process-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(kubeconfig, kube.kubeconfig());
  const [listenPort, probePort] = await twoFreePorts();
  const pod = opening.use(
    openLoopbackPod({ name: 'p', sourceIp: podIp, host: '127.0.0.1', port: listenPort }),
  );
  const started = opening.adopt(new Set<Child>(), async (children) => {
    for (const child of children) child.signal('SIGKILL');
    await Promise.all([...children].map(({ exited }) => exited));
  });
  const flags = [
    ...[`--node=${nodeName}`, '--redirect=none', '--nmi-listen-address=127.0.0.1'],
    ...[`--nmi-port=${listenPort}`, '--metadata-ip=127.0.0.1', `--metadata-port=${imds.port}`],
    ...[`--http-probe-port=${probePort}`, `--prometheus-port=${probePort}`],
  ];
  const page = async (path: string) => {
    try {
      const response = await fetch(`http://127.0.0.1:${probePort}/${path}`);
      return { status: response.status, text: await response.text() };
    } catch {
      return undefined;
    }
  };
  const all = opening.move();
  return {
    kube,
    imds,
    listenPort,
    probePort,
    kubeconfig,
    folder,
    flags,
    pod,
    page,
    start: (words = flags, env = { KUBECONFIG: kubeconfig }) => {
      const explainSocket = join(folder, 'explain.sock');
      const child = startNmi(words, { NMI_EXPLAIN_SOCKET: explainSocket, ...env });
      started.add(child);
      return child;
    },
    untilReady: async () => {
      const deadlineMs = performance.now() + startMs;
      for (;;) {
        const readyz = await page('readyz');
        if (readyz?.status === 200) return;
        if (performance.now() > deadlineMs) {
          const printed = [...started].map((child) => child.stdout() + child.stderr());
          throw new Error(`not ready: ${readyz?.text ?? 'no answer'}\n${printed.join('\n')}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}
