/**
 * Caches credentials that are made from a Secret for a short time: the tokens of many resources are
 * often requested at once, and one read serves them all. Unusable credentials are cached too, for
 * the cooldown of their failure, so that a broken Secret costs one read and not one for every
 * resource.
 *
 * A client credential depends on its Secret only, so identities that name the same Secret share it;
 * when no identity needs it any more, it is dropped at once.
 */
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import type { Clock } from '../../../../base/time/clock.ts';
import { ExpiringMap } from '../../../../base/expiring-map.ts';
import { SingleFlight } from '../../../../base/single-flight.ts';
import type { SecretReader, SecretResult } from '../../../kube/accounts/secrets.ts';
import type { SourceFailure } from '../../source.ts';
import type { ClientCredential, CredentialProvider, ClientCredentialResult } from './descriptor.ts';

export interface CredentialCacheOptions {
  readonly reader: Pick<SecretReader, 'read'>;
  readonly clock: Clock;
  /** Most cached Secrets, with LRU eviction. Default 1000. */
  readonly maxKept?: number;
  /** Called with the expiry of a certificate that was read; milliseconds since the epoch. */
  readonly onCertificate?: (secret: ObjectName, expiresAtWallMs: number) => void;
  /** Whether any identity uses the Secret now. Default: always. */
  readonly isNeeded?: (secret: ObjectName) => boolean;
}

/** Makes a credential from the entries of a Secret. Must not reject. */
export type MakeCredential = (
  secret: ObjectName,
  data: ReadonlyMap<string, Buffer>,
) => ClientCredentialResult | Promise<ClientCredentialResult>;

export type SecretCredentials = CredentialProvider<{ readonly secret: ObjectName }>;

/** A client credential is used so long before its Secret is read again. */
const keepMs = 60_000;
/** Cooldown of the failure for an unusable Secret. */
const invalidCooldownMs = 5_000;
const unavailableCooldownMs = 1_000;

interface Kept {
  readonly secret: ObjectName;
  readonly result: ClientCredentialResult;
}

export function openCredentialCache(
  makeCredential: MakeCredential,
  { reader, clock, maxKept = 1_000, isNeeded = () => true }: CredentialCacheOptions,
): SecretCredentials {
  const kept = new ExpiringMap<Kept>(clock, maxKept);
  const reading = new SingleFlight<ClientCredentialResult>();
  /**
   * Credentials that a fetch got from the cache: the Secret may have changed since they were read.
   */
  const reused = new WeakSet<ClientCredential>();

  async function read(key: string, secret: ObjectName): Promise<ClientCredentialResult> {
    const found = await reader.read(secret);
    const result =
      found.kind === 'found' ? await makeCredential(secret, found.data) : unusable(found);
    const cooldownMs = result.ok ? keepMs : Math.min(keepMs, result.failure.cooldownMs);
    if (isNeeded(secret)) kept.set(key, { secret, result }, cooldownMs);
    return result;
  }

  return {
    async get({ secret }, signal) {
      signal.throwIfAborted();
      const key = objectKey(secret.namespace, secret.name);
      const entry = kept.get(key);
      if (entry !== undefined) {
        if (entry.result.ok) reused.add(entry.result.clientCredential);
        return entry.result;
      }
      return reading.share(key, () => read(key, secret), signal);
    },
    forget({ secret }, refused) {
      const key = objectKey(secret.namespace, secret.name);
      const result = kept.get(key)?.result;
      const isKept = result?.ok === true && result.clientCredential === refused;
      if (isKept) kept.delete(key);
      const hasNewer = reading.has(key) || (result !== undefined && !isKept);
      // A credential that was read for this very attempt is the newest.
      return hasNewer || reused.has(refused);
    },
    dropUnneeded() {
      kept.deleteWhere(({ secret }) => !isNeeded(secret));
    },
    [Symbol.dispose]() {
      kept[Symbol.dispose]();
    },
  };
}

/** A credential that exists but cannot be used. */
export function invalidCredential(description: string): ClientCredentialResult {
  return failed({ reason: 'credential_invalid', description, cooldownMs: invalidCooldownMs });
}

/** A credential that may be usable later. */
export function unavailableCredential(
  description: string,
  retryAfterMs?: number,
): ClientCredentialResult {
  return failed({
    reason: 'upstream_down',
    description,
    cooldownMs: unavailableCooldownMs,
    ...(retryAfterMs === undefined ? {} : { retryAfterS: Math.ceil(retryAfterMs / 1000) }),
  });
}

function unusable(result: Exclude<SecretResult, { kind: 'found' }>): ClientCredentialResult {
  switch (result.kind) {
    case 'missing':
      return failed({
        reason: 'credential_missing',
        description: result.problem,
        cooldownMs: invalidCooldownMs,
      });
    case 'misnamed':
    case 'forbidden':
      return invalidCredential(result.problem);
    case 'unavailable':
      return unavailableCredential(result.problem, result.retryAfterMs);
  }
}

function failed(failure: SourceFailure): ClientCredentialResult {
  return { ok: false, failure };
}
