/**
 * The agent as a separate process, on loopback, with fakes around it and all of its secrets known
 * to the test. It is controlled through `child-hook.ts`.
 */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openFakeEntra } from '../../../../lab/fakes/entra/fake-entra.ts';
import { openFakeImds } from '../../../../lab/fakes/imds/fake-imds.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../../../../lab/fakes/identity.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { certify, serveIdentityBindings } from '../../../../lab/test-bed/services.ts';
import { openLoopbackPod } from '../../../../lab/pods/pod-client.ts';
import { populate, type EntraTestBed } from '../../../support/entra-agent.ts';
import { identityA } from '../../../support/loopback-agent.ts';
import { twoFreePorts } from '../../../../lab/fabric/free-ports.ts';
import { sourceEnvironment } from '../../../support/source-environment.ts';
import { Canaries, createCanary } from './canaries.ts';
import { done, sentFileVariable, type Command, type Crash } from './child-hook.ts';
import { HeapSnapshot } from './heap-snapshot.ts';
import { openPasswordProxy } from './password-proxy.ts';

export type CanaryAgent = Awaited<ReturnType<typeof openCanaryAgent>>;

export const proxyPassword = 'the password of the proxy';
export const assigned = createLabIdentity('assigned');
const podIp = '127.0.0.11';
const proxyVariables = ['HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY'].flatMap((name) => [
  name,
  name.toLowerCase(),
]);

const main = join(import.meta.dirname, '../../../../src/main.ts');
const hook = join(import.meta.dirname, 'child-hook.ts');

export async function openCanaryAgent(prepare: (testBed: EntraTestBed) => Promise<void>) {
  await using opening = new AsyncDisposableStack();
  let aheadMs = 0;
  const clock = { ...systemClock, wallMs: () => systemClock.wallMs() + aheadMs };
  const certified = await certify('127.0.0.1');
  const { authority, tls } = certified;
  const kube = opening.use(await openFakeKube({ clock, tls }));
  const imds = opening.use(
    await openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: ['127.0.0.1'],
      clock,
      systemAssigned: createNodeIdentity(),
      userAssigned: [assigned, identityA],
    }),
  );
  const entra = opening.use(await openFakeEntra({ tls, clock }));
  const identityBindings = serveIdentityBindings(kube, entra, certified);
  const password = createCanary();
  const canaries = new Canaries();
  canaries.addText(proxyPassword, password);
  const proxy = opening.use(await openPasswordProxy(password));
  const testBed = { kube, entra, identityBindings, authority };
  populate(testBed);
  await prepare(testBed);

  const folder = await mkdtemp(join(tmpdir(), 'nmi-canary-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const names = ['kubeconfig', 'ca.pem', 'sent', 'heap', 'buffers', 'explain.sock'];
  const [kubeconfig = '', ca = '', sentFile = '', heapFile = '', bufferFile = '', explain = ''] =
    names.map((name) => join(folder, name));
  await writeFile(kubeconfig, kube.kubeconfig());
  await writeFile(ca, authority.certificatePem);
  await writeFile(sentFile, '');
  const [listenPort, probePort] = await twoFreePorts();
  const child = fork(
    main,
    [
      ...['run', '--node=node-1', '--redirect=none', '--log-level=trace', '--audit-log=stdout'],
      ...['--nmi-listen-address=127.0.0.1', `--nmi-port=${listenPort}`],
      ...['--metadata-ip=127.0.0.1', `--metadata-port=${imds.port}`],
      ...[`--http-probe-port=${probePort}`, `--prometheus-port=${probePort}`],
      ...[`--entra-authority=${entra.authority}`, `--entra-ca-file=${ca}`],
    ],
    {
      silent: true,
      // In snapshots, V8 truncates strings after 1024 characters, and a form is longer.
      execArgv: ['--heap-snapshot-string-limit=4194304', `--import=${hook}`],
      env: {
        ...sourceEnvironment,
        KUBECONFIG: kubeconfig,
        NMI_EXPLAIN_SOCKET: explain,
        // Every variable name that an HTTP client could use for a proxy.
        ...Object.fromEntries(proxyVariables.map((name) => [name, proxy.url])),
        [sentFileVariable]: sentFile,
      },
    },
  );
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (part: string) => (printed += part));
  }
  const exited = once(child, 'close').then(
    ([code, signal]: unknown[]) => (signal ?? code) as number | NodeJS.Signals,
  );
  opening.defer(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const page = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${probePort}/${path}`);
    return { status: response.status, text: await response.text() };
  };
  await untilReady(page, exited, () => printed);
  const pod = opening.use(
    openLoopbackPod({ name: 'p', sourceIp: podIp, host: '127.0.0.1', port: listenPort }),
  );
  const owned = opening.move();
  return {
    ...testBed,
    imds,
    proxy,
    pod,
    /** The secrets to search for; the password of the proxy is registered from the start. */
    canaries,
    /** A page of the probe port. */
    page,
    /** Its exit code, or the signal that ended it. */
    exited,
    /** Standard output and error since the last call. */
    takePrinted: () => {
      const taken = printed;
      printed = '';
      return taken;
    },
    /** Moves both clocks of the agent forward, and those of the fakes. */
    pass: (ms: number) => {
      aheadMs += ms;
      return send(child, { kind: 'pass', ms });
    },
    /** Forms that were sent to Entra ID, oldest first. */
    sent: async () => {
      const lines = (await readFile(sentFile, 'utf8')).split('\n').filter((line) => line !== '');
      return lines.map((line) => new URLSearchParams(line));
    },
    /** Canaries in its heap now, each with a path to it. */
    findInHeap: async () => {
      await send(child, { kind: 'snapshot', path: heapFile });
      return new HeapSnapshot(heapFile).find((found) => canaries.in(found));
    },
    /** Canaries in its buffers now. */
    findInBuffers: async () => {
      await send(child, { kind: 'buffers', path: bufferFile });
      return canaries.in(await readFile(bufferFile, 'latin1'));
    },
    /** The answer of `nmi explain`; the query is in the format of its socket. */
    explain: async (query: string) => {
      const asked = get({ socketPath: explain, path: `/explain?${query}` });
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      return text(response);
    },
    /** Arms a crash for the next request to Entra ID. */
    armCrash: (how: Crash) => send(child, { kind: 'crash', how }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function send(child: ChildProcess, command: Command): Promise<void> {
  child.send(command);
  const [answer] = (await once(child, 'message')) as unknown[];
  if (answer !== done) throw new Error('the agent did something else');
}

async function untilReady(
  page: (path: string) => Promise<{ readonly status: number }>,
  exited: Promise<unknown>,
  printed: () => string,
): Promise<void> {
  let hasEnded = false;
  void exited.then(() => (hasEnded = true));
  await eventually(
    async () => {
      if (hasEnded) return;
      assert.equal((await page('readyz')).status, 200, `the agent is not ready: ${printed()}`);
    },
    // For a busy machine.
    60_000,
  );
  if (hasEnded) throw new Error(`the agent ended: ${printed()}`);
}
