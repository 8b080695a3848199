/**
 * The pods of this node, for a reflector: from the API server, or from the kubelet as a watch of an API server.
 *
 * 1. The kubelet has no versions: each watch begins with all pods (`startsOver`), and what is known stays until
 *    they are complete.
 * 2. The kubelet sends no event when only labels change (measured with 1.37.2, and its source), and may lose
 *    events. So each watch is ended after `renewMs`, and the next one begins with all pods.
 * 3. With `auto` the pods are from one source at any time. The kubelet is first. It is left for the API server
 *    when it cannot be read at the start, or for `patienceMs`, and it is tried again whenever a watch at the API
 *    server ends, which is after four to eight minutes, or fails. The first complete list of the other source replaces the pods.
 */
import type { Clock } from '../../../base/time/clock.ts';
import { openDeadline } from '../../../base/time/deadline.ts';
import type { Log } from '../../../base/log.ts';
import type { Pod } from '../../../cache/index/objects.ts';
import type { RequestOptions, WatchOptions } from '../api/client.ts';
import { KubeError } from '../api/kube-error.ts';
import { parsePod } from '../watch/parse.ts';
import { readPod } from '../watch/read-pod.ts';
import type { KubeReader } from '../watch/reflector.ts';
import { watchKubelet, type ConnectKubelet } from './pods-api.ts';
import { readPodEvent } from './pod-event.ts';

type PodsFrom = 'api-server' | 'kubelet';

export interface PodSourceOptions {
  readonly from: PodsFrom | 'auto';
  readonly connect: ConnectKubelet;
  /** The API server. */
  readonly client: KubeReader;
  /** Name of the node. */
  readonly node: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** How late a change of labels may be seen. */
const renewMs = 60_000;
/** For all pods of the node. */
const listMs = 10_000;
/** A kubelet that restarts answers within some seconds. */
const patienceMs = 30_000;
/** Least time between two tries of a kubelet that was left. */
const tryMs = 5_000;

export class PodSource implements KubeReader {
  readonly #options: PodSourceOptions;
  #current: PodsFrom;
  /** The kubelet has failed since then; -Infinity before its first answer, Infinity if it has not. */
  #failingSinceMs = -Infinity;
  #triedAtMs = -Infinity;

  constructor(options: PodSourceOptions) {
    this.#options = options;
    this.#current = options.from === 'auto' ? 'kubelet' : options.from;
  }

  get current(): PodsFrom {
    return this.#current;
  }

  get startsOver(): boolean {
    return this.#current === 'kubelet';
  }

  async *watch(path: string, options: WatchOptions): AsyncGenerator<unknown, void> {
    if (this.#current === 'api-server' && (await this.#isKubeletBack(options))) {
      this.#use('kubelet');
      // The reflector expects the changes since a version, not a list.
      if (path.includes('&resourceVersion=')) return;
    }
    if (this.#current === 'kubelet') {
      let isBegun = false;
      try {
        for await (const event of this.#watchKubelet(options)) {
          isBegun = true;
          yield event;
        }
        return;
      } catch (error) {
        if (options.signal?.aborted === true || !this.#isToLeave()) throw error;
        this.#use('api-server', error);
        // The list that has begun must not be of both.
        if (isBegun) throw error;
      }
    }
    yield* this.#options.client.watch(path, options);
  }

  getJson(path: string, options?: RequestOptions): Promise<unknown> {
    return this.#options.client.getJson(path, options);
  }

  /** The pod as its source has it now; undefined if there is none, or none that can be used. */
  async readPod(pod: Pod): Promise<Pod | undefined> {
    const { client, node, clock, connect } = this.#options;
    if (this.#current === 'api-server') return readPod(client, node, pod);
    using deadline = openDeadline(clock, listMs);
    for await (const message of watchKubelet(connect, deadline.signal)) {
      const { type, object } = readPodEvent(message);
      const parsed = parsePod(object);
      if (parsed.ok && parsed.value.uid === pod.uid) return parsed.value;
      if (type === 'BOOKMARK') break;
    }
    return undefined;
  }

  /** Ends cleanly after `renewMs`. */
  async *#watchKubelet({ signal }: WatchOptions): AsyncGenerator<unknown, void> {
    const { clock, connect } = this.#options;
    using deadline = openDeadline(clock, listMs, signal);
    let isListed = false;
    try {
      for await (const message of watchKubelet(connect, deadline.signal)) {
        const event = readPodEvent(message);
        yield event;
        if (isListed || event.type !== 'BOOKMARK') continue;
        isListed = true;
        this.#failingSinceMs = Infinity;
        deadline.restart(renewMs);
      }
    } catch (error) {
      if (deadline.passed && isListed) return;
      this.#failingSinceMs = Math.min(this.#failingSinceMs, clock.monotonicMs());
      const late = `the kubelet has not listed its pods within ${listMs} ms`;
      throw deadline.passed ? new KubeError('TIMEOUT', late, { cause: error }) : error;
    }
  }

  #isToLeave(): boolean {
    const { from, clock } = this.#options;
    return from === 'auto' && clock.monotonicMs() - this.#failingSinceMs >= patienceMs;
  }

  async #isKubeletBack({ signal }: WatchOptions): Promise<boolean> {
    const { from, clock, connect } = this.#options;
    if (from !== 'auto' || clock.monotonicMs() - this.#triedAtMs < tryMs) return false;
    this.#triedAtMs = clock.monotonicMs();
    using deadline = openDeadline(clock, listMs, signal);
    try {
      for await (const _ of watchKubelet(connect, deadline.signal)) return true;
      return false;
    } catch {
      return false;
    }
  }

  #use(source: PodsFrom, error?: unknown): void {
    this.#current = source;
    this.#failingSinceMs = -Infinity;
    const why = error instanceof KubeError ? { code: error.code, err: error.message } : {};
    this.#options.log.info({ source, ...why }, 'source of pods changed');
  }
}
