/**
 * A pod of two containers, as a kubelet runs it, with the product's code of both sides of the redirect. The watches and
 * the HTTP server of the agent only take time.
 */
import type { Clock } from '../../../src/base/time/clock.ts';
import type { Logger } from '../../../src/base/logger.ts';
import type { Attestation, Peer } from '../../../src/redirect/redirect.ts';
import { agentIp } from '../kernel.ts';
import { createServer } from '../modules/net.ts';
import { clockOf } from '../clock.ts';
import type { Process } from '../machine.ts';
import type { World } from './world.ts';

export const roles = ['redirect', 'agent'] as const;
export type Role = (typeof roles)[number];
/** Why the agent of a pod is not ready within the usual time. */
export type Defect = 'cannot start' | 'silent API server' | 'slow';

/** The first restart is at once; the kubelet doubles the pause each time, here up to 40 s. */
const backOffsMs = [0, 10_000, 20_000, 40_000] as const;
/** Until the kubelet has noticed the end, and has started the container again. */
const kubeletMs = 1_000;
const graceMs = 30_000;
/** Of src/nmi/agent.ts. */
const lastConnectsMs = 300;

export class Pod {
  readonly world: World;
  readonly name: string;
  readonly version: number;
  readonly #defect: Defect | undefined;
  readonly containers: Readonly<Record<Role, Container>>;
  isEnding = false;
  #readyMs: number | undefined;

  constructor(world: World, name: string, version: number, defect: Defect | undefined) {
    this.world = world;
    this.name = name;
    this.version = version;
    this.#defect = defect;
    const container = (role: Role): Container => new Container(this, role);
    this.containers = { redirect: container('redirect'), agent: container('agent') };
  }

  /** A slow one has none once it was ready. */
  get defect(): Defect | undefined {
    return this.#readyMs === undefined ? this.#defect : undefined;
  }

  /** It runs in both containers. */
  get isWhole(): boolean {
    return roles.every((role) => this.containers[role].isRunning);
  }

  get isReady(): boolean {
    return !this.isEnding && this.problem === undefined;
  }

  /** Why it is not ready. */
  get problem(): string | undefined {
    for (const role of roles) {
      const problem = this.containers[role].problem();
      if (problem !== undefined) return `${role}: ${problem}`;
    }
    return undefined;
  }

  get hasSlot(): boolean {
    const { shared } = this.world.machine;
    return [2_579, 2_580].some((port) =>
      shared.read(`/host/${port}.json`)?.includes(`"${this.name}"`),
    );
  }

  /** Infinite before it was ready. */
  get unreadyMs(): number {
    return this.world.nowMs - (this.#readyMs ?? -Infinity);
  }

  noteReadiness(): void {
    if (this.isReady) this.#readyMs = this.world.nowMs;
  }

  /** SIGTERM, and SIGKILL after the grace period. */
  async stop(): Promise<void> {
    this.isEnding = true;
    this.world.disturb(`SIGTERM ${this.name}`);
    const { scheduler } = this.world.machine;
    for (const role of scheduler.random() < 0.5 ? roles : roles.toReversed()) {
      this.containers[role].stop();
      await scheduler.sleep(scheduler.random() * 20);
    }
    const cancel = scheduler.schedule(graceMs, undefined, 'grace', () => this.kill());
    for (const role of roles) await this.containers[role].process?.exited;
    cancel();
  }

  kill(): void {
    this.isEnding = true;
    this.world.disturb(`SIGKILL ${this.name}`);
    for (const role of roles) this.containers[role].process?.end();
  }
}

export class Container {
  readonly #pod: Pod;
  readonly #role: Role;
  process: Process | undefined;
  /** Its code runs. */
  isRunning = false;
  problem: () => string | undefined = notRunning;
  stop: () => void = () => undefined;
  /** Of an agent that listens: at which port, and whether it could answer with a token. */
  listening: () => Listening | undefined = notListening;
  /** Of an agent: who opened a connection that it has accepted. */
  attest: (peer: Peer) => Attestation | undefined = attestsNobody;
  #restarts = 0;
  #crashes = 0;
  #isCrash = false;

  constructor(pod: Pod, role: Role) {
    this.#pod = pod;
    this.#role = role;
  }

  get name(): string {
    return `${this.#pod.name}/${this.#role}`;
  }

  startAfter(delayMs: number): void {
    this.#pod.world.machine.scheduler.schedule(delayMs, undefined, 'kubelet', () => {
      if (!this.#pod.isEnding) this.#start();
    });
  }

  /** @param isCrash only its process: the supervisor, src/redirect/native/supervise.c, notices that first. */
  kill(isCrash: boolean): void {
    if (this.process === undefined) return;
    this.#isCrash = isCrash;
    this.#pod.world.disturb(`SIGKILL ${isCrash ? 'the process of ' : ''}${this.name}`);
    this.process.end();
  }

  #start(): void {
    const { world } = this.#pod;
    const stopping = new AbortController();
    const process = world.machine.start(
      this.name,
      async () => {
        await this.pass(50, 900);
        this.isRunning = true;
        this.#tell('runs');
        const run = this.#role === 'redirect' ? runRedirect : runAgent;
        return run(this.#pod, this, process, stopping.signal);
      },
      (error) => world.tell(`${this.name} failed: ${String(error)}`),
    );
    this.process = process;
    this.#isCrash = false;
    // Until its code waits for the signal, that ends it.
    this.stop = () => process.end();
    this.handles = () => {
      this.stop = () => {
        this.isRunning = false;
        process.soon('SIGTERM', () => stopping.abort(new Error('SIGTERM')));
      };
    };
    void process.exited.then(() => {
      this.process = undefined;
      this.isRunning = false;
      this.problem = notRunning;
      this.listening = notListening;
      this.attest = attestsNobody;
      this.stop = () => undefined;
      this.#tell('has ended');
      if (!this.#pod.isEnding) this.#restart();
    });
  }

  handles: () => void = () => undefined;

  /** Waits for a time between two, in its process. */
  pass(lowMs: number, highMs: number): Promise<void> {
    const ms = lowMs + this.#pod.world.machine.scheduler.random() * (highMs - lowMs);
    return new Promise((resolve) => {
      this.process?.after(ms, 'pass', resolve);
    });
  }

  #tell(text: string): void {
    const { world, defect, isEnding } = this.#pod;
    if (defect === undefined || isEnding) world.disturb(`${this.name} ${text}`);
    else world.tell(`${this.name} ${text}`);
  }

  #restart(): void {
    if (this.#isCrash && (this.#crashes += 1) < 5) {
      this.startAfter(100 * 2 ** (this.#crashes - 1));
      return;
    }
    const backOffMs = backOffsMs[Math.min(this.#restarts, backOffsMs.length - 1)] ?? 0;
    this.#restarts += 1;
    this.startAfter(backOffMs + this.#pod.world.machine.scheduler.random() * kubeletMs);
  }
}

const notRunning = (): string => 'does not run';

interface Listening {
  readonly port: number;
  readonly hasSynced: boolean;
}

const attestsNobody = (): Attestation | undefined => undefined;
const notListening = (): Listening | undefined => undefined;

function setUp({ world, name }: Pod, process: Process, redirect: 'ebpf' | 'pinned') {
  const parsed = world.code.parseConfig(
    { node: 'node', kubeconfig: '/none', redirect, 'http-probe-port': '0', 'prometheus-port': '0' },
    {
      NMI_SHARED_FOLDER: `/${name}`,
      NMI_SLOT_FOLDER: redirect === 'ebpf' ? '/host' : undefined,
      NMI_POD_UID: name,
    },
  );
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems));
  const tell = (fields: object, text: string): void => {
    world.tell(`  ${process.name}: ${text} ${JSON.stringify(fields)}`);
  };
  const log: Logger = {
    debug: () => undefined,
    info: tell,
    warn: tell,
    error: tell,
    child: () => log,
  };
  const clock: Clock = clockOf(process);
  return { config: parsed.config, clock, log };
}

async function runRedirect(pod: Pod, container: Container, process: Process, stop: AbortSignal) {
  const daemon = await pod.world.code.startRedirectDaemon(setUp(pod, process, 'ebpf'));
  container.problem = () => {
    const state = pod.world.machine.shared.read(`/${pod.name}/redirect.json`) ?? '{}';
    const { problems } = JSON.parse(state) as { readonly problems?: readonly string[] };
    return problems === undefined ? 'no state' : problems[0];
  };
  container.handles();
  await aborted(stop);
  await daemon[Symbol.asyncDispose]();
  return 0;
}

/** As src/nmi/agent.ts. */
async function runAgent(pod: Pod, container: Container, process: Process, stop: AbortSignal) {
  const { code } = pod.world;
  if (pod.defect === 'cannot start') return 1;
  container.handles();
  const setup = setUp(pod, process, 'pinned');
  let followPort = (): void => undefined;
  const kernel = code.openKernel({ ...setup, onStatus: () => followPort() });
  await kernel.prepare(stop);
  if (stop.aborted) return 0;
  let hasSynced = false;
  const [leastMs, mostMs] = pod.defect === 'slow' ? [20_000, 90_000] : [50, 1_500];
  if (pod.defect !== 'silent API server') {
    void container.pass(leastMs, mostMs).then(() => (hasSynced = true));
  }
  const server = createServer();
  const listener = {
    host: agentIp,
    port: 0,
    unlisten: () => void server.close(),
    listen: (port = 0): Promise<void> =>
      new Promise((resolve, reject) => {
        listener.port = port;
        server.once('error', reject);
        server.listen({ host: agentIp, port }, resolve);
      }),
  };
  container.listening = () => (server.listening ? { port: listener.port, hasSynced } : undefined);
  container.attest = (peer) => process.enter(() => kernel.attest(peer));
  const isReady = (): boolean => hasSynced && kernel.problem() === undefined;
  const turn = await code.listenInTurn(listener, { ...setup, kernel, isReady });
  followPort = () => turn.followPort();
  await kernel.start();
  container.problem = () =>
    process.enter(
      () => turn.problem() ?? kernel.problem() ?? (hasSynced ? undefined : 'not synced'),
    );
  await aborted(stop);
  if (await kernel.leave()) await container.pass(lastConnectsMs, lastConnectsMs);
  turn[Symbol.dispose]();
  // Without a SIGTERM to the other container it has waited for that for as long as a disturbance excuses silence.
  if (!pod.isEnding) pod.world.disturb(`${process.name} closes`);
  server.close();
  await container.pass(0, 500);
  await kernel[Symbol.asyncDispose]();
  return 0;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
