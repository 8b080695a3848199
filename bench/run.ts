/**
 * A cached token against a bare `node:http` reply, on this machine, in this run: `npm run bench`.
 *
 * Server and load have a core each. Rounds of agent and control alternate, so that what disturbs
 * the machine disturbs both; the ratio of each round is what counts, absolute figures are noise.
 * `--rounds N`, `--seconds N`, and flags of the agent behind `--`.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { arch, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { freshExecutable } from '../scripts/build.ts';
import { createEntraApplication } from '../src/lab/entra-applications.ts';
import { createLabIdentity } from '../src/lab/lab-identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
  createSecret,
} from '../src/lab/manifests.ts';
import { openSurroundings } from '../src/lab/surroundings.ts';
import { measureMisses } from './misses.ts';

const { values, positionals } = parseArgs({
  options: { rounds: { type: 'string' }, seconds: { type: 'string' } },
  allowPositionals: true,
});
const rounds = Number(values.rounds ?? 5);
const seconds = values.seconds ?? '2';
const host = '127.0.0.1';
const secretValue = 'bench-client-secret';

interface Figures {
  readonly perSec: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly failures: number;
}

const hasAffinity =
  cpus().length > 1 && spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0;

function onCore(core: number, words: readonly string[]): readonly [string, readonly string[]] {
  const [program = '', ...args] = words;
  return hasAffinity ? ['taskset', ['-c', String(core), program, ...args]] : [program, args];
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function load(port: number, connections: number, kind: 'keep' | 'new'): Promise<Figures> {
  const script = join(import.meta.dirname, 'load.ts');
  const words = [process.execPath, script, String(port), String(connections), seconds, kind];
  const [program, args] = onCore(1, words);
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await once(child, 'close');
  return JSON.parse(text) as Figures;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

async function untilReady(url: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    const response = await fetch(url).catch(() => undefined);
    if (response?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${url} did not become ready`);
}

const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;

async function main(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const executable = await freshExecutable();
  const around = stack.use(
    await openSurroundings({
      imds: { host, port: 0 },
      ...{ host, kubePort: 0, entraPort: 0, nodeIp: host },
    }),
  );
  const { kube, imds, entra } = around;
  const identity = createLabIdentity('bench');
  imds.assign(identity);
  const application = createEntraApplication('bench-secret', { secrets: [{ value: secretValue }] });
  entra.register(application);
  kube.apply(createSecret({ name: 'bench-secret', data: { clientSecret: secretValue } }));
  kube.apply(
    createAzureIdentity({
      ...{ name: 'bench-secret', type: 1, clientId: application.clientId },
      ...{ tenantId: application.tenantId, clientPassword: { name: 'bench-secret' } },
    }),
  );
  kube.apply(
    createAzureIdentityBinding({
      ...{ name: 'bench-secret', azureIdentity: 'bench-secret', selector: 'bench' },
    }),
  );
  const { clientId, resourceId } = identity;
  kube.apply(createAzureIdentity({ name: 'bench', clientId, resourceId }));
  kube.apply(
    createAzureIdentityBinding({ name: 'bench', azureIdentity: 'bench', selector: 'bench' }),
  );
  kube.apply(createPodManifest({ name: 'pod', nodeName: 'node', ips: [host], binding: 'bench' }));
  // The node's other pods: look-ups must not depend on them.
  for (let index = 0; index < 249; index++) {
    const ips = [`10.244.${index >> 8}.${index & 255}`];
    kube.apply(createPodManifest({ name: `p${index}`, nodeName: 'node', ips, binding: 'bench' }));
  }
  const folder = await mkdtemp(join(tmpdir(), 'nmi-bench-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const log = stack.use(await open(join(folder, 'log'), 'w'));

  const [agentPort, adminPort, controlPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const flags = [
    ...[
      '--node=node',
      '--redirect=none',
      `--nmi-listen-address=${host}`,
      `--nmi-port=${agentPort}`,
    ],
    ...[`--metadata-ip=${host}`, `--metadata-port=${imds.port}`, ...around.agentFlags],
    ...[`--http-probe-port=${adminPort}`, `--prometheus-port=${adminPort}`],
    ...['--allow-network-plugin-kubenet', ...positionals],
  ];
  const [program, args] = onCore(0, [executable, ...flags]);
  const agent = spawn(program, args, {
    stdio: ['ignore', log.fd, 'inherit'],
    env: { ...process.env, ...around.agentEnvironment },
  });
  stack.defer(() => stop(agent));
  await untilReady(`http://${host}:${adminPort}/readyz`);
  const url =
    `http://${host}:${agentPort}/metadata/identity/oauth2/token` +
    `?api-version=2018-02-01&resource=https://vault.azure.net&client_id=${clientId}`;
  const first = await fetch(url, { headers: { Metadata: 'true' } });
  if (first.status !== 200) throw new Error(`the agent answered ${first.status}`);
  const bytes = (await first.text()).length;
  const controlScript = join(import.meta.dirname, 'control.ts');
  const [node, controlArgs] = onCore(0, [
    ...[process.execPath, controlScript, String(controlPort), String(bytes)],
  ]);
  const control = spawn(node, controlArgs, { stdio: ['ignore', 'pipe', 'inherit'] });
  stack.defer(() => stop(control));
  await once(control.stdout, 'data');

  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  say(
    `cached token of ${bytes} bytes against a bare node:http reply of the same; Node ` +
      `${process.version}, Linux ${release()} ${arch()}, ${cpus().length} cores, ` +
      `${hasAffinity ? 'a core each' : 'NO core affinity'}, ${rounds} rounds of ${seconds} s`,
  );
  say('| connections | agent /s | control /s | throughput ratio | p50 ratio | p99 ratio |');
  say('| --- | --- | --- | --- | --- | --- |');
  for (const [connections, kind] of [
    [1, 'keep'],
    [16, 'keep'],
    [64, 'keep'],
    [16, 'new'],
  ] as const) {
    const pairs: { readonly agent: Figures; readonly control: Figures }[] = [];
    for (let round = 0; round < rounds; round++) {
      const ours = await load(agentPort, connections, kind);
      pairs.push({ agent: ours, control: await load(controlPort, connections, kind) });
    }
    const failed = pairs.reduce((sum, pair) => sum + pair.agent.failures, 0);
    if (failed > 0) throw new Error(`${failed} requests failed`);
    const ratios = (pick: (figures: Figures) => number): string => {
      const all = pairs.map((pair) => pick(pair.agent) / pick(pair.control));
      const range = `${Math.min(...all).toFixed(2)}–${Math.max(...all).toFixed(2)}`;
      return `${median(all).toFixed(2)} (${range})`;
    };
    say(
      `| ${connections} ${kind === 'keep' ? 'kept' : 'new each'} ` +
        `| ${median(pairs.map((pair) => pair.agent.perSec))} ` +
        `| ${median(pairs.map((pair) => pair.control.perSec))} ` +
        `| ${ratios((figures) => figures.perSec)} | ${ratios((figures) => figures.p50Us)} ` +
        `| ${ratios((figures) => figures.p99Us)} |`,
    );
  }
  say('');
  for (const line of await measureMisses({
    around,
    agentPort,
    identity,
    application,
    secretValue,
  })) {
    say(line);
  }
}

await main();
