/** A pod of the agent: the product's two processes in their containers, as a kubelet runs them. */
import type { Clock } from '../../src/base/time/clock.ts';
import type { Logger } from '../../src/base/logger.ts';
import type { LocalEnd } from './local-sockets.ts';
import type { Process } from './machine.ts';
import { clockOf } from './clock.ts';
import type { Node } from './node.ts';

export const roles = ['redirect', 'agent'] as const;
export type Role = (typeof roles)[number];

const backOffsMs = [0, 5_000, 10_000, 20_000] as const;
const graceMs = 30_000;
const probeMs = 1_000;
const kubeletMs = 600;

/** Of each node's agents. */
const slotFolder = '/host';

/** The staleness limit of rights in the simulation; the default is a day. */
export const rightsLimitMs = 20_000;

export class AgentPod {
  readonly node: Node;
  readonly name: string;
  readonly containers: Readonly<Record<Role, Container>>;
  isEnding = false;
  isReady = false;
  #stopProbes: (() => void) | undefined;

  constructor(node: Node, name: string) {
    this.node = node;
    this.name = name;
    this.containers = {
      redirect: new Container(this, 'redirect'),
      agent: new Container(this, 'agent'),
    };
  }

  start(): void {
    for (const role of roles) this.containers[role].startAfter(0);
    this.#probe();
  }

  async untilReady(maxMs: number): Promise<void> {
    const { scheduler } = this.node.world;
    const endMs = scheduler.nowMs + maxMs;
    while (!this.isReady && !this.isEnding && scheduler.nowMs < endMs) await scheduler.sleep(100);
  }

  /** SIGTERM, and SIGKILL after the grace period. */
  async stop(): Promise<void> {
    const { world } = this.node;
    this.isEnding = true;
    this.isReady = false;
    this.#stopProbes?.();
    world.tell(`${this.name} is stopped`);
    this.node.disturbed();
    for (const role of roles) this.containers[role].terminate();
    const cancel = world.after(graceMs, 'grace', () => this.kill());
    await Promise.all(roles.map((role) => this.containers[role].ended()));
    cancel();
    this.node.disturbed();
  }

  kill(): void {
    this.isEnding = true;
    this.isReady = false;
    this.#stopProbes?.();
    for (const role of roles) this.containers[role].process?.end();
  }

  /** As `nmi ready` does, over the socket in the pod. */
  #probe(): void {
    const { world, machine } = this.node;
    this.#stopProbes = world.after(probeMs, 'probe', () => {
      let end: LocalEnd | undefined;
      try {
        const { listener } = machine.files.find(`/${this.name}/agent/explain.sock`);
        end = listener?.connect().refer();
      } catch {
        this.isReady = false;
      }
      if (end !== undefined) this.#ask(end);
      if (!this.isEnding) this.#probe();
    });
  }

  #ask(end: LocalEnd): void {
    let isOver = false;
    const finish = (isReady: boolean): void => {
      if (isOver) return;
      isOver = true;
      end.onChange = undefined;
      if (!this.isEnding) this.#noteReady(isReady);
      end.unrefer();
    };
    end.onChange = () => {
      const read = end.read();
      if (read === 'open') return;
      finish(typeof read === 'object' && read.toString().startsWith('HTTP/1.1 200'));
    };
    end.write(Buffer.from('GET /ready HTTP/1.1\r\nHost: nmi\r\nConnection: close\r\n\r\n'));
    this.node.world.after(probeMs * 0.9, 'probe timeout', () => finish(false));
  }

  #noteReady(isReady: boolean): void {
    if (isReady !== this.isReady) {
      this.node.world.tell(`${this.name} is ${isReady ? 'ready' : 'not ready'}`);
    }
    this.isReady = isReady;
  }
}

export class Container {
  readonly #pod: AgentPod;
  readonly #role: Role;
  process: Process | undefined;
  #stop: (() => void) | undefined;
  #restarts = 0;
  #startedMs = 0;

  constructor(pod: AgentPod, role: Role) {
    this.#pod = pod;
    this.#role = role;
  }

  get name(): string {
    return `${this.#pod.name}/${this.#role}`;
  }

  startAfter(delayMs: number): void {
    const { world } = this.#pod.node;
    world.after(delayMs + world.scheduler.random() * kubeletMs, 'kubelet', () => {
      if (!this.#pod.isEnding) this.#start();
    });
  }

  terminate(): void {
    this.#stop?.();
  }

  ended(): Promise<unknown> {
    return this.process?.exited ?? Promise.resolve();
  }

  /** For so long, no code of it runs. */
  freeze(forMs: number): void {
    if (this.process === undefined) return;
    this.process.stalledUntilMs = Math.max(
      this.process.stalledUntilMs,
      this.#pod.node.world.nowMs + forMs,
    );
  }

  #start(): void {
    const { node } = this.#pod;
    const { world } = node;
    const stopping = new AbortController();
    let isRunning = false;
    const program = this.#role === 'redirect' ? runRedirect : runAgent;
    this.#startedMs = world.nowMs;
    const process = world.start(this.name, node.machine, async () => {
      isRunning = true;
      node.agentBeganMs = world.nowMs;
      node.disturbed();
      return program(this.#pod, process, stopping.signal);
    });
    this.process = process;
    this.#stop = () => {
      // Before its code runs, the signal ends it.
      if (isRunning) process.soon('SIGTERM', () => stopping.abort(new Error('SIGTERM')));
      else process.end();
    };
    void process.exited.then((code) => this.#ended(code));
  }

  #ended(code: number | undefined): void {
    const { node } = this.#pod;
    node.disturbed();
    this.process = undefined;
    this.#stop = undefined;
    node.world.tell(`${this.name} has ended${code === undefined ? '' : ` with code ${code}`}`);
    if (this.#pod.isEnding) return;
    node.broken();
    if (node.world.nowMs - this.#startedMs > 20_000) this.#restarts = 0;
    const backOffMs = backOffsMs[Math.min(this.#restarts, backOffsMs.length - 1)] ?? 0;
    this.#restarts += 1;
    node.world.faultUntilMs = Math.max(node.world.faultUntilMs, node.world.nowMs + backOffMs);
    this.startAfter(backOffMs);
  }
}

interface Setup {
  readonly config: Parameters<Node['world']['loaded']['code']['startAgent']>[0]['config'];
  readonly clock: Clock;
  readonly log: Logger;
}

function setUp(pod: AgentPod, process: Process, redirect: 'ebpf' | 'pinned'): Setup {
  const { node, name } = pod;
  const parsed = node.world.loaded.code.parseConfig(
    {
      node: node.name,
      kubeconfig: node.world.loaded.kubeconfig,
      redirect,
      'identity-owners': 'enforce',
      'rights-staleness-limit': `${rightsLimitMs / 1_000}s`,
      'http-probe-port': '0',
      'prometheus-port': '0',
      events: 'false',
    },
    {
      NMI_SHARED_FOLDER: `/${name}`,
      NMI_SLOT_FOLDER: redirect === 'ebpf' ? slotFolder : undefined,
      NMI_POD_UID: name,
      NMI_EXPLAIN_SOCKET: redirect === 'ebpf' ? 'off' : `/${name}/agent/explain.sock`,
    },
  );
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems));
  const clock = clockOf(process, () => node.aheadMs);
  const log = node.world.logOf(process.name);
  return { config: parsed.config, clock, log };
}

async function runRedirect(pod: AgentPod, process: Process, stop: AbortSignal): Promise<number> {
  const setup = setUp(pod, process, 'ebpf');
  const starting = pod.node.world.loaded.code.startRedirectDaemon(setup);
  const daemon = await Promise.race([starting, aborted(stop)]);
  // Until it has started, the signal ends it.
  if (daemon === undefined) return 0;
  await aborted(stop);
  await daemon[Symbol.asyncDispose]();
  return 0;
}

async function runAgent(pod: AgentPod, process: Process, stop: AbortSignal): Promise<number> {
  const setup = setUp(pod, process, 'pinned');
  try {
    const agent = await pod.node.world.loaded.code.startAgent({
      ...setup,
      stdout: () => true,
      environment: {},
      stop,
    });
    await aborted(stop);
    await agent.stop();
  } catch (error) {
    if (error !== stop.reason) throw error;
  }
  return 0;
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
