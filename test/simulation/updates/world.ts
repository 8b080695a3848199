/**
 * What holds at every moment of an update: somebody answers where the kernel redirects to, or the last disturbance was
 * less than ten seconds ago; who answers is ready if anybody is; no pod is unready for what another one did; at rest,
 * nobody changes the kernel.
 */
import { Kernel, agentIp } from '../kernel.ts';
import { Network, useNetwork } from '../network.ts';
import type { WholeCode } from '../load.ts';
import { Machine } from '../machine.ts';
import type { Pod } from './pod.ts';

export const recoveryMs = 10_000;
/** Until the check of the redirect after the last change, src/nmi/config/options.ts. */
const restMs = 12_000;
/** Until the younger of two agents that listen has the redirect: a look, turns and an installation. */
const moveMs = 3_000;
const ports = [2_579, 2_580] as const;
/** A pod that connects to the metadata address after every event. */
const caller = { uid: 'caller', ip: '10.0.0.9', port: 40_000 } as const;

export class World {
  readonly code: WholeCode;
  readonly machine: Machine;
  readonly kernel: Kernel;
  readonly story: string[] = [];
  /** Pods that nobody has ended. */
  readonly pods = new Set<Pod>();
  readonly everyPod: Pod[] = [];
  /** Pods that are ending. */
  readonly ending = new Set<Promise<void>>();
  /** From a disturbance until somebody answered again. */
  longestSilenceMs = 0;
  /** From now on not even a disturbance excuses a connection without an answer. */
  mustAnswer = false;
  isGentle = false;
  isAnswered = false;
  #disturbedMs = 0;
  #changedMs = 0;
  /** Since when one answers that is not ready, while another one is. */
  #wrongMs = Infinity;
  #last = '';
  /** Reported after the event: the code under test must not get the exception. */
  #problem: string | undefined;

  constructor(code: WholeCode, seed: number, paceMs: number) {
    this.code = code;
    this.machine = new Machine(seed, paceMs);
    useNetwork(new Network(this.machine.scheduler));
    this.kernel = new Kernel(this.machine);
    this.kernel.longestInstallMs = 1_000;
    this.kernel.versionOf = ({ name }) =>
      this.everyPod.find((pod) => name.startsWith(`${pod.name}/`))?.version ?? 0;
    this.kernel.layoutOf = (version) => (version === 3 ? 2 : 1);
    this.kernel.agentOf = ({ name }) => name.split('/')[0] ?? '';
    this.kernel.addPod(caller.uid, caller.ip, false);
    this.kernel.onInstalled = ({ name }) => {
      this.tell(`${name} installs the redirect to ${this.kernel.port}`);
      const calmMs = this.nowMs - Math.max(this.#changedMs, this.#disturbedMs);
      if (calmMs > restMs && this.isCalm) this.#problem ??= `${name} changes the kernel at rest`;
    };
  }

  get nowMs(): number {
    return this.machine.scheduler.nowMs;
  }

  get sinceDisturbedMs(): number {
    return this.nowMs - this.#disturbedMs;
  }

  add(pod: Pod): void {
    this.pods.add(pod);
    this.everyPod.push(pod);
  }

  tell(text: string): void {
    this.story.push(`${Math.round(this.nowMs)} ms: ${text}`);
  }

  disturb(text: string): void {
    this.#disturbedMs = this.nowMs;
    this.tell(text);
  }

  fail(problem: string): never {
    throw new Error(`at ${Math.round(this.nowMs)} ms: ${problem}`);
  }

  /** No back-off is running, and what was ended is gone. */
  get isCalm(): boolean {
    return this.ending.size === 0 && this.#sound().every(({ isWhole }) => isWhole);
  }

  /** Of pods that are expected to be ready: a third one waits for a port, and one with a defect waits without limit. */
  #sound(): readonly Pod[] {
    const { machine } = this;
    const hasFree = ports.some(
      (port) => !machine.isLocked(`/host/${port}.lock`) && !machine.isListening(agentIp, port),
    );
    return [...this.pods].filter(
      ({ defect, isReady, hasSlot }) => isReady || (defect === undefined && (hasSlot || hasFree)),
    );
  }

  /** Which pods are not ready for longer; empty for what is wanted. */
  unreadiness(longestMs = 0): string {
    if (!this.isAnswered) return 'nobody answers';
    return this.#sound()
      .filter(({ isReady, unreadyMs }) => !isReady && unreadyMs > longestMs)
      .map(({ name, problem = '' }) => `${name} is not ready: ${problem}`)
      .join(', ');
  }

  /** After every event. */
  check(): void {
    if (this.#problem !== undefined) this.fail(this.#problem);
    for (const pod of this.pods) pod.noteReadiness();
    this.#checkAnswers();
    this.#checkWhoAnswers();
    this.#checkCaller();
    for (const { name, unreadyMs, problem } of this.isGentle ? this.pods : []) {
      if (unreadyMs > 2_000 && unreadyMs < Infinity)
        this.fail(`${name} is no longer ready, though nothing was done to it: ${problem ?? ''}`);
    }
    if (this.sinceDisturbedMs <= recoveryMs || !this.isCalm) return;
    const problem = this.unreadiness(2_000);
    if (problem !== '') this.fail(`${problem}, and the last disturbance was long ago`);
  }

  #checkAnswers(): void {
    const { isRedirected, port } = this.kernel;
    const answers = ports.map(
      (each) => (this.machine.listenerAt(agentIp, each)?.acceptors.size ?? 0) > 0,
    );
    this.isAnswered = isRedirected && answers[ports.findIndex((each) => each === port)] === true;
    const locks = ports.map((each) => this.machine.isLocked(`/host/${each}.lock`));
    const ready = [...this.pods].map(({ isReady }) => isReady);
    const now = [...answers, ...locks, this.isAnswered, ...ready].join();
    if (now !== this.#last) {
      this.#changedMs = this.nowMs;
      if (!this.isAnswered) this.tell(`nobody answers; the redirect points at ${port}`);
    }
    this.#last = now;
    if (this.isAnswered) return;
    if (this.mustAnswer) this.fail('nobody answers, though nothing was killed');
    if (!this.#sound().some(({ isWhole }) => isWhole)) return;
    const { sinceDisturbedMs } = this;
    this.longestSilenceMs = Math.max(this.longestSilenceMs, sinceDisturbedMs);
    if (sinceDisturbedMs > recoveryMs) {
      this.fail(`nobody answers, the last disturbance was ${Math.round(sinceDisturbedMs)} ms ago`);
    }
  }

  /** Who accepts a new connection can read its record, or a disturbance excuses a 503, and nothing a 403. */
  #checkCaller(): void {
    if (!this.isAnswered) return;
    const { uid, ip, port } = caller;
    const to = this.kernel.route(uid, ip, port);
    const who = this.everyPod.find(({ containers }) => containers.agent.listening()?.port === to);
    const socket = this.kernel.descriptorOf(`${ip}:${port}`);
    const found = who?.containers.agent.attest({ socket, remoteIp: ip });
    this.kernel.forget(ip, port);
    if (who === undefined || found === undefined || found.kind === 'attested') return;
    const isFinal = found.kind === 'unattested' && found.retryWhy === undefined;
    if (isFinal) this.fail(`${who.name} answers a right pod with 403`);
    if (this.isGentle || (this.sinceDisturbedMs > recoveryMs && this.isCalm))
      this.fail(`${who.name} cannot read a record: ${JSON.stringify(found)}`);
  }

  /** One that is not ready answers only while nobody is. */
  #checkWhoAnswers(): void {
    const { port } = this.kernel;
    const who = this.everyPod.find(({ containers }) => containers.agent.listening()?.port === port);
    const isWrong =
      this.isAnswered &&
      who?.containers.agent.listening()?.hasSynced === false &&
      [...this.pods].some((pod) => pod !== who && pod.isReady);
    this.#wrongMs = isWrong ? Math.min(this.#wrongMs, this.nowMs) : Infinity;
    if (this.nowMs - this.#wrongMs > moveMs)
      this.fail(`${who?.name ?? ''} answers and is not ready, while another one is`);
  }
}
