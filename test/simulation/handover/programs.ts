/**
 * The two processes of a pod with the real code of the hand-over and of the check of the redirect. Start, readiness
 * and stop are in the order of src/nmi/redirect-daemon.ts and src/nmi/agent.ts; the watches and the server only take
 * time.
 */
import type { Clock } from '../../../src/base/time/clock.ts';
import { currentProcess, type Process } from '../machine.ts';
import { closeSync } from '../modules/fs.ts';
import { openRedirect } from './redirect.ts';
import { address, handoverPath, type Program, type World } from './world.ts';

const drainMs = 10_000;
const pollMs = 50;
/** Of the check of the redirect, src/nmi/config/options.ts. */
const checkMs = 10_000;

/** Why the agent of a pod is not ready within the usual time. */
export type Defect = 'cannot start' | 'silent API server' | 'slow';
const slowMs = { least: 20_000, most: 90_000 } as const;

/** What a program needs to know of its pod. */
export interface Place {
  readonly name: string;
  readonly agentsPath: string;
  /** Of its programs in the kernel. */
  readonly version: number;
  readonly defect: Defect | undefined;
  /** The agent of the pod is connected for look-ups. */
  isAgentRunning(): boolean;
}

type Main = (program: Program, stopped: Promise<void>) => Promise<number>;

function startProgram(world: World, name: string, main: Main): Program {
  const stopping = Promise.withResolvers<void>();
  const process = world.machine.start(
    name,
    () => main(program, stopping.promise),
    (error) => world.tell(`${name} failed: ${String(error)}`),
  );
  const program: Program = {
    process,
    isStarted: false,
    isStopping: false,
    isReady: false,
    isAccepting: false,
    isWriting: false,
    problem: () => undefined,
    stop: () => {
      program.isStopping = true;
      // Before its code runs, the signal ends it.
      if (program.isStarted) process.soon('SIGTERM', stopping.resolve);
      else process.end();
    },
  };
  world.programs.add(program);
  void process.exited.then((code) => {
    world.programs.delete(program);
    world.disturb(`${name} has ended${code === undefined ? '' : `: ${code}`}`);
  });
  return program;
}

export function startHolder(world: World, name: string, place: Place): Program {
  return startProgram(world, name, async (program, stopped) => {
    await pass(between(world, 50, 600));
    begin(world, program);
    let isPaused = false;
    let isDone = false;
    const update = (): void => {
      program.isWriting = reconciler.settledAtMs !== undefined && !isPaused && !isDone;
    };
    const redirect = openRedirect({
      kernel: world.kernel,
      podName: place.name,
      version: place.version,
      hasPredecessor: () => holder.hasPredecessor(),
      pass: (longestMs) => pass(between(world, 0, longestMs)),
    });
    const reconciler = new world.code.Reconciler({
      redirect,
      intervalMs: checkMs,
      clock: clockOf(program.process),
      log: logOf(world, name),
      onCheck: update,
    });
    const holder = await world.code.openListenerHolder({
      address,
      agentsPath: place.agentsPath,
      handoverPath,
      clock: clockOf(program.process),
      log: logOf(world, name),
      onSuccessor: async () => {
        world.tell(`${name} pauses`);
        await reconciler.pause();
        isPaused = true;
        update();
      },
      onSuccessorGone: () => {
        world.tell(`${name} resumes`);
        isPaused = false;
        reconciler.resume();
        update();
      },
    });
    await pass(between(world, 0, 200));
    world.machine.addresses.add(address.ip);
    await redirect.prepare();
    await holder.listen();
    await reconciler.start();
    update();
    program.problem = () => reconciler.problem();
    program.isReady = true;
    world.tell(`${name} is ready`);
    await stopped;
    program.isReady = false;
    holder.release();
    await untilUnused(world, place);
    await holder[Symbol.asyncDispose]();
    isDone = true;
    update();
    await reconciler[Symbol.asyncDispose]();
    return 0;
  });
}

async function untilUnused(world: World, place: Place): Promise<void> {
  const deadlineMs = world.nowMs + drainMs + 2_000;
  while (place.isAgentRunning() && world.nowMs < deadlineMs) await pass(pollMs);
}

export function startAgent(world: World, name: string, place: Place): Program {
  return startProgram(world, name, async (program, stopped) => {
    await pass(between(world, 100, 1_200));
    begin(world, program);
    const stop = new AbortController();
    void stopped.then(() => stop.abort());
    if (place.defect === 'cannot start') return 1;
    const held = await world.code.takeListener({ path: place.agentsPath, address }, stop.signal);
    if (held === undefined) return 0;
    world.tell(`${name} has the socket${held.isShared ? ', shared' : ''}`);
    let isDraining = false;
    const accept = async (): Promise<void> => {
      // Until the watches have synced, if another agent accepts meanwhile.
      if (place.defect === 'silent API server') return;
      if (place.defect === 'slow') await pass(between(world, slowMs.least, slowMs.most));
      else if (held.isShared) await pass(between(world, 50, 1_500));
      program.isAccepting = !isDraining;
      await pass(between(world, 0, 500));
      if (isDraining) return;
      program.isReady = true;
      world.tell(`${name} is ready`);
    };
    void accept();
    await stopped;
    isDraining = true;
    program.isReady = false;
    program.isAccepting = false;
    held[Symbol.dispose]();
    closeSync(held.descriptor);
    await pass(between(world, 0, world.machine.scheduler.random() < 0.1 ? drainMs : 500));
    return 0;
  });
}

function begin(world: World, program: Program): void {
  program.isStarted = true;
  world.disturb(`${program.process.name} runs`);
}

function pass(ms: number): Promise<void> {
  const owner = currentProcess();
  return new Promise((resolve) => {
    owner.after(ms, 'pass', resolve);
  });
}

function between(world: World, lowMs: number, highMs: number): number {
  return lowMs + world.machine.scheduler.random() * (highMs - lowMs);
}

function clockOf(process: Process): Clock {
  const { scheduler } = process.machine;
  return {
    wallMs: () => scheduler.nowMs,
    monotonicMs: () => scheduler.nowMs,
    schedule: (delayMs, work) => process.after(delayMs, 'clock', work),
  };
}

function logOf(world: World, name: string) {
  const tell = (_fields: object, text: string): void => world.tell(`${name}: ${text}`);
  return { debug: () => undefined, info: tell, warn: tell, error: tell };
}
