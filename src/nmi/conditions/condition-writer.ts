/**
 * Keeps the conditions of all identities and bindings equal to the agents' evaluation.
 * 1. An object is written when its conditions differ, and at most once in `sameObjectMs`. Writes
 * are paced, since every node's watch receives each.
 * 2. What is not ready is written first. Namespaces take turns, so one with constantly changing
 * objects delays another by one request. One write in `readyEvery` is of a ready object.
 * 3. A write applies to the version that was evaluated or fails, and changes only conditions of our
 * types. So two processes that write at the same time agree after one write. If they see the objects
 * differently, the later one prevails: conditions that replace ours are left for ten minutes.
 * 4. A write that the server does not accept is tried again after a while, or at the next change of
 * the object. It holds back another object by a second at most, unless the server does not answer
 * at all.
 * 5. Evaluation is split into pieces, so that probes are answered.
 */
import type { Clock } from '../../base/time/clock.ts';
import { fullName, type ObjectName } from '../../cache/index/object-name.ts';
import { secretOfIdentity, type Rules, type SecretFinding } from '../diagnosis/objects.ts';
import { ExpiringMap } from '../../base/expiring-map.ts';
import { FairQueue, type Party } from '../../base/fair-queue.ts';
import type { Binding, Identity } from '../../cache/index/objects.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import { backoffMs } from '../kube/api/backoff.ts';
import type { KubeClient, RequestOptions } from '../kube/api/client.ts';
import { KubeError } from '../kube/api/kube-error.ts';
import {
  credentialKey,
  type SecretCheck,
  type SecretCredential,
} from '../sources/entra/credentials/kinds.ts';
import {
  digestOf,
  parseConditions,
  patchOf,
  renderConditions,
  type Condition,
  type ExistingConditions,
} from './condition.ts';
import { conditionsOfBinding, conditionsOfIdentity } from './evaluate.ts';
import type { Observed } from './observed.ts';
import {
  groupPath,
  kinds,
  parseWorkKey,
  type ObservedKind,
  type ObservedObjects,
} from './observed-objects.ts';

export type WriteOutcome = 'written' | 'conflict' | 'deleted' | 'rejected' | 'forbidden' | 'failed';
export type WriteCounts = Record<WriteOutcome, number>;

export interface ConditionWriterOptions {
  readonly client: Pick<KubeClient, 'getJson' | 'patchJson'>;
  readonly checkSecret: SecretCheck;
  readonly objects: ObservedObjects;
  readonly rules: Rules;
  readonly isSynced: () => boolean;
  readonly pauseMs: () => number;
  readonly counts: WriteCounts;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

const requestEveryMs = 100;
const settleMs = 1_000;
const sameObjectMs = 10_000;
/** No watch reports that a Secret was created or deleted, and refused writes are due again. */
const sweepMs = 60_000;
const failureBackoff = { baseMs: 1_000, capMs: 60_000 } as const;
/** A refused write is not repeated for so long: after a conflict or a failure, or a refusal. */
const [failedKeptMs, refusedKeptMs] = [1_000, 600_000];
const leftMs = 600_000;
const undefinedMs = 60_000;
/** A usable Secret usually remains usable; a missing one is probably being created. */
const [usableMs, unusableMs] = [1_800_000, 120_000];
/** Objects of one kind that a cluster may have, and more. */
const maxKept = 100_000;
const callTimeoutMs = 10_000;
/** Evaluations per piece, some 12 ms. */
const evaluationsAtOnce = 500;
const pieceMs = 20;
const readyEvery = 10;

/** The next step for an object: the check of a Secret, or a write of this value of `Ready`. */
interface Step {
  readonly kind: 'check' | 'not ready' | 'ready';
  readonly run: () => Promise<void>;
}

interface Write {
  readonly key: string;
  readonly object: Observed<unknown>;
  readonly wanted: Wanted;
  /** Equal for equal writes. */
  readonly write: string;
}

/** After failures in a row. */
interface Pauses {
  failures: number;
  untilMs: number;
}

type Wanted = readonly Condition[];
type Evaluation = Wanted | SecretCredential;

export class ConditionWriter implements AsyncDisposable {
  readonly #options: ConditionWriterOptions;
  readonly #findings: ExpiringMap<SecretFinding>;
  /** By work key: a write that was not accepted. */
  readonly #refused: ExpiringMap<string>;
  /** By work key: the digest of our conditions that were in place when it was last evaluated. */
  readonly #inPlace: ExpiringMap<string>;
  /** By work key: the digest of our conditions that others replaced. */
  readonly #left: ExpiringMap<string>;
  readonly #unwritable: ExpiringMap<true>;
  readonly #queue = new FairQueue<string>();
  /** Evaluated objects, by their next step. */
  readonly #steps = {
    check: new FairQueue<string>(),
    'not ready': new FairQueue<string>(),
    ready: new FairQueue<string>(),
  };
  /** When objects were written, or refused, in the last seconds. */
  readonly #writtenAtMs = new Map<string, number>();
  readonly #ended = new AbortController();
  readonly #job: Disposable;
  #run: Promise<unknown> = Promise.resolve();
  #checking: Promise<void> | undefined;
  #settleAtMs = -Infinity;
  #sweepAtMs = -Infinity;
  /** A Secret that cannot be read delays other checks, and no write. */
  readonly #checks: Pauses = { failures: 0, untilMs: -Infinity };
  readonly #writes: Pauses = { failures: 0, untilMs: -Infinity };
  #writeAtMs = -Infinity;
  #writesSinceReady = 0;
  /** What was logged since the last sweep, and kinds without conditions. */
  #hasLogged = false;
  readonly #withoutConditions = new Set<ObservedKind>();

  constructor(options: ConditionWriterOptions) {
    this.#options = options;
    this.#findings = new ExpiringMap(options.clock, maxKept);
    this.#refused = new ExpiringMap(options.clock, maxKept);
    this.#inPlace = new ExpiringMap(options.clock, maxKept);
    this.#left = new ExpiringMap(options.clock, maxKept);
    this.#unwritable = new ExpiringMap(options.clock, Object.keys(kinds).length);
    this.#job = startPeriodicJob(options.clock, settleMs, () => {
      const run = this.#tick();
      this.#run = run;
      return run;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    this.#job[Symbol.dispose]();
    await this.#run;
    this.#findings[Symbol.dispose]();
    for (const kept of [this.#refused, this.#inPlace, this.#left]) kept[Symbol.dispose]();
    this.#unwritable[Symbol.dispose]();
  }

  async #tick(): Promise<number | undefined> {
    const { clock, isSynced } = this.#options;
    const nowMs = clock.monotonicMs();
    if (!isSynced() || nowMs < this.#writes.untilMs) return settleMs;
    this.#settle(nowMs);
    if (!this.#evaluate()) return pieceMs;
    await this.#checkNext();
    await this.#writeNext();
    if (this.#queue.size + this.#steps.check.size > 0) return requestEveryMs;
    if (this.#steps['not ready'].size + this.#steps.ready.size === 0) return settleMs;
    return Math.min(settleMs, Math.max(requestEveryMs, this.#writeAtMs - clock.monotonicMs()));
  }

  #evaluate(): boolean {
    // No mutation: the number of objects in a piece is not exact.
    for (let done = 0; done < evaluationsAtOnce; done++) {
      const key = this.#queue.shift();
      if (key === undefined) return true;
      this.#queueStep(key, this.#stepOf(key));
    }
    return this.#queue.size === 0;
  }

  /** One at a time. A key file may take seconds to open, and no write waits for it. */
  async #checkNext(): Promise<void> {
    const { clock } = this.#options;
    if (this.#checking !== undefined || clock.monotonicMs() < this.#checks.untilMs) return;
    const check = this.#take('check');
    if (check === undefined) return;
    const checking = this.#request(check.run, this.#checks).then(() => {
      this.#checking = undefined;
    });
    this.#checking = checking;
    const waited = Promise.withResolvers<undefined>();
    const disarm = clock.schedule(requestEveryMs, () => waited.resolve(undefined));
    await Promise.race([checking, waited.promise]);
    disarm();
  }

  async #writeNext(): Promise<void> {
    const { clock, pauseMs } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs < this.#writeAtMs || nowMs < this.#writes.untilMs) return;
    const isTurnOfReady = this.#writesSinceReady >= readyEvery - 1;
    const ready = isTurnOfReady ? this.#take('ready') : undefined;
    const write = ready ?? this.#take('not ready') ?? this.#take('ready');
    if (write === undefined) return;
    this.#writesSinceReady = write.kind === 'ready' ? 0 : this.#writesSinceReady + 1;
    this.#writeAtMs = nowMs + pauseMs();
    await this.#request(write.run, this.#writes);
  }

  /** The next object whose step is still of this kind: others may have changed meanwhile. */
  #take(kind: Step['kind']): Step | undefined {
    // No mutation: the number of objects in a piece is not exact.
    for (let looked = 0; looked < evaluationsAtOnce; looked++) {
      const key = this.#steps[kind].shift();
      if (key === undefined) return undefined;
      const step = this.#stepOf(key);
      if (step?.kind === kind) return step;
      this.#queueStep(key, step);
    }
    return undefined;
  }

  /** Once a second, queues the touched objects, except those written a moment ago. */
  #settle(nowMs: number): void {
    const { objects } = this.#options;
    // No mutation: a millisecond more is as good.
    if (nowMs < this.#settleAtMs) return;
    this.#settleAtMs = nowMs + settleMs;
    // No mutation: a second more is as good.
    if (nowMs >= this.#sweepAtMs) {
      this.#sweepAtMs = nowMs + sweepMs;
      this.#hasLogged = false;
      objects.touchAll();
    }
    for (const [key, atMs] of this.#writtenAtMs) {
      // No mutation: a millisecond more is as good.
      if (nowMs - atMs < sameObjectMs) break;
      this.#writtenAtMs.delete(key);
    }
    for (const key of objects.takeTouched()) {
      if (this.#writtenAtMs.has(key)) objects.touch(key);
      else this.#queueUp(key);
    }
  }

  #queueUp(key: string): void {
    this.#queue.add(key, partyOf(key));
  }

  /** An object whose next step is of the same kind as before keeps its place. */
  #queueStep(key: string, step: Step | undefined): void {
    for (const [kind, queue] of Object.entries(this.#steps)) {
      if (kind === step?.kind) queue.add(key, partyOf(key));
      else queue.delete(key);
    }
  }

  #stepOf(key: string): Step | undefined {
    const { objects } = this.#options;
    const { kind, namespace, name } = parseWorkKey(key);
    if (this.#unwritable.get(kind)) return undefined;
    const identity = kind === 'identity' ? objects.identities.get(namespace, name) : undefined;
    const binding = kind === 'binding' ? objects.bindings.get(namespace, name) : undefined;
    const object = identity ?? binding;
    const evaluation = this.#evaluateIdentity(identity) ?? this.#evaluateBinding(binding);
    if (object === undefined || evaluation === undefined) return undefined;
    if ('kind' in evaluation) return { kind: 'check', run: () => this.#check(key, evaluation) };
    const digest = digestOf(evaluation, object.generation);
    if (this.#isLeft(key, object.conditions, digest)) return undefined;
    const write = `${object.version} ${digest}`;
    if (this.#refused.get(key) === write) return undefined;
    const isReady = evaluation.some(({ type, status }) => type === 'Ready' && status === 'True');
    return {
      kind: isReady ? 'ready' : 'not ready',
      run: () => this.#write({ key, object, wanted: evaluation, write }),
    };
  }

  /** In place already, or replaced by another process, which may know better. */
  #isLeft(key: string, { digest: existing, each }: ExistingConditions, wanted: string): boolean {
    const wasInPlace = this.#inPlace.get(key) === wanted;
    if (existing === wanted) {
      if (!wasInPlace) this.#inPlace.set(key, wanted);
      this.#left.delete(key);
      return true;
    }
    this.#inPlace.delete(key);
    // Conditions that were only lost, as under an older definition, are written again.
    if (wasInPlace && each.length > 0) this.#left.set(key, wanted, leftMs);
    else if (this.#left.get(key) !== wanted) this.#left.delete(key);
    return this.#left.get(key) !== undefined;
  }

  #evaluateIdentity(identity: Observed<Identity> | undefined): Evaluation | undefined {
    const { rules } = this.#options;
    if (identity === undefined) return undefined;
    const secret = secretOfIdentity(identity.parsed, rules);
    if (secret === undefined) return conditionsOfIdentity(identity, undefined, rules);
    const finding = this.#findings.get(credentialKey(secret));
    return finding === undefined ? secret : conditionsOfIdentity(identity, finding, rules);
  }

  #evaluateBinding(binding: Observed<Binding> | undefined): Evaluation | undefined {
    const { objects } = this.#options;
    if (binding === undefined) return undefined;
    if (!binding.parsed.ok) return conditionsOfBinding(binding, {}, undefined);
    const { value } = binding.parsed;
    const { namespace, identityName } = value;
    const identity = objects.identities.get(namespace, identityName);
    const evaluation = this.#evaluateIdentity(identity);
    if (evaluation !== undefined && 'kind' in evaluation) return evaluation;
    const facts = {
      identity: identity?.parsed,
      meant: identity === undefined ? objects.nearIdentity(namespace, identityName) : undefined,
      isSurplus: objects.isSurplus(value),
    };
    return conditionsOfBinding(
      binding,
      facts,
      evaluation?.find(({ type }) => type === 'Ready'),
    );
  }

  /** One at a time; never rejects. */
  async #request(work: () => Promise<void>, pauses: Pauses): Promise<void> {
    const { clock, random, log } = this.#options;
    try {
      await work();
      pauses.failures = 0;
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      const { code = 'UNKNOWN', retryAfterMs } = error instanceof KubeError ? error : {};
      pauses.failures += 1;
      // One line for an outage, not one for each try.
      if (pauses.failures === 1) log.warn({ code }, 'failed to write status conditions');
      const delayMs = backoffMs(failureBackoff, pauses.failures, random(), retryAfterMs);
      pauses.untilMs = clock.monotonicMs() + delayMs;
    }
  }

  async #check(key: string, secret: SecretCredential): Promise<void> {
    const { checkSecret, objects } = this.#options;
    const finding = await checkSecret(secret);
    if (this.#ended.signal.aborted) return;
    if (finding.kind === 'unavailable') {
      objects.touch(key);
      throw new KubeError('NETWORK', finding.problem, { retryAfterMs: finding.retryAfterMs });
    }
    const lifeMs = finding.kind === 'usable' ? usableMs : unusableMs;
    this.#findings.set(credentialKey(secret), finding, lifeMs);
    this.#queueUp(key);
  }

  async #write(step: Write): Promise<void> {
    const { client, clock, counts } = this.#options;
    const { key, object, wanted } = step;
    const { kind } = parseWorkKey(key);
    const { version, generation, conditions } = object;
    const list = renderConditions(wanted, generation, conditions, clock.wallMs());
    const patch = patchOf(version, conditions, list);
    const { namespace, name } = object;
    const path = `${groupPath}/namespaces/${namespace}/${kinds[kind].plural}/${name}/status`;
    try {
      const answer = asRecord(await client.patchJson(path, patch, this.#call()));
      this.#rememberWrite(key);
      // The server drops the conditions of a status that its definition does not have.
      if (parseConditions(answer?.['status']).each.length === 0) this.#lacksConditions(kind);
      else {
        counts.written += 1;
        this.#inPlace.set(key, digestOf(wanted, generation));
      }
    } catch (error) {
      if (this.#ended.signal.aborted) throw error;
      await this.#handleFailure(step, error);
    }
  }

  /** Rejects if no other write is expected to fare better. */
  async #handleFailure({ key, object, write }: Write, error: unknown): Promise<void> {
    const { clock, random, counts, objects } = this.#options;
    const { kind } = parseWorkKey(key);
    const outcome = outcomeOf(error);
    switch (outcome) {
      case 'deleted':
        if (await this.#hasStatus(kind)) counts.deleted += 1;
        else this.#lacksConditions(kind);
        return;
      case 'conflict':
        counts.conflict += 1;
        this.#refused.set(key, write, failedKeptMs);
        return;
      case 'failed':
        counts.failed += 1;
        if (!isOfObject(error)) {
          objects.touch(key);
          throw error;
        }
        // A webhook that fails for this object, or a server that fails for a moment.
        this.#refused.set(key, write, failedKeptMs);
        break;
      case 'rejected':
      case 'forbidden':
        counts[outcome] += 1;
        this.#rememberWrite(key);
        this.#refused.set(key, write, refusedKeptMs);
    }
    // Perhaps it would refuse all others as well.
    const retryAfterMs = error instanceof KubeError ? error.retryAfterMs : undefined;
    this.#writes.untilMs =
      clock.monotonicMs() + backoffMs(failureBackoff, 1, random(), retryAfterMs);
    this.#logOnce(kind, object, error);
  }

  /** Definitions of aad-pod-identity have none, and those of our first releases drop conditions. */
  async #hasStatus(kind: ObservedKind): Promise<boolean> {
    const { client } = this.#options;
    const list: unknown = asRecord(await client.getJson(groupPath, this.#call()))?.['resources'];
    const resources: readonly unknown[] = Array.isArray(list) ? list : [];
    return resources.some(
      (each) => stringAt(asRecord(each), 'name') === `${kinds[kind].plural}/status`,
    );
  }

  #lacksConditions(kind: ObservedKind): void {
    this.#unwritable.set(kind, true, undefinedMs);
    if (this.#withoutConditions.has(kind)) return;
    this.#withoutConditions.add(kind);
    this.#options.log.warn(
      { kind: kinds[kind].title },
      'custom resource definition has no status conditions, apply crds.yaml of this version',
    );
  }

  #call(): RequestOptions {
    return { signal: this.#ended.signal, timeoutMs: callTimeoutMs };
  }

  #rememberWrite(key: string): void {
    // No mutation: it keeps the order of time, and an object is seldom written twice in ten seconds.
    this.#writtenAtMs.delete(key);
    this.#writtenAtMs.set(key, this.#options.clock.monotonicMs());
  }

  /** Once between two checks of the definitions. */
  #logOnce(kind: ObservedKind, object: ObjectName, error: unknown): void {
    if (this.#hasLogged) return;
    this.#hasLogged = true;
    const code = error instanceof KubeError ? error.code : 'UNKNOWN';
    const title = `${kinds[kind].title} ${fullName(object)}`;
    this.#options.log.warn({ object: title, code }, 'status conditions refused by API server');
  }
}

function partyOf(key: string): Party {
  return { namespace: parseWorkKey(key).namespace, pod: '' };
}

function outcomeOf(error: unknown): Exclude<WriteOutcome, 'written'> {
  if (!(error instanceof KubeError)) return 'failed';
  if (error.code === 'NOT_FOUND') return 'deleted';
  if (error.code === 'FORBIDDEN') return 'forbidden';
  if (error.status === 409) return 'conflict';
  // A policy, or the definition's rules, which accepted the object when it was created.
  return error.status === 400 || error.status === 422 ? 'rejected' : 'failed';
}

/** The server, or something that it calls, fails for this object, and perhaps for no other. */
function isOfObject(error: unknown): boolean {
  return (
    error instanceof KubeError &&
    (error.code === 'TIMEOUT' || (error.status !== undefined && error.status >= 500))
  );
}
