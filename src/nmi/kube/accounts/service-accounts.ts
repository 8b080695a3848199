/**
 * Workload Identity's annotations of service accounts, read one by one on demand.
 *
 * 1. No call here waits: an account that is unknown, or was read more than `keepMs` ago, is read in
 *    the background.
 * 2. A decision uses data that was read in the last two `keepMs`. Older data is read again first,
 *    unless the API server is unavailable, which a failed or late read shows: then data from the
 *    last `staleLimitMs` is still used. After that no decision is possible.
 * 3. An account without a client id, or one that does not exist, is read again soon: its user is
 *    probably setting it up.
 * 4. At most one read per account at a time; a failure is cached for a moment.
 * 5. At most `max` accounts, with LRU eviction.
 */
import { isDeepStrictEqual } from 'node:util';
import { fullName, type ObjectName } from '../../../cache/index/object-name.ts';
import type { Clock } from '../../../base/time/clock.ts';
import { Observers } from '../../../cache/index/observers.ts';
import { ExpiringMap } from '../../../base/expiring-map.ts';
import { asRecord, stringAt } from '../../../base/json-value.ts';
import {
  malformed,
  outcomeOfFailure,
  type Forbidden,
  type Unavailable,
} from '../api/call-outcome.ts';
import { KubeError } from '../api/kube-error.ts';
import type { JsonReader } from '../api/client.ts';
import { serviceAccountPath } from './token-request.ts';

/** Trimmed; empty when absent. */
export interface WorkloadIdentityAnnotations {
  readonly clientId: string;
  readonly tenantId: string;
}

export type KnownServiceAccount = WorkloadIdentityAnnotations | 'missing';

export type ServiceAccountRead =
  { readonly kind: 'known'; readonly account: KnownServiceAccount } | Forbidden | Unavailable;

export interface ServiceAccounts {
  /** Grows with every change of a result of `peek`, except by age or eviction. */
  readonly generation: number;
  /** The last result, however old; `undefined` if there is none. */
  peek(account: ObjectName): KnownServiceAccount | undefined;
  /**
   * The data for a decision, or why there is none. After `undefined` a read is running, and
   * `onChange` fires when it has ended or is late.
   */
  peekFresh(account: ObjectName): ServiceAccountRead | undefined;
  /** Calls `observer` as described above; the returned function unsubscribes. */
  onChange(observer: () => void): () => void;
}

export interface ServiceAccountsOptions {
  readonly client: JsonReader;
  readonly clock: Clock;
  /** How long known data is used while the API server is unavailable. */
  readonly staleLimitMs: number;
  readonly max?: number;
  /** The first failed read of an account after one that did not fail. */
  readonly onUnreadable?: (account: ObjectName, failure: Forbidden | Unavailable) => void;
}

const [keepMs, emptyKeepMs] = [60_000, 5_000];
const timeoutMs = 5_000;
/** Delay before a failed read is retried: with known data, and without. */
const [retryMs, firstRetryMs] = [5_000, 1_000];
const maxRetryAfterMs = 60_000;
/** A healthy server answers in milliseconds, and clients wait for a token for a second or more. */
const lateMs = 500;

class Entry {
  known: KnownServiceAccount | undefined = undefined;
  /** Monotonic milliseconds of the last success. */
  readAtMs = -Infinity;
  /** Failure of the last read, if it failed. */
  failure: Forbidden | Unavailable | undefined = undefined;
  nextReadAtMs = -Infinity;
  /** The running read takes longer than on a healthy server. */
  isLate = false;
  /** A caller of `peekFresh` got `undefined` and waits for `onChange`. */
  isAwaited = false;
}

export function createServiceAccounts(options: ServiceAccountsOptions): ServiceAccounts {
  const { client, clock, staleLimitMs, max = 1024, onUnreadable } = options;
  const entries = new ExpiringMap<Entry>(clock, max);
  /** Keys; an entry may be evicted while it is read. */
  const reading = new Set<string>();
  const observers = new Observers();
  let generation = 0;

  function entryOf(key: string): Entry {
    const present = entries.get(key);
    if (present !== undefined) return present;
    const entry = new Entry();
    entries.set(key, entry);
    return entry;
  }

  /** Begins a read if one is due. Undefined for a name that no account can have. */
  function look(account: ObjectName): Entry | undefined {
    const path = serviceAccountPath(account);
    if (path === undefined) return undefined;
    const key = fullName(account);
    const entry = entryOf(key);
    if (!reading.has(key) && clock.monotonicMs() >= entry.nextReadAtMs) void read(account, path);
    return entry;
  }

  async function read(account: ObjectName, path: string): Promise<void> {
    const key = fullName(account);
    reading.add(key);
    const disarm = clock.schedule(lateMs, () => {
      const entry = entryOf(key);
      entry.isLate = true;
      wake(entry);
    });
    const outcome = await fetchAccount(client, path);
    disarm();
    reading.delete(key);
    const entry = entryOf(key);
    entry.isLate = false;
    if (outcome.kind === 'known') learn(entry, outcome.account);
    else fail(entry, account, outcome);
    wake(entry);
  }

  function learn(entry: Entry, account: KnownServiceAccount): void {
    const nowMs = clock.monotonicMs();
    const isEmpty = account === 'missing' || account.clientId === '';
    if (!isDeepStrictEqual(entry.known, account)) {
      generation++;
      entry.isAwaited = true;
    }
    entry.known = account;
    entry.readAtMs = nowMs;
    entry.failure = undefined;
    entry.nextReadAtMs = nowMs + (isEmpty ? emptyKeepMs : keepMs);
  }

  function fail(entry: Entry, account: ObjectName, failure: Forbidden | Unavailable): void {
    const leastMs = entry.known === undefined ? firstRetryMs : retryMs;
    const askedMs = failure.kind === 'unavailable' ? (failure.retryAfterMs ?? 0) : 0;
    const pauseMs = Math.max(leastMs, Math.min(askedMs, maxRetryAfterMs));
    if (entry.failure?.kind !== failure.kind) onUnreadable?.(account, failure);
    entry.failure = failure;
    entry.nextReadAtMs = clock.monotonicMs() + pauseMs;
  }

  function wake(entry: Entry): void {
    const { isAwaited } = entry;
    entry.isAwaited = false;
    if (isAwaited) observers.notify();
  }

  return {
    get generation() {
      return generation;
    },
    peek(account) {
      const entry = look(account);
      return entry === undefined ? 'missing' : entry.known;
    },
    peekFresh(account) {
      const entry = look(account);
      if (entry === undefined) return { kind: 'known', account: 'missing' };
      const { known, failure, isLate } = entry;
      const servesMs = failure !== undefined || isLate ? staleLimitMs : 2 * keepMs;
      const ageMs = clock.monotonicMs() - entry.readAtMs;
      if (known !== undefined && ageMs <= servesMs) return { kind: 'known', account: known };
      if (failure !== undefined && !reading.has(fullName(account))) return failure;
      entry.isAwaited = true;
      return undefined;
    },
    onChange: (observer) => observers.add(observer),
  };
}

async function fetchAccount(client: JsonReader, path: string): Promise<ServiceAccountRead> {
  try {
    const account = annotationsOf(await client.getJson(path, { timeoutMs }));
    return account === undefined ? malformed : { kind: 'known', account };
  } catch (error) {
    const isMissing = error instanceof KubeError && error.code === 'NOT_FOUND';
    return isMissing ? { kind: 'known', account: 'missing' } : outcomeOfFailure(error);
  }
}

/** Of a service account as the API server returns it; undefined for anything else. */
export function annotationsOf(object: unknown): WorkloadIdentityAnnotations | undefined {
  const metadata = asRecord(asRecord(object)?.['metadata']);
  const annotations = asRecord(metadata?.['annotations']);
  const textOf = (name: string): string =>
    stringAt(annotations, `azure.workload.identity/${name}`).trim();
  return metadata && { clientId: textOf('client-id'), tenantId: textOf('tenant-id') };
}
