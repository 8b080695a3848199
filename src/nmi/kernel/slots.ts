/**
 * Two agents on one node, during an update. Each has a slot: a port, a file that is locked as long as the process
 * that maintains the redirect for it runs, and a file with what the other one has to know. The port that the kernel
 * redirects to says which of both gets new connections; no second place can disagree.
 *
 * An agent listens on the port of its slot once it can serve, or nobody else does. So a port that is listened on is
 * one that connections may go to, and `portToMaintain` decides by nothing else.
 */
import { closeSync, existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { sleep, type Clock } from '../../base/time/clock.ts';
import { textOf } from '../../base/json-value.ts';
import type { Log } from '../../base/log.ts';
import { nativeModule } from '../../redirect/native/addon.ts';
import { makeOwnFolder, whyNot } from './local-socket.ts';
import { cgroupIds, readShared, watchShared, writeShared } from './shared-file.ts';

/** One of both agents. */
export interface Side {
  readonly port: number;
  /** It takes connections. */
  readonly listens: boolean;
  /** A younger agent has a higher one. One that leaves is older than any other: its order is negative. */
  readonly order: number;
}

export interface Neighbor extends Side {
  /** The process that maintains the redirect for it runs. */
  readonly isHeld: boolean;
}

/** Takes the redirect of an agent that leaves. */
export function takesOver({ listens, isHeld, order }: Neighbor): boolean {
  return listens && isHeld && order > 0;
}

/**
 * The port that the redirect has to point at, for this process to maintain; undefined while the other one does.
 *
 * | own agent listens | other listens | redirect points at | result |
 * |---|---|---|---|
 * | no | no | other, and its process runs | the other one maintains it |
 * | any | no | anything else | own port |
 * | yes | yes | any, and the own agent is younger | own port |
 * | yes | yes | own port, or none | own port, until the younger one takes it |
 * | no | yes, and its process runs | none | the other's port, given to it |
 * | no | yes, and its process runs | own port | the other one takes it |
 * | any | yes, and its process runs | other | the other one maintains it |
 * | yes | yes, and its process does not run | any | own port |
 * | no | yes, and its process does not run | other | the other's port, maintained for it |
 * | no | yes, and its process does not run | own port, or none | own port |
 *
 * Nobody moves a redirect to the other's port: the programs of this process may write records that the other agent
 * does not read. Who takes a port installs its own programs with it. A redirect that points nowhere is an open node, so
 * the process that finds this installs it, for either agent. It is never given to a port without a process: with
 * iptables, a pod on the host network may listen there.
 */
export function portToMaintain(
  target: number | undefined,
  own: Side,
  other: Neighbor | undefined,
): number | undefined {
  if (other === undefined) return own.port;
  const isOthers = target === other.port;
  if (!other.listens) return isOthers && other.isHeld && !own.listens ? undefined : own.port;
  if (!other.isHeld) return isOthers && !own.listens ? other.port : own.port;
  if (own.listens && (isYounger(own, other) || !isOthers)) return own.port;
  return target === undefined ? other.port : undefined;
}

function isYounger(own: Side, other: Side): boolean {
  return own.order === other.order ? own.port > other.port : own.order > other.order;
}

export interface SlotOptions {
  /** Folder that the agents of this node share; empty for none: then this is the only agent. */
  readonly folder: string;
  readonly ip: string;
  /** The first port; the second one is the next. */
  readonly firstPort: number;
  /** Identifies the pod: a container that starts again takes the slot that it had. */
  readonly pod: string;
  /** Cgroup of the agent, which programs of the other one let through. */
  readonly cgroup: bigint | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Called when both slots are taken: one that this pod had is another's now. */
  readonly onWait?: (() => void) | undefined;
}

const retryMs = 200;
const turnPollMs = 20;
/** Tools may wait for a lock for as long. */
const longestTurnMs = 15_000;
/** A container that starts again is back by then, and an agent that takes its place may not be able to serve. */
const silenceMs = 10_000;

/**
 * Takes a free slot, or waits until one is free. Without a folder that can be used there is one slot.
 * @throws the reason of the signal when it aborts.
 */
export async function takeSlot(options: SlotOptions, signal?: AbortSignal): Promise<Slot> {
  const { folder, firstPort, clock, log } = options;
  if (folder === '') return new Slot(options, firstPort, 1, undefined);
  const distrust = await whyNot(() => makeOwnFolder(folder));
  for (let isFirst = true; ; isFirst = false) {
    let problem = distrust;
    let slot: Slot | undefined;
    if (problem === undefined) problem = await whyNot(async () => void (slot = tryTake(options)));
    if (problem !== undefined) {
      log.warn({ path: folder, problem }, 'an update will refuse connections');
      return new Slot({ ...options, folder: '' }, firstPort, 1, undefined);
    }
    if (slot !== undefined) return slot;
    if (isFirst) {
      log.info({ path: folder }, 'two other agents have both ports, waiting');
      options.onWait?.();
    }
    signal?.throwIfAborted();
    await sleep(clock, retryMs);
  }
}

function tryTake(options: SlotOptions): Slot | undefined {
  const { folder, firstPort, ip, pod } = options;
  const native = nativeModule();
  const ports = [firstPort, firstPort + 1];
  const hadBefore = ports.filter((port) => readNote(folder, port)?.pod === pod);
  // Of a pod that is down for a moment, the agent comes back before its other container does, and listens there.
  const orderOf = (port: number): number => Math.abs(readNote(folder, port)?.order ?? 0);
  const oldestFirst = ports.toSorted((one, other) => orderOf(one) - orderOf(other));
  for (const port of [...hadBefore, ...oldestFirst]) {
    const lock = native.lockFile(lockPath(folder, port));
    if (lock === undefined) continue;
    const note = readNote(folder, port);
    const isOwn = note?.pod === pod;
    // Of an agent whose other container is down, or of a version that has no slots.
    if (!isOwn && native.isListening(ip, port)) {
      closeSync(lock);
      continue;
    }
    const otherPort = ports.find((each) => each !== port) ?? port;
    const order = isOwn ? Math.abs(note.order) : orderOf(otherPort) + 1;
    writeNote(options, port, order);
    return new Slot(options, port, order, { lock, port: otherPort });
  }
  return undefined;
}

/**
 * Cgroups of the agents of this node. One that has ended leaves its id, which the kernel does not use again.
 * @param folder empty for none.
 */
export function agentCgroups(folder: string, firstPort: number): readonly bigint[] {
  if (folder === '') return [];
  return cgroupIds([firstPort, firstPort + 1].map((port) => readNote(folder, port)?.cgroup));
}

/** Removes the files of agents that have ended. */
export function removeSlots(folder: string, firstPort: number): void {
  for (const port of [firstPort, firstPort + 1]) {
    const path = lockPath(folder, port);
    if (!existsSync(path) || nativeModule().isLocked(path)) continue;
    rmSync(notePath(folder, port), { force: true });
    rmSync(path, { force: true });
  }
  rmSync(turnPath(folder), { force: true });
}

/** Of this process. Disposed, or when the process ends, another agent may take it. */
export class Slot implements Disposable {
  readonly port: number;
  readonly #options: SlotOptions;
  #order: number;
  readonly #shared: { readonly lock: number; readonly port: number } | undefined;
  #othersSilenceMs: number | undefined;

  constructor(
    options: SlotOptions,
    port: number,
    order: number,
    shared: { readonly lock: number; readonly port: number } | undefined,
  ) {
    this.#options = options;
    this.port = port;
    this.#order = order;
    this.#shared = shared;
  }

  /** @throws errors of the native module. */
  own(): Side {
    // Alone, nothing depends on it, and the check of the redirect stays without this call.
    const listens = this.#shared === undefined || this.#listens(this.port);
    return { port: this.port, order: this.#order, listens };
  }

  /** The other slot of the node. @throws errors of the native module. */
  other(): Neighbor | undefined {
    if (this.#shared === undefined) return undefined;
    const { folder, clock } = this.#options;
    const { port } = this.#shared;
    const listens = this.#listens(port);
    const isHeld = nativeModule().isLocked(lockPath(folder, port));
    if (listens) this.#othersSilenceMs = undefined;
    else this.#othersSilenceMs ??= clock.monotonicMs();
    return { port, listens, isHeld, order: readNote(folder, port)?.order ?? 0 };
  }

  /**
   * Whether the own agent has to listen, ready or not: nobody else takes connections, and nobody older will soon.
   * @throws errors of the native module.
   */
  isAlone(): boolean {
    const other = this.other();
    if (other === undefined) return true;
    if (other.listens) return false;
    const sinceMs = this.#othersSilenceMs ?? Infinity;
    return (
      !other.isHeld ||
      isYounger(other, this.own()) ||
      this.#options.clock.monotonicMs() - sinceMs >= silenceMs
    );
  }

  /** Calls back when the other slot is taken, or its agent leaves; what else changes there is seen by a look. */
  watch(onChange: () => void): Disposable | undefined {
    if (this.#shared === undefined) return undefined;
    return watchShared(notePath(this.#options.folder, this.#shared.port), onChange);
  }

  /** From now on the other agent takes the redirect if it listens. @throws errors of the file system. */
  leave(): void {
    this.#order = -Math.abs(this.#order);
    if (this.#shared !== undefined) writeNote(this.#options, this.port, this.#order);
  }

  /**
   * Waits until the other process neither reads nor changes the redirect: in the middle of its installation this one
   * would find drift. A process that hangs is not waited for.
   */
  async turn(): Promise<Disposable> {
    const { folder, clock } = this.#options;
    const path = turnPath(folder);
    const endMs = clock.monotonicMs() + longestTurnMs;
    while (this.#shared !== undefined && clock.monotonicMs() < endMs) {
      const lock = nativeModule().lockFile(path);
      if (lock !== undefined) return { [Symbol.dispose]: () => closeSync(lock) };
      await sleep(clock, turnPollMs);
    }
    return { [Symbol.dispose]: () => undefined };
  }

  [Symbol.dispose](): void {
    if (this.#shared !== undefined) closeSync(this.#shared.lock);
  }

  #listens(port: number): boolean {
    return nativeModule().isListening(this.#options.ip, port);
  }
}

interface Note {
  readonly pod: string;
  readonly order: number;
  readonly cgroup: string;
}

function writeNote({ folder, pod, cgroup }: SlotOptions, port: number, order: number): void {
  const note = { boot: bootId(), pod, order, cgroup: String(cgroup ?? '') };
  writeShared(notePath(folder, port), note);
}

function readNote(folder: string, port: number): Note | undefined {
  const note = readShared(notePath(folder, port));
  // After a reboot the kernel gives the ids of cgroups again.
  if (note?.['boot'] !== bootId()) return undefined;
  const order = Number.isSafeInteger(note['order']) ? Number(note['order']) : 0;
  return { order, pod: textOf(note['pod']) ?? '', cgroup: textOf(note['cgroup']) ?? '' };
}

/** Different after each boot. */
function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

function lockPath(folder: string, port: number): string {
  return join(folder, `${port}.lock`);
}

function turnPath(folder: string): string {
  return join(folder, 'redirect.lock');
}

function notePath(folder: string, port: number): string {
  return join(folder, `${port}.json`);
}
