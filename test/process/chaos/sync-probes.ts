/**
 * What the agent surely has in its state, found by requests: the probe writes objects that change
 * the answer to its own pod, and once the answer has changed, the agent has everything that was
 * written before them. No maximum delay of a watch is assumed, so that no fault of the API and no
 * load of the machine is taken for a wrong answer.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzurePodIdentityException,
  createPodManifest,
} from '../../../lab/fakes/kube/manifests.ts';
import { tokenTarget } from '../../support/ask.ts';
import { nodeName } from '../agent-child.ts';
import { PodConnection, type Outcome } from './connection.ts';

const probeAddresses = { objects: '127.0.2.1', exceptions: '127.0.2.2' } as const;

/** Limit without a fault of the API. A client waits longer for its answer. */
const longestMs = 20_000;
const betweenMs = 100;
const retryMs = 20;
/** The requested resource need not exist: only the decision counts. */
const patienceMs = 1_000;

export interface SyncProbesOptions {
  readonly kube: FakeKube;
  readonly port: number;
  readonly isOver: () => boolean;
  readonly kubeHealthySinceMs: () => number;
  readonly onLate: (what: string) => void;
}

/** Probes of one kind, in order. */
class SyncTimes {
  #probes: { readonly begunAtMs: number; readonly doneAtMs: number }[] = [];
  count = 0;

  add(begunAtMs: number): void {
    this.count++;
    this.#probes.push({ begunAtMs, doneAtMs: performance.now() });
  }

  /** At `atMs` the agent has everything that was written before the returned time. */
  at(atMs: number): number {
    return this.#probes.findLast(({ doneAtMs }) => doneAtMs <= atMs)?.begunAtMs ?? 0;
  }

  forgetBefore(ms: number): void {
    this.#probes = this.#probes.filter(({ doneAtMs }) => doneAtMs >= ms);
  }
}

export class SyncProbes {
  readonly #options: SyncProbesOptions;
  /** Probes of pods, bindings and identities. */
  readonly #objects = new SyncTimes();
  readonly #exceptions = new SyncTimes();

  constructor(options: SyncProbesOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#objects.count + this.#exceptions.count;
  }

  knownAt(atMs: number): { readonly objectsFromMs: number; readonly exceptionsFromMs: number } {
    return { objectsFromMs: this.#objects.at(atMs), exceptionsFromMs: this.#exceptions.at(atMs) };
  }

  forgetBefore(ms: number): void {
    this.#objects.forgetBefore(ms);
    this.#exceptions.forgetBefore(ms);
  }

  async run(): Promise<void> {
    await Promise.all([this.#proveObjects(), this.#proveExceptions()]);
  }

  async #proveObjects(): Promise<void> {
    const { kube, isOver } = this.#options;
    for (let round = 1; !isOver(); round++) {
      const name = `proof-${round}`;
      const begunAtMs = performance.now();
      removeProof(kube, `proof-${round - 1}`);
      const pod = { name, nodeName, ips: [probeAddresses.objects], binding: name };
      kube.apply(createPodManifest(pod));
      kube.apply(createAzureIdentity({ name: `${name}-identity`, clientId: 'no GUID' }));
      kube.apply(
        createAzureIdentityBinding({ name, azureIdentity: `${name}-identity`, selector: name }),
      );
      const says = new RegExp(`default/${name}-identity.* no GUID`);
      await this.#until('pods, bindings and identities', probeAddresses.objects, (text) =>
        says.test(text),
      );
      if (!isOver()) this.#objects.add(begunAtMs);
      await delay(betweenMs);
    }
  }

  async #proveExceptions(): Promise<void> {
    const { kube, isOver } = this.#options;
    const labels = { proof: 'exceptions' };
    const name = 'proof-of-exceptions';
    kube.apply(createPodManifest({ name, nodeName, ips: [probeAddresses.exceptions], labels }));
    for (let isExcepted = true; !isOver(); isExcepted = !isExcepted) {
      const begunAtMs = performance.now();
      if (isExcepted) kube.apply(createAzurePodIdentityException({ name, podLabels: labels }));
      else kube.delete({ kind: 'AzurePodIdentityException', name });
      await this.#until('exceptions', probeAddresses.exceptions, (text) =>
        isExcepted ? !/no label|No running pod|starting/.test(text) : text.includes('no label'),
      );
      if (!isOver()) this.#exceptions.add(begunAtMs);
      await delay(betweenMs);
    }
  }

  /** Returns when the answer is the expected one, or the run is over. */
  async #until(what: string, ip: string, isWanted: (text: string) => boolean): Promise<void> {
    const { isOver, kubeHealthySinceMs, onLate } = this.#options;
    const begunAtMs = performance.now();
    while (!isOver()) {
      const outcome = await this.#ask(ip);
      if (outcome?.kind === 'answer' && isWanted(outcome.text)) return;
      const sinceMs = performance.now() - Math.max(begunAtMs, kubeHealthySinceMs());
      if (sinceMs > longestMs) {
        onLate(`${what} unknown for ${Math.round(sinceMs)} ms with a healthy API server`);
        return;
      }
      await delay(retryMs);
    }
  }

  async #ask(ip: string): Promise<Outcome | undefined> {
    try {
      using connection = await PodConnection.open(this.#options.port, ip);
      const outcome = connection.expect();
      connection.send(`GET ${tokenTarget} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n`);
      return await Promise.race([outcome, delay(patienceMs, undefined, { ref: false })]);
    } catch {
      return undefined;
    }
  }
}

function removeProof(kube: FakeKube, name: string): void {
  kube.delete({ kind: 'Pod', name });
  kube.delete({ kind: 'AzureIdentityBinding', name });
  kube.delete({ kind: 'AzureIdentity', name: `${name}-identity` });
}
