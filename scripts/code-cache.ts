/**
 * V8's compiled code of all functions that run at a start of the agent, so that it compiles none.
 *
 * The cache that Node creates for a single executable contains only code that is compiled when the
 * script is loaded, but nearly all functions are compiled at their first call. So the bundle runs
 * here as an agent with the lab's fakes, and all code that it has compiled by the end is stored.
 * Measured at a start of the agent: 65 ms of compilation with Node's own cache, 25 ms with this one
 * (Node 26.10, 2 cores, November 2026). Compiling every function in advance costs no more at a
 * start and is the same each time, but leaves 12 MB more resident.
 *
 * The same bundle results in the same bytes, so that an image can be rebuilt and compared. These
 * made them differ: V8's hash seed, the order in which functions were compiled, machine code and
 * garbage collection, the kinds of numbers that were compared, which bytecode records, and whether the
 * first lists came before the agent looked for the first time whether it is ready.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { openFakeImds } from '../lab/fakes/imds/fake-imds.ts';
import { openFakeKube, type FakeKube } from '../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../lab/fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../lab/fakes/kube/manifests.ts';

/** Shown in stack traces, instead of a path of the building machine. */
const scriptName = 'nmi.cjs';
const host = '127.0.0.1';
const nodeName = 'node';
/** When another processor is emulated, a start takes many seconds. */
const patienceMs = 120_000;
const slowTimerMs = 400;
const maxRuns = 6;

/** A program and its first arguments. */
export type Command = readonly [program: string, ...args: readonly string[]];

/** The bundle as one function, which the executable contains, compiles and calls. */
export function wrapBundle(script: string): string {
  return `(function (exports, require, module, __filename, __dirname) {${script}\n})`;
}

/** The executable's entry: the wrapped bundle and its compiled code are assets with these names. */
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

/** Garbage collection can drop compiled code, and machine code changes it. */
const learnFlags = [
  '--hash-seed=1',
  '--no-flush-bytecode',
  '--no-sparkplug',
  '--no-maglev',
  '--no-opt',
];

/**
 * Runs the script like the agent's process, until a message requests the compiled code. The clock
 * is frozen and slow timers never fire: which functions run, and with which kinds of numbers, must
 * not depend on the duration.
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
 * Reads compiled code and writes it again. The first run, with the same hash seed, numbers
 * functions in the order of the script instead of the order of their compilation. The second run,
 * with the flags of the product, ensures that a process of the product accepts the code.
 *
 * V8 writes a hash of its process's flags, including the seed, into bytes 12 to 15 (V8 14.6,
 * SerializedCodeData). Each process has another seed anyway: V8 rehashes the code that it reads.
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
 * @param wrapped result of `wrapBundle`.
 * @param node the command that runs the Node of the executable.
 * @param flags V8 flags of the executable: V8 refuses code of a process with other flags.
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
    // A burst of load can change which functions run, so two runs must give the same result.
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
  await using gate = await openGate(Number(new URL(kube.url).port));
  const kubeconfig = join(folder, 'kubeconfig');
  const socket = join(folder, 'explain.sock');
  // The agent of the run before has left it; code that finds it would run, too.
  rmSync(socket, { force: true });
  writeFileSync(kubeconfig, kube.kubeconfig().replaceAll(new URL(kube.url).host, gate.host));
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
    env: { KUBECONFIG: kubeconfig, NMI_EXPLAIN_SOCKET: socket },
  });
  const ended = once(agent, 'exit');
  try {
    // What looks once at a start whether the agent is ready has looked by the second answer.
    await ask(`http://${host}:${adminPort}/readyz`);
    await ask(`http://${host}:${adminPort}/readyz`);
    gate.open();
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

interface Gate extends AsyncDisposable {
  readonly host: string;
  open(): void;
}

/** Connections to a port of this machine that get no byte through until it is open. */
async function openGate(port: number): Promise<Gate> {
  const opened = Promise.withResolvers<void>();
  const server = createServer((socket) => {
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

/** Retries while the agent does not listen yet; the agent sees none of these attempts. */
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
  const port = portOf(server);
  server.close();
  await once(server, 'close');
  return port;
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}
