/**
 * The agent as a separate process, on loopback, with fakes around it and all of its secrets known
 * to the test. It is controlled through `child-hook.ts`.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openFakeEntra } from '../../../../lab/fakes/entra/fake-entra.ts';
import { openFakeImds, type FakeImds } from '../../../../lab/fakes/imds/fake-imds.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../../../../lab/fakes/identity.ts';
import { certify, serveIdentityBindings } from '../../../../lab/test-bed/services.ts';
import { openLoopbackPod, type PodClient } from '../../../../lab/pods/pod-client.ts';
import { populate, type EntraTestBed } from '../../../support/entra-agent.ts';
import { identityA } from '../../../support/loopback-agent.ts';
import { twoFreePorts } from '../../../../lab/fabric/free-ports.ts';
import { sourceEnvironment } from '../../../support/source-environment.ts';
import { Canaries, createCanary } from './canaries.ts';
import { done, sentFileVariable, type Command } from './child-hook.ts';
import { HeapSnapshot } from './heap-snapshot.ts';
import { openPasswordProxy, type PasswordProxy } from './password-proxy.ts';

export interface CanaryAgent extends EntraTestBed, AsyncDisposable {
  readonly imds: FakeImds;
  readonly proxy: PasswordProxy;
  readonly pod: PodClient;
  /** The secrets to search for; the password of the proxy is registered from the start. */
  readonly canaries: Canaries;
  /** Standard output and error since the last call. */
  takePrinted(): string;
  /** A page of the probe port. */
  page(path: string): Promise<{ readonly status: number; readonly text: string }>;
  /** The answer of `nmi explain`; the query is in the format of its socket. */
  explain(query: string): Promise<string>;
  /** Moves both clocks of the agent forward, and those of the fakes. */
  pass(ms: number): Promise<void>;
  /** Forms that were sent to Entra ID, oldest first. */
  sent(): Promise<readonly URLSearchParams[]>;
  /** Canaries in its heap now, each with a path to it. */
  findInHeap(): Promise<ReadonlyMap<string, string>>;
  /** Canaries in its buffers now. */
  findInBuffers(): Promise<readonly string[]>;
  /** Arms a crash for the next request to Entra ID. */
  armCrash(how: 'exception' | 'rejection'): Promise<void>;
  /** Its exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>;
}

export const proxyPassword = 'the password of the proxy';
export const assigned = createLabIdentity('assigned');
const podIp = '127.0.0.11';

const main = join(import.meta.dirname, '../../../../src/main.ts');
const hook = join(import.meta.dirname, 'child-hook.ts');

export async function openCanaryAgent(
  prepare: (testBed: EntraTestBed) => Promise<void>,
): Promise<CanaryAgent> {
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
  const inFolder = (name: string) => join(folder, name);
  const [kubeconfig, ca] = [inFolder('kubeconfig'), inFolder('ca.pem')];
  const [sentFile, heapFile, bufferFile] = [
    inFolder('sent'),
    inFolder('heap'),
    inFolder('buffers'),
  ];
  await writeFile(kubeconfig, kube.kubeconfig());
  await writeFile(ca, authority.certificatePem);
  await writeFile(sentFile, '');
  const explainSocket = inFolder('explain.sock');
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
        NMI_EXPLAIN_SOCKET: explainSocket,
        // Every variable name that an HTTP client could use for a proxy.
        HTTPS_PROXY: proxy.url,
        HTTP_PROXY: proxy.url,
        ALL_PROXY: proxy.url,
        https_proxy: proxy.url,
        http_proxy: proxy.url,
        all_proxy: proxy.url,
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
    canaries,
    page,
    exited,
    takePrinted: () => {
      const taken = printed;
      printed = '';
      return taken;
    },
    pass: (ms) => {
      aheadMs += ms;
      return send(child, { kind: 'pass', ms });
    },
    sent: async () => {
      const lines = (await readFile(sentFile, 'utf8')).split('\n').filter((line) => line !== '');
      return lines.map((line) => new URLSearchParams(line));
    },
    findInHeap: async () => {
      await send(child, { kind: 'snapshot', path: heapFile });
      return new HeapSnapshot(heapFile).find((found) => canaries.in(found));
    },
    findInBuffers: async () => {
      await send(child, { kind: 'buffers', path: bufferFile });
      return canaries.in(await readFile(bufferFile, 'latin1'));
    },
    explain: async (query) => {
      const asked = get({ socketPath: explainSocket, path: `/explain?${query}` });
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      return text(response);
    },
    armCrash: (how) => send(child, { kind: 'crash', how }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function send(child: ChildProcess, command: Command): Promise<void> {
  child.send(command);
  const [answer] = (await once(child, 'message')) as unknown[];
  if (answer !== done) throw new Error('the agent did something else');
}

/** For a busy machine. */
const startMs = 60_000;

async function untilReady(
  page: CanaryAgent['page'],
  exited: Promise<unknown>,
  printed: () => string,
): Promise<void> {
  let hasEnded = false;
  void exited.then(() => (hasEnded = true));
  const deadlineMs = performance.now() + startMs;
  for (;;) {
    const answer = await page('readyz').catch(() => undefined);
    if (answer?.status === 200) return;
    if (hasEnded || performance.now() > deadlineMs) {
      throw new Error(`the agent did not become ready: ${printed()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
