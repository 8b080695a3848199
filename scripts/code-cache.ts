/**
 * V8's compiled code of what a start of the agent runs, so that a start compiles nothing.
 *
 * The cache that Node makes for a single executable holds what is compiled when the script is
 * loaded; functions are compiled when they are first called, and those are nearly all. So the
 * bundle serves as an agent here, beside the lab's fakes, and what it had compiled by then is kept.
 * Measured at a start of the agent: 65 ms of compiling with Node's own cache, 25 ms with this one
 * (Node 26.10, 2 cores, November 2026). Compiling every function ahead costs no more at a start and is the
 * same each time, but leaves 12 MB more resident.
 *
 * The same bundle gives the same bytes, so that an image can be built again and compared. These
 * made them differ: V8's hash seed, the order in which functions were compiled, machine code and
 * garbage collection, and the kinds of numbers that were compared, which bytecode remembers.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openFakeImds } from '../lab/fakes/imds/fake-imds.ts';
import { openFakeKube, type FakeKube } from '../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../lab/fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../lab/fakes/kube/manifests.ts';

/** In stack traces; no path of the building machine. */
const scriptName = 'nmi.cjs';
const host = '127.0.0.1';
const nodeName = 'node';
/** Under emulation of another processor a start takes many seconds. */
const patienceMs = 120_000;
const slowTimerMs = 400;
const maxRuns = 6;

/** A program and its first arguments. */
export type Command = readonly [program: string, ...args: readonly string[]];

/** The bundle as one function, which is what the executable carries, compiles and calls. */
export function wrapBundle(script: string): string {
  return `(function (exports, require, module, __filename, __dirname) {${script}\n})`;
}

/** The executable's entry: the wrapped bundle and its code are assets of these names. */
export function renderEntry(bundleAsset: string, cacheAsset: string): string {
  return `
    const { getRawAsset } = require('node:sea');
    const { Script } = require('node:vm');
    const source = Buffer.from(getRawAsset(${JSON.stringify(bundleAsset)})).latin1Slice();
    const cachedData = Buffer.from(getRawAsset(${JSON.stringify(cacheAsset)}));
    const script = new Script(source, { filename: '${scriptName}', cachedData });
    if (script.cachedDataRejected) {
      process.stderr.write('nmi: compiled code was rejected, the start takes longer\\n');
    }
    script.runInThisContext()(exports, require, module, __filename, __dirname);`;
}

/** Garbage collection drops what was compiled, and machine code leaves marks on it. */
const learnFlags = [
  '--hash-seed=1',
  '--no-flush-bytecode',
  '--no-sparkplug',
  '--no-maglev',
  '--no-opt',
];

/**
 * Runs the script as the agent's process would, until the request to write the compiled code. Its clock
 * is frozen and its slow timers never fire: which functions run, and with which kinds of numbers, must
 * not depend on how long this takes.
 */
const pupil = `
  const { readFileSync, writeFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  const [scriptFile, cacheFile] = process.argv.splice(2, 2);
  const script = new Script(readFileSync(scriptFile, 'latin1'), { filename: '${scriptName}' });
  const [wallMs, monotonicMs] = [Date.now(), 1000.5];
  Date.now = () => wallMs;
  performance.now = () => monotonicMs;
  for (const name of ['setTimeout', 'setInterval']) {
    const start = globalThis[name];
    globalThis[name] = (work, delayMs, ...rest) =>
      start(work, delayMs < ${slowTimerMs} ? delayMs : 0x7fffffff, ...rest);
  }
  process.once('message', () => {
    writeFileSync(cacheFile, script.createCachedData());
    process.exit(0);
  });
  script.runInThisContext()(exports, require, module, __filename, __dirname);`;

/**
 * Reads compiled code and writes it again. The first time, with the same hash seed, it numbers functions
 * in the order of the script instead of that of their compilation; the second time, with the flags of the product,
 * it makes sure that a process of the product takes it.
 *
 * V8 writes a hash of its process's flags, the seed among them, into bytes 12 to 15 (V8 14.6,
 * SerializedCodeData). Each process has a seed of its own anyway: V8 rehashes what it reads.
 */
const rewriter = `
  const { readFileSync, writeFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  const [scriptFile, cacheFile, again] = process.argv.slice(2);
  const source = readFileSync(scriptFile).latin1Slice();
  const cachedData = readFileSync(cacheFile);
  new Script('0').createCachedData().copy(cachedData, 12, 12, 16);
  const script = new Script(source, { filename: '${scriptName}', cachedData });
  if (script.cachedDataRejected !== false) process.exit(1);
  writeFileSync(cacheFile, again === 'again' ? script.createCachedData() : cachedData);`;

/**
 * @param wrapped what `wrapBundle` gave.
 * @param node the command that runs the Node of the executable.
 * @param flags of V8 that the executable runs with: V8 refuses code of a process with others.
 * @throws Error if the bundle does not serve, or if a new process would refuse the code.
 */
export async function makeCodeCache(
  wrapped: string,
  node: Command = [process.execPath],
  flags: readonly string[] = [],
): Promise<Buffer> {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-code-cache-'));
  try {
    const file = (name: string) => join(folder, name);
    writeFileSync(file('bundle.cjs'), wrapped);
    writeFileSync(file('pupil.cjs'), pupil);
    writeFileSync(file('rewriter.cjs'), rewriter);
    // A burst of load may still let something else run; what two runs agree on is what runs.
    const seen: Buffer[] = [];
    while (seen.length < maxRuns) {
      await learn(folder, node);
      rewrite(folder, node, ['--hash-seed=1', '--no-flush-bytecode'], 'again');
      rewrite(folder, node, flags, 'as it is');
      const made = readFileSync(file('cache'));
      if (seen.some((other) => other.equals(made))) return made;
      seen.push(made);
    }
    throw new Error(`no two of ${maxRuns} runs compiled the same code`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function rewrite(folder: string, node: Command, flags: readonly string[], how: string): void {
  const [program, ...words] = node;
  const files = ['rewriter.cjs', 'bundle.cjs', 'cache'].map((name) => join(folder, name));
  const run = spawnSync(program, [...words, ...flags, ...files, how], { encoding: 'utf8' });
  if (run.status !== 0)
    throw new Error(`compiled code that was just made is refused ${run.stderr}`);
}

async function learn(folder: string, node: Command): Promise<void> {
  await using kube = await openFakeKube();
  const identity = createLabIdentity('one');
  const { clientId, resourceId } = identity;
  kube.apply(createAzureIdentity({ name: 'one', clientId, resourceId }));
  kube.apply(createAzureIdentityBinding({ name: 'one', azureIdentity: 'one', selector: 'one' }));
  kube.apply(createPodManifest({ name: 'one', nodeName, ips: [host], binding: 'one' }));
  await using imds = await openFakeImds({
    host,
    port: 0,
    nodeIps: [host],
    systemAssigned: createNodeIdentity(),
    userAssigned: [identity],
  });
  const kubeconfig = join(folder, 'kubeconfig');
  writeFileSync(kubeconfig, kube.kubeconfig());
  const [port, adminPort] = [await freePort(), await freePort()];
  const flags = [
    ...[`--node=${nodeName}`, '--redirect=none', `--nmi-listen-address=${host}`],
    ...[`--nmi-port=${port}`, `--metadata-ip=${host}`, `--metadata-port=${imds.port}`],
    ...[`--http-probe-port=${adminPort}`, `--prometheus-port=${adminPort}`],
  ];
  const words = ['pupil.cjs', 'bundle.cjs', 'cache'].map((name) => join(folder, name));
  const [program, ...before] = node;
  const agent = spawn(program, [...before, ...learnFlags, ...words, ...flags], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    env: { KUBECONFIG: kubeconfig, NMI_EXPLAIN_SOCKET: join(folder, 'explain.sock') },
  });
  const ended = once(agent, 'exit');
  try {
    await until(agent, () => hasListed(kube));
    await askForTokens(port);
    for (const page of ['readyz', 'healthz', 'metrics']) {
      await ask(`http://${host}:${adminPort}/${page}`);
    }
    agent.send('write');
    await ended;
    if (agent.exitCode !== 0) throw new Error('the agent whose code is to be kept failed');
  } finally {
    agent.kill('SIGKILL');
  }
}

/** Pods and the three kinds: a watch follows a list. */
function hasListed(kube: FakeKube): boolean {
  return kube.watches() >= 4;
}

async function until(agent: ChildProcess, holds: () => boolean): Promise<void> {
  const untilMs = performance.now() + patienceMs;
  while (!holds()) {
    if (agent.exitCode !== null || performance.now() > untilMs) {
      throw new Error('the agent whose code is to be kept does not start');
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The first is a miss, the others are hits. */
async function askForTokens(port: number): Promise<void> {
  const target =
    '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://one.example';
  for (let answers = 0; answers < 5; answers++) {
    const status = await ask(`http://${host}:${port}${target}`);
    if (status !== 200) throw new Error('the agent whose code is to be kept does not serve');
  }
}

/** Again while nothing listens yet, which the agent does not notice. */
async function ask(url: string): Promise<number> {
  for (let tries = 1; ; tries++) {
    try {
      const reply = await fetch(url, { headers: { Metadata: 'true' } });
      await reply.text();
      return reply.status;
    } catch (err) {
      if (tries === 1000) throw err;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
