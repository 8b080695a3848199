/** Client credentials in memory: loaded once for all waiters, dropped when not needed. */
import type { Clock } from '../../../../base/time/clock.ts';
import { ExpiringMap } from '../../../../base/expiring-map.ts';
import { SingleFlight } from '../../../../base/single-flight.ts';
import type {
  ClientCredential,
  ClientCredentialResult,
  CredentialLoader,
  CredentialProvider,
} from './descriptor.ts';

export interface CredentialCacheOptions<C> extends CredentialLoader<C> {
  readonly isNeeded: (credential: C) => boolean;
  readonly clock: Clock;
  readonly maxKept: number;
}

export interface CredentialCache<C> extends CredentialProvider<C> {
  readonly kept: number;
}

interface Kept<C> {
  readonly key: string;
  readonly credential: C;
  readonly result: ClientCredentialResult;
  readonly usableUntilWallMs: number;
}

export function openCredentialCache<C>(options: CredentialCacheOptions<C>): CredentialCache<C> {
  const { isNeeded, clock, maxKept } = options;
  const keyOf = (credential: C): string => options.keyOf(credential);
  const kept = new ExpiringMap<Kept<C>>(clock, maxKept);
  const loading = new SingleFlight<ClientCredentialResult>();
  /** Credentials that a fetch got from the cache: there may be a newer one since. */
  const reused = new WeakSet<ClientCredential>();

  function mayBeKept({ key, credential }: Pick<Kept<C>, 'key' | 'credential'>): boolean {
    return keyOf(credential) === key && isNeeded(credential);
  }

  function dropUnneeded(): void {
    kept.deleteWhere((entry) => !mayBeKept(entry));
  }

  async function read(key: string, credential: C): Promise<ClientCredentialResult> {
    dropUnneeded();
    const { result, keepMs, usableUntilWallMs = Infinity } = await options.load(credential);
    const entry = { key, credential, result, usableUntilWallMs };
    const isUsable = clock.wallMs() < usableUntilWallMs;
    if (isUsable && mayBeKept(entry)) kept.set(key, entry, keepMs);
    return result;
  }

  return {
    async get(credential, signal) {
      signal.throwIfAborted();
      const key = keyOf(credential);
      const entry = kept.get(key);
      if (entry === undefined || clock.wallMs() >= entry.usableUntilWallMs) {
        return loading.share(key, () => read(key, credential), signal);
      }
      if (entry.result.ok) reused.add(entry.result.clientCredential);
      return entry.result;
    },
    forget(credential, refused) {
      const key = keyOf(credential);
      const result = kept.get(key)?.result;
      const isKept = result?.ok === true && result.clientCredential === refused;
      if (isKept) kept.delete(key);
      const hasNewer = loading.has(key) || (result !== undefined && !isKept);
      // A credential that was loaded for this very attempt is the newest.
      return hasNewer || reused.has(refused);
    },
    get kept() {
      return kept.size;
    },
    dropUnneeded,
    [Symbol.dispose]() {
      kept[Symbol.dispose]();
    },
  };
}
