/**
 * Drops the tokens that were obtained with a deleted Secret. Secrets are not watched (the agent may
 * read single ones, not list them), so those behind the tokens in memory are checked every minute,
 * by name only. Only a response of the API server that there is none counts: an outage drops no
 * token.
 */
import type { Clock } from '../../base/time/clock.ts';
import { titleOf, type SecretReader } from '../kube/accounts/secrets.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import type { TokenBroker } from './broker.ts';

export interface EvictDeletedSecretsOptions {
  readonly broker: Pick<TokenBroker, 'secretsInUse' | 'dropTokensBySecret'>;
  readonly reader: Pick<SecretReader, 'check'>;
  readonly clock: Clock;
  readonly log: Log;
}

const intervalMs = 60_000;

/** Checks one Secret after the other, until disposed. */
export function evictDeletedSecrets(options: EvictDeletedSecretsOptions): Disposable {
  const { broker, reader, clock, log } = options;
  let isDisposed = false;
  const check = async (): Promise<number | undefined> => {
    for (const secret of broker.secretsInUse()) {
      const { kind } = await reader.check(secret);
      if (isDisposed) return undefined;
      if (kind !== 'missing') continue;
      broker.dropTokensBySecret(secret);
      log.info({ object: titleOf(secret) }, 'secret deleted, cached tokens dropped');
    }
    return intervalMs;
  };
  const job = startPeriodicJob(clock, intervalMs, check);
  return {
    [Symbol.dispose]: () => {
      isDisposed = true;
      job[Symbol.dispose]();
    },
  };
}
