/**
 * What service accounts say in Workload Identity's annotations, read one by one when asked for.
 *
 * 1. `peek` never waits: what is known answers, and what is known for longer than `keepMs` is read
 *    again behind it.
 * 2. What cannot be read again stays known: pods keep working through an outage of any length.
 * 3. An account without a client id, or none at all, is asked for again soon: whoever uses it is
 *    likely to be setting it up.
 * 4. At most one read per account at a time; a failure answers for a moment without asking.
 * 5. At most `max` accounts, least recently used out first.
 */
import { objectKey } from '../../../cache/index/object-name.ts';
import type { Clock } from '../../../cache/clock.ts';
import { ignoreListenerError, Listeners } from '../../../cache/index/observers.ts';
import { ExpiringMap } from '../../base/expiring-map.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import {
  malformed,
  outcomeOfFailure,
  type Forbidden,
  type Unavailable,
} from '../api/call-outcome.ts';
import { KubeError } from '../api/kube-error.ts';
import type { JsonReader } from '../api/list-pages.ts';
import { serviceAccountPath } from './service-account-path.ts';
import { SharedCalls } from '../../base/single-flight.ts';

/** Trimmed; empty when absent. */
export interface WorkloadIdentityAnnotations {
  readonly clientId: string;
  readonly tenantId: string;
}

export type KnownServiceAccount = WorkloadIdentityAnnotations | 'missing';

export type ServiceAccountRead =
  { readonly kind: 'known'; readonly account: KnownServiceAccount } | Forbidden | Unavailable;

export interface ServiceAccounts {
  /** Grows with every change of what `peek` says, except by age or for want of room. */
  readonly generation: number;
  readonly size: number;
  /** What is known, without waiting; `undefined` when nothing is. */
  peek(namespace: string, name: string): KnownServiceAccount | undefined;
  /**
   * The same, but only what was read in the last two `keepMs`, or could not be read anew since.
   * After `undefined` a read is under way, and `onChange` fires when it has ended well.
   */
  peekFresh(namespace: string, name: string): KnownServiceAccount | undefined;
  /** What is known, read anew when it is old. Rejects only with the signal's reason. */
  read(namespace: string, name: string, signal?: AbortSignal): Promise<ServiceAccountRead>;
  /** Calls `listener` after each change of `generation`; the returned function unsubscribes. */
  onChange(listener: () => void): () => void;
}

export interface ServiceAccountsOptions {
  readonly client: JsonReader;
  readonly clock: Clock;
  readonly keepMs?: number;
  readonly max?: number;
  readonly timeoutMs?: number;
  readonly onListenerError?: (error: unknown) => void;
}

const emptyKeepMs = 5_000;
/** Before a failed read is tried again: while something is known, and while nothing is. */
const [retryMs, firstRetryMs] = [5_000, 1_000];
const maxRetryAfterMs = 60_000;

class Entry {
  known: KnownServiceAccount | undefined = undefined;
  /** Monotonic milliseconds of the last success. */
  readAtMs = -Infinity;
  failure: Forbidden | Unavailable | undefined = undefined;
  nextReadAtMs = -Infinity;
  /** Somebody was told that it is being read. */
  isAwaited = false;
}

export function createServiceAccounts(options: ServiceAccountsOptions): ServiceAccounts {
  const { client, clock, keepMs = 60_000, max = 1024 } = options;
  const { timeoutMs = 5_000, onListenerError = ignoreListenerError } = options;
  const entries = new ExpiringMap<Entry>(clock, max);
  const calls = new SharedCalls<ServiceAccountRead>();
  const listeners = new Listeners(onListenerError);
  let generation = 0;

  function entryOf(key: string): Entry {
    const present = entries.get(key);
    if (present !== undefined) return present;
    const entry = new Entry();
    entries.set(key, entry);
    return entry;
  }

  function learn(key: string, outcome: ServiceAccountRead): void {
    const entry = entryOf(key);
    const nowMs = clock.monotonicMs();
    if (outcome.kind !== 'known') {
      const leastMs = entry.known === undefined ? firstRetryMs : retryMs;
      const askedMs = outcome.kind === 'unavailable' ? (outcome.retryAfterMs ?? 0) : 0;
      entry.failure = outcome;
      entry.nextReadAtMs = nowMs + Math.max(leastMs, Math.min(askedMs, maxRetryAfterMs));
      return;
    }
    const before = entry.known;
    const isEmpty = outcome.account === 'missing' || outcome.account.clientId === '';
    entry.known = outcome.account;
    entry.readAtMs = nowMs;
    entry.failure = undefined;
    entry.nextReadAtMs = nowMs + (isEmpty ? Math.min(emptyKeepMs, keepMs) : keepMs);
    const { isAwaited } = entry;
    entry.isAwaited = false;
    const isOther = !isSame(before, outcome.account);
    if (isOther) generation++;
    if (isOther || isAwaited) listeners.notify();
  }

  async function readNow(key: string, path: string): Promise<ServiceAccountRead> {
    const outcome = await fetchAccount(client, path, timeoutMs);
    learn(key, outcome);
    return outcome;
  }

  return {
    get generation() {
      return generation;
    },
    get size() {
      return entries.size;
    },
    peek(namespace, name) {
      const key = objectKey(namespace, name);
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      const isOld = clock.monotonicMs() >= entry.nextReadAtMs;
      const path = isOld ? serviceAccountPath({ namespace, name }) : undefined;
      if (path !== undefined) void calls.share(key, () => readNow(key, path));
      return entry.known;
    },
    peekFresh(namespace, name) {
      const known = this.peek(namespace, name);
      const entry = entries.get(objectKey(namespace, name));
      if (known === undefined || entry === undefined) return undefined;
      const isOld = clock.monotonicMs() - entry.readAtMs > 2 * keepMs;
      if (!isOld || entry.failure !== undefined) return known;
      entry.isAwaited = true;
      return undefined;
    },
    async read(namespace, name, signal) {
      const path = serviceAccountPath({ namespace, name });
      if (path === undefined) return { kind: 'known', account: 'missing' };
      const key = objectKey(namespace, name);
      const entry = entries.get(key);
      if (entry !== undefined && clock.monotonicMs() < entry.nextReadAtMs) {
        if (entry.known !== undefined) return { kind: 'known', account: entry.known };
        if (entry.failure !== undefined) return entry.failure;
      }
      const outcome = await calls.share(key, () => readNow(key, path), signal);
      if (outcome.kind === 'known') return outcome;
      const account = entries.get(key)?.known;
      return account === undefined ? outcome : { kind: 'known', account };
    },
    onChange: (listener) => listeners.add(listener),
  };
}

async function fetchAccount(
  client: JsonReader,
  path: string,
  timeoutMs: number,
): Promise<ServiceAccountRead> {
  try {
    const metadata = asRecord(asRecord(await client.getJson(path, { timeoutMs }))?.['metadata']);
    if (metadata === undefined) return malformed;
    const annotations = asRecord(metadata['annotations']);
    const textOf = (name: string): string =>
      stringAt(annotations, `azure.workload.identity/${name}`).trim();
    return {
      kind: 'known',
      account: { clientId: textOf('client-id'), tenantId: textOf('tenant-id') },
    };
  } catch (error) {
    const isMissing = error instanceof KubeError && error.code === 'NOT_FOUND';
    return isMissing ? { kind: 'known', account: 'missing' } : outcomeOfFailure(error);
  }
}

function isSame(before: KnownServiceAccount | undefined, now: KnownServiceAccount): boolean {
  if (before === undefined || before === 'missing' || now === 'missing') return before === now;
  return before.clientId === now.clientId && before.tenantId === now.tenantId;
}
