/**
 * What most scenarios need: fakes in this process, on the core of the load, and the agent on the
 * other, all on loopback and without a redirect. Pods are told apart by addresses of 127.0.0.0/8.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LabIdentity } from '../../lab/fakes/token.ts';
import { openServices, type Services } from '../../lab/test-bed/services.ts';
import type { Caller } from '../load/plan.ts';
import { freePort } from '../machine/child.ts';
import { BenchAgent } from './agent.ts';
import { addAskingPod, fillCluster, nodeName, type ClusterSize } from './objects.ts';

const host = '127.0.0.1';
const firstPodHost = 11;
export const tokenPath = '/metadata/identity/oauth2/token?api-version=2018-02-01';
export const defaultTarget = `${tokenPath}&resource=https%3A%2F%2Fvault.azure.net`;

export interface StandOptions {
  readonly executable: string;
  readonly agentFlags: readonly string[];
  readonly size: ClusterSize;
  /** Pods that ask, each with an identity of its own. Default 1. */
  readonly askingPods?: number;
  /** More objects, before the agent starts. */
  readonly prepare?: (around: Services) => void;
}

export interface AskingPod {
  readonly ip: string;
  readonly identity: LabIdentity;
}

export interface Stand extends AsyncDisposable {
  readonly around: Services;
  readonly agent: BenchAgent;
  readonly host: string;
  readonly port: number;
  readonly pods: readonly AskingPod[];
  readonly logFile: string;
}

/** The agent is ready when this returns. */
export async function openStand(options: StandOptions): Promise<Stand> {
  const stand = await prepareStand(options);
  try {
    await stand.agent.start();
    return stand;
  } catch (error) {
    await stand[Symbol.asyncDispose]();
    throw error;
  }
}

/** All but the agent's start. */
export async function prepareStand(options: StandOptions): Promise<Stand> {
  await using opening = new AsyncDisposableStack();
  const around = opening.use(
    await openServices({
      imds: { host, port: 0 },
      host,
      kubePort: 0,
      entraPort: 0,
      nodeIp: host,
    }),
  );
  const pods = Array.from({ length: options.askingPods ?? 1 }, (_, index) => {
    const ip = `127.0.0.${firstPodHost + index}`;
    return { ip, identity: addAskingPod(around.kube, around.imds, { name: `ask-${index}`, ip }) };
  });
  const { size } = options;
  fillCluster(around.kube, { ...size, pods: size.pods - pods.length });
  options.prepare?.(around);
  const folder = await mkdtemp(join(tmpdir(), 'nmi-bench-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const [port, adminPort] = [await freePort(host), await freePort(host)];
  const logFile = join(folder, 'log');
  const agent = opening.use(
    new BenchAgent({
      executable: options.executable,
      adminUrl: `http://${host}:${adminPort}`,
      logFile,
      env: around.agentEnvironment,
      flags: [
        ...[`--node=${nodeName}`, '--operation-mode=managed', '--forceNamespaced'],
        ...['--redirect=none', `--nmi-listen-address=${host}`, `--nmi-port=${port}`],
        ...[`--metadata-ip=${host}`, `--metadata-port=${around.imds.port}`, ...around.agentFlags],
        ...[`--http-probe-port=${adminPort}`, `--prometheus-port=${adminPort}`],
        ...['--allow-network-plugin-kubenet', ...options.agentFlags],
      ],
    }),
  );
  const owned = opening.move();
  return {
    around,
    agent,
    host,
    port,
    pods,
    logFile,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Asks for the pod's own token, always the same one. */
export function callerOf(pod: AskingPod | undefined, target = defaultTarget): Caller {
  if (pod === undefined) throw new TypeError('no such pod');
  return { sourceIp: pod.ip, target, expect: { kind: 'identity', name: pod.identity.name } };
}

/** Bytes of the body of the answer, which controls answer with as well. */
export async function bodyBytesOf(stand: Stand): Promise<number> {
  const caller = callerOf(stand.pods[0]);
  const response = Promise.withResolvers<number>();
  request({
    host: stand.host,
    port: stand.port,
    path: caller.target,
    localAddress: stand.pods[0]?.ip,
    headers: { Metadata: 'true' },
    agent: false,
  })
    .on('error', response.reject)
    .on('response', (answer) => {
      let bytes = 0;
      answer
        .on('data', (chunk: Buffer) => (bytes += chunk.length))
        .on('end', () => {
          if (answer.statusCode === 200) response.resolve(bytes);
          else response.reject(new Error(`the agent answered ${String(answer.statusCode)}`));
        });
    })
    .end();
  return response.promise;
}
