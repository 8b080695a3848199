/**
 * V8's compiled code of what a start of the agent runs, so that a start compiles nothing.
 *
 * The cache that Node makes for a single executable holds what is compiled when the script is
 * loaded; functions are compiled when they are first called, and those are nearly all. So the
 * bundle serves as an agent here, beside the lab's fakes, and what it had compiled by then is kept.
 * Measured at a start of the agent: 65 ms of compiling with Node's own cache, 25 ms with this one
 * (Node 26.10, 2 cores, November 2026).
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openFakeImds } from '../lab/fakes/imds/fake-imds.ts';
import { openFakeKube } from '../lab/fakes/kube/fake-kube.ts';
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
    script.runInThisContext()(exports, require, module, __filename, __dirname);`;
}

/** Runs the script as the agent's process would, until it is told to write what was compiled. */
const pupil = `
  const { readFileSync, writeFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  const [scriptFile, cacheFile] = process.argv.splice(2, 2);
  const script = new Script(readFileSync(scriptFile, 'latin1'), { filename: '${scriptName}' });
  process.once('message', () => {
    writeFileSync(cacheFile, script.createCachedData());
    process.exit(0);
  });
  script.runInThisContext()(exports, require, module, __filename, __dirname);`;

const judge = `
  const { readFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  const [source, cachedData] = [readFileSync(process.argv[2], 'latin1'), readFileSync(process.argv[3])];
  const script = new Script(source, { filename: '${scriptName}', cachedData });
  process.exitCode = script.cachedDataRejected === false ? 0 : 1;`;

/**
 * @param wrapped what `wrapBundle` gave.
 * @throws Error if the bundle does not serve, or if a new process would refuse the code.
 */
export async function makeCodeCache(wrapped: string): Promise<Buffer> {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-code-cache-'));
  const file = (name: string) => join(folder, name);
  try {
    writeFileSync(file('bundle.cjs'), wrapped);
    writeFileSync(file('pupil.cjs'), pupil);
    writeFileSync(file('judge.cjs'), judge);
    await learn(folder);
    const files = [file('judge.cjs'), file('bundle.cjs'), file('cache')];
    if (spawnSync(process.execPath, files).status !== 0) {
      throw new Error('compiled code that was just made is refused');
    }
    return readFileSync(file('cache'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function learn(folder: string): Promise<void> {
  await using kube = await openFakeKube();
  const identity = createLabIdentity('one');
  const { clientId, resourceId } = identity;
  kube.apply(createAzureIdentity({ name: 'one', clientId, resourceId }));
  kube.apply(createAzureIdentityBinding({ name: 'one', azureIdentity: 'one', selector: 'one' }));
  kube.apply(createPodManifest({ name: 'one', nodeName, ips: [host], binding: 'one' }));
  await using imds = await openFakeImds({
    ...{ host, port: 0, nodeIps: [host], systemAssigned: createNodeIdentity() },
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
  const agent = spawn(process.execPath, [...words, ...flags], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    env: { KUBECONFIG: kubeconfig, NMI_EXPLAIN_SOCKET: join(folder, 'explain.sock') },
  });
  const ended = once(agent, 'exit');
  try {
    await untilServing(agent, port);
    for (const page of ['readyz', 'healthz', 'metrics']) {
      await (await fetch(`http://${host}:${adminPort}/${page}`)).text();
    }
    agent.send('write');
    await ended;
    if (agent.exitCode !== 0) throw new Error('the agent whose code is to be kept failed');
  } finally {
    agent.kill('SIGKILL');
  }
}

async function untilServing(agent: ChildProcess, port: number): Promise<void> {
  const target =
    '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://one.example';
  const url = `http://${host}:${port}${target}`;
  const untilMs = performance.now() + patienceMs;
  let answers = 0;
  // The first is a miss, the others are hits.
  while (answers < 5) {
    const reply = await fetch(url, { headers: { Metadata: 'true' } }).catch(() => undefined);
    await reply?.text();
    if (reply?.status === 200) answers++;
    else await new Promise((resolve) => setTimeout(resolve, 20));
    if (agent.exitCode !== null || performance.now() > untilMs) {
      throw new Error('the agent whose code is to be kept does not serve');
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
