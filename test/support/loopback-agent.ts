/**
 * The whole agent on loopback with the fakes of the lab around it: pods are distinguished by their
 * source addresses in 127.0.0.0/8, and nothing is redirected.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock, type Clock } from '../../src/base/time/clock.ts';
import { openFakeImds, type FakeImds } from '../../lab/fakes/imds/fake-imds.ts';
import {
  openFakeKube,
  type FakeKube,
  type FakeKubeOptions,
} from '../../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../../lab/fakes/identity.ts';
import type { LabIdentity } from '../../lab/fakes/token.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openLoopbackPod, type PodClient } from '../../lab/pods/pod-client.ts';
import { startAgent } from '../../src/nmi/agent.ts';
import { parseConfig } from '../../src/nmi/config/config.ts';
import type { Tuning } from '../../src/nmi/config/tuning.ts';
import { createLogger } from '../../src/base/logger.ts';
import { twoFreePorts } from '../../lab/fabric/free-ports.ts';

export interface AgentOwn {
  readonly clock?: Clock;
  readonly tuning?: Partial<Tuning>;
  /** Default: none. */
  readonly explainSocket?: string;
}

export interface LoopbackAgent extends AsyncDisposable {
  readonly kube: FakeKube;
  readonly imds: FakeImds;
  readonly port: number;
  readonly adminPort: number;
  /** Every line the agent logged. */
  readonly log: readonly string[];
  /** A client with its own source address; closed with the agent. */
  client(sourceIp: string): PodClient;
  stop(): Promise<void>;
}

export const identityA = createLabIdentity('a');
export const identityB = createLabIdentity('b');

/**
 * @param flags command-line flags in addition to those for loopback.
 * @param own the agent's clock, and its limits in addition to shorter waits.
 */
export async function openLoopbackAgent(
  flags: Readonly<Record<string, string>> = {},
  prepare: (kube: FakeKube) => void | Promise<void> = () => undefined,
  { clock = systemClock, tuning = {}, explainSocket = 'off' }: AgentOwn = {},
  kubeOptions: Pick<FakeKubeOptions, 'tls'> = {},
): Promise<LoopbackAgent> {
  await using stack = new AsyncDisposableStack();
  const kube = stack.use(await openFakeKube(kubeOptions));
  const imds = stack.use(
    await openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: ['127.0.0.1'],
      systemAssigned: createNodeIdentity(),
      userAssigned: [identityA, identityB],
    }),
  );
  await prepare(kube);
  const folder = await mkdtemp(join(tmpdir(), 'nmi-test-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(kubeconfig, kube.kubeconfig());
  const [port, probePort] = await twoFreePorts();
  const parsed = parseConfig(
    {
      node: 'node-1',
      kubeconfig,
      redirect: 'none',
      'nmi-listen-address': '127.0.0.1',
      'nmi-port': String(port),
      'metadata-ip': '127.0.0.1',
      'metadata-port': String(imds.port),
      'http-probe-port': String(probePort),
      'prometheus-port': String(probePort),
      'log-level': 'trace',
      ...flags,
    },
    {
      NMI_EXPLAIN_SOCKET: explainSocket,
      // Whole suites can be run without the fast path.
      NMI_FAST_PATH: process.env['NMI_FAST_PATH'],
    },
  );
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems));
  const { config } = parsed;
  const log: string[] = [];
  const agent = await startAgent({
    config,
    clock,
    log: createLogger({ format: 'json', level: 'trace', write: (line) => log.push(line) }),
    stdout: (line) => log.push(line) > 0,
    environment: {},
    tuning: { lateObjectWaitMs: 300, drainTimeoutMs: 2_000, ...tuning },
  });
  let stopping: Promise<void> | undefined;
  const stop = () => (stopping ??= agent.stop());
  stack.defer(stop);
  const clients = new AsyncDisposableStack();
  stack.use(clients);
  await untilReady(config.probePort);
  const all = stack.move();
  return {
    kube,
    imds,
    port: agent.listenPort,
    adminPort: config.probePort,
    log,
    client: (sourceIp) =>
      clients.use(
        openLoopbackPod({
          name: sourceIp,
          sourceIp,
          host: '127.0.0.1',
          port: agent.listenPort,
        }),
      ),
    stop,
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** For a busy machine. */
const startMs = 30_000;

/** A running pod bound to identity A by label `app`, at 127.0.0.11. */
export function bindPodToA(kube: FakeKube): void {
  kube.apply(createAzureIdentity({ name: 'a', ...idsOf(identityA) }));
  kube.apply(createAzureIdentityBinding({ name: 'a', azureIdentity: 'a', selector: 'app' }));
  kube.apply(
    createPodManifest({ name: 'p', nodeName: 'node-1', ips: ['127.0.0.11'], binding: 'app' }),
  );
}

export function idsOf(identity: LabIdentity): { clientId: string; resourceId: string } {
  return { clientId: identity.clientId, resourceId: identity.resourceId };
}

async function untilReady(port: number): Promise<void> {
  await eventually(async () => {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`);
    const text = await response.text();
    if (response.status !== 200) throw new Error(`the agent did not become ready: ${text}`);
  }, startMs);
}
