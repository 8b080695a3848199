/**
 * Removes the startup taint from this node: it keeps pods that need tokens off a node until the node's
 * agent serves. The provisioner of nodes adds the taint, and a node that registers again has it again; the
 * agent removes it from its own node when all conditions of `/readyz` are met, and never adds one.
 */
import type { Clock } from '../../base/time/clock.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import { backoffMs } from '../kube/api/backoff.ts';
import type { JsonReader, KubeClient } from '../kube/api/client.ts';
import { KubeError } from '../kube/api/kube-error.ts';
import { NodeImpersonation } from '../kube/api/node-impersonation.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';

export interface StartupTaintOptions {
  readonly client: Pick<KubeClient, 'as' | 'patchJson'>;
  readonly node: string;
  /** Key of the taint, with any value and effect. */
  readonly key: string;
  readonly isReady: () => boolean;
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly log: Log;
}

const readyPollMs = 200;
/**
 * Karpenter has this taint on a node until it registers the node. In the write that removes it, it adds the
 * startup taints of the NodePool, those too that somebody removed before.
 */
const unregistered = 'karpenter.sh/unregistered';
const unregisteredPollMs = 1_000;
/** A Node has many kilobytes, and there may be thousands of agents. */
const lookAgainMs = 300_000;
const backoff = { baseMs: 500, capMs: 30_000 } as const;

/** Begins at once; disposal ends it. */
export class StartupTaint implements Disposable {
  readonly #options: StartupTaintOptions;
  /** A node may read itself, but not change its taints. */
  readonly #reader: JsonReader;
  readonly #ended = new AbortController();
  #failures = 0;
  #isFirst = true;
  readonly #job: Disposable;

  constructor(options: StartupTaintOptions) {
    this.#options = options;
    const { client, node, log } = options;
    this.#reader = client.as(new NodeImpersonation({ node, purpose: 'taint', log }));
    this.#job = startPeriodicJob(options.clock, 0, () => this.#tick());
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
    this.#job[Symbol.dispose]();
  }

  async #tick(): Promise<number | undefined> {
    if (!this.#options.isReady()) return readyPollMs;
    try {
      const isRegistered = await this.#remove();
      this.#failures = 0;
      if (!isRegistered) return unregisteredPollMs;
      this.#isFirst = false;
      return lookAgainMs;
    } catch (error) {
      if (this.#ended.signal.aborted) return undefined;
      this.#failures++;
      const { log, key, random } = this.#options;
      const { code = 'UNKNOWN', retryAfterMs } = error instanceof KubeError ? error : {};
      log.warn({ key, code, failures: this.#failures }, 'failed to remove startup taint');
      return backoffMs(backoff, this.#failures, random(), retryAfterMs);
    }
  }

  /** False while Karpenter has not registered the node: nothing is done then. */
  async #remove(): Promise<boolean> {
    const { client, node, key, log } = this.#options;
    const { signal } = this.#ended;
    const path = `/api/v1/nodes/${node}`;
    const taints = taintsOf(await this.#reader.getJson(path, { signal }));
    const keyOf = (taint: unknown) => stringAt(asRecord(taint), 'key');
    if (taints.some((taint) => keyOf(taint) === unregistered)) return false;
    const others = taints.filter((taint) => keyOf(taint) !== key);
    if (others.length === taints.length) {
      if (this.#isFirst) log.info({ key }, 'startup taint not found on this node');
      return true;
    }
    // Taints are one list, and others change it too: the patch applies to the list that was read or
    // fails.
    const patch = [
      { op: 'test', path: '/spec/taints', value: taints },
      { op: 'replace', path: '/spec/taints', value: others },
    ];
    await client.patchJson(path, patch, { signal });
    log.info({ key }, 'startup taint removed');
    return true;
  }
}

function taintsOf(node: unknown): readonly unknown[] {
  const taints = asRecord(asRecord(node)?.['spec'])?.['taints'];
  return Array.isArray(taints) ? taints : [];
}
