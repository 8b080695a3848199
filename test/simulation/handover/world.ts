/**
 * What holds for the hand-over at every moment: somebody answers, or the last disturbance was less
 * than ten seconds ago; only its owner or a successor takes a socket file away; no two holders change
 * the kernel for long; no pod is unready for what another one did.
 */
import type { Removal } from '../file-tree.ts';
import type { Code } from '../load.ts';
import { Machine } from '../machine.ts';
import type { Process } from '../machine.ts';
import type { NodeKernel } from './redirect.ts';

/** A process of a pod, as the kubelet and pods see it. */
export interface Program {
  readonly process: Process;
  /** Its code runs: it was loaded. */
  isStarted: boolean;
  isStopping: boolean;
  isReady: boolean;
  /** An agent takes connections from the listening socket. */
  isAccepting: boolean;
  /** A holder changes the redirect in the kernel. */
  isWriting: boolean;
  /** Of a holder: what its check of the redirect reports. */
  problem: () => string | undefined;
  /** SIGTERM. */
  stop: () => void;
}

export const recoveryMs = 10_000;
/** A holder whose predecessor has ended removes what is left of it, and has that problem meanwhile. */
export const repairMs = 2_000;
export const address = { ip: '169.254.25.79', port: 2579 };
export const handoverPath = '/host/handover.sock';

export interface Figures {
  /** From a disturbance until somebody answered again. */
  longestSilenceMs: number;
  /** For how long two holders changed the kernel. */
  longestTwoWritersMs: number;
}

export class World {
  readonly machine: Machine;
  readonly code: Code;
  readonly kernel: NodeKernel = { version: undefined, exempt: new Set() };
  readonly programs = new Set<Program>();
  readonly story: string[] = [];
  readonly figures: Figures = { longestSilenceMs: 0, longestTwoWritersMs: 0 };
  /** From now on not even a disturbance excuses a connection without an answer. */
  mustAnswer = false;
  /** Whether a pod has both of its containers running. */
  isAnyPodWhole: () => boolean = () => false;
  /** Whether no pod is ending, starting or in a back-off. */
  isCalm: () => boolean = () => false;
  /** Which pods are not ready, or how many holders change the kernel; empty for what is wanted. */
  unreadiness: () => string = () => '';
  /** Which pods are no longer ready, though nothing was done to them; empty for what is wanted. */
  lostReadiness: () => string = () => '';
  disturbedMs = 0;
  #isSilent = false;
  /** Reported after the event: the code under test must not get the exception. */
  #theft: string | undefined;
  #twoWritersSinceMs: number | undefined;

  constructor(code: Code, seed: number, paceMs: number) {
    this.code = code;
    this.machine = new Machine(seed, paceMs);
    this.machine.files.onRemoval = (removal) => this.#checkRemoval(removal);
  }

  get nowMs(): number {
    return this.machine.scheduler.nowMs;
  }

  get sinceDisturbedMs(): number {
    return this.nowMs - this.disturbedMs;
  }

  tell(text: string): void {
    this.story.push(`${Math.round(this.nowMs)} ms: ${text}`);
  }

  disturb(text: string): void {
    this.disturbedMs = this.nowMs;
    this.tell(text);
  }

  fail(problem: string): never {
    throw new Error(`at ${Math.round(this.nowMs)} ms: ${problem}`);
  }

  isAnswered(): boolean {
    for (const { process, isAccepting } of this.programs) {
      if (isAccepting && process.isAlive) return true;
    }
    return false;
  }

  /** Holders that change the kernel, without those that are ending. */
  writers(): number {
    let count = 0;
    for (const { process, isWriting, isStopping } of this.programs) {
      if (isWriting && !isStopping && process.isAlive) count += 1;
    }
    return count;
  }

  /** After every event. */
  check(): void {
    if (this.#theft !== undefined) this.fail(this.#theft);
    this.#checkAnswers();
    this.#checkWriters();
    const lost = this.lostReadiness();
    if (lost !== '') this.fail(lost);
    if (this.sinceDisturbedMs <= recoveryMs || !this.isCalm()) return;
    const problem = this.unreadiness();
    if (problem !== '') this.fail(`${problem}, and the last disturbance was long ago`);
  }

  #checkAnswers(): void {
    const wasSilent = this.#isSilent;
    this.#isSilent = !this.isAnswered();
    if (!this.#isSilent) return;
    if (!wasSilent) this.tell('nobody answers');
    if (this.mustAnswer) this.fail('nobody answers, though nothing was killed');
    if (!this.isAnyPodWhole()) return;
    const { sinceDisturbedMs, figures } = this;
    figures.longestSilenceMs = Math.max(figures.longestSilenceMs, sinceDisturbedMs);
    if (sinceDisturbedMs <= recoveryMs) return;
    this.fail(
      `nobody answers, and the last disturbance was ${Math.round(sinceDisturbedMs)} ms ago`,
    );
  }

  #checkWriters(): void {
    if (this.writers() < 2) {
      this.#twoWritersSinceMs = undefined;
      return;
    }
    this.#twoWritersSinceMs ??= this.nowMs;
    const durationMs = this.nowMs - this.#twoWritersSinceMs;
    const { figures } = this;
    figures.longestTwoWritersMs = Math.max(figures.longestTwoWritersMs, durationMs);
    if (Math.min(durationMs, this.sinceDisturbedMs) > recoveryMs) {
      this.fail(`two holders have changed the kernel for ${Math.round(durationMs)} ms`);
    }
  }

  /**
   * A socket that somebody listens on belongs to its process. A holder replaces it if it has asked
   * that process, or has found the path free before that process came.
   */
  #checkRemoval({ path, inode, by, isReplaced, look }: Removal): void {
    if (inode.listener?.isOpen !== true || inode.owner === by) return;
    const isAsked = look?.inode === inode;
    const isUnseen = look !== undefined && inode.placedMs >= look.atMs;
    if (isReplaced && (isAsked || isUnseen)) return;
    const deed = isReplaced ? 'replaced' : 'removed';
    this.#theft ??= `${by.name} ${deed} the socket of ${inode.owner.name} at ${path}`;
  }
}
