/**
 * Tokens of applications and federated identities, from Entra ID. The client credential depends on
 * the kind of credential; the exchange is the same for all.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../base/time/clock.ts';
import { openDeadline, untilAborted } from '../../../base/time/deadline.ts';
import { networkCode } from '../../../base/network-code.ts';
import type {
  MayRetry,
  SourceFailure,
  SourceResult,
  TokenRequest,
  TokenSource,
} from '../source.ts';
import { entraDown } from './aadsts.ts';
import type { EntraIdentity } from './entra-identity.ts';
import { createExchange, type Exchange } from './token-exchange.ts';
import { openEntraNetwork, type EntraNetworkOptions } from './network.ts';
import type { CredentialProvider } from './credentials/descriptor.ts';
import type { EntraCredential } from './credentials/kinds.ts';

interface Composition {
  readonly clientCredentials: Pick<CredentialProvider<EntraCredential>, 'get' | 'forget'>;
  /**
   * For one fetch: client credential, exchange, and a second pass of both after a refused
   * credential.
   */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

export interface EntraSourceOptions extends Composition, EntraNetworkOptions {}

export interface EntraSource extends TokenSource<EntraIdentity>, AsyncDisposable {}

/** Opens no connection yet. @throws StartError `CONFIG` for a proxy that cannot be used. */
export function openEntraSource(options: EntraSourceOptions): EntraSource {
  const network = openEntraNetwork(options);
  const exchange = createExchange({ network, clock: options.clock });
  return {
    ...createEntraSource({ ...options, exchange }),
    [Symbol.asyncDispose]: () => network[Symbol.asyncDispose](),
  };
}

/** The source without its network. */
export function createEntraSource(
  options: Composition & { readonly exchange: Exchange },
): TokenSource<EntraIdentity> {
  return {
    async fetch(request, mayRetry) {
      using deadline = openDeadline(options.clock, options.timeoutMs);
      const { signal } = deadline;
      try {
        return await untilAborted(signal, fetchToken(request, mayRetry, signal, options));
      } catch (error) {
        return failed(deadline.passed ? late(options) : broken(error));
      }
    },
  };
}

/**
 * 1. A failure of the provider ends the fetch.
 * 2. A refused credential is dropped. If the provider had cached it, the next one may differ: the
 *    secret was rotated, or the assertion expired (700024). Then the fetch is tried once more; if
 *    the budget does not allow that, the caller's next request tries it.
 */
async function fetchToken(
  { identity, resource, correlationId = randomUUID() }: TokenRequest<EntraIdentity>,
  mayRetry: MayRetry,
  signal: AbortSignal,
  { clientCredentials, exchange }: Composition & { readonly exchange: Exchange },
): Promise<SourceResult> {
  const { credential } = identity;
  const got = await clientCredentials.get(credential, signal);
  if (!got.ok) return got;
  const result = await exchange(
    { identity, resource, correlationId, clientCredential: got.clientCredential },
    signal,
  );
  if (result.ok || result.failure.reason !== 'credential_refused') return result;
  if (!clientCredentials.forget(credential, got.clientCredential)) return result;
  if (!mayRetry()) return failed(untried);
  const next = await clientCredentials.get(credential, signal);
  return next.ok
    ? exchange(
        { identity, resource, correlationId, clientCredential: next.clientCredential },
        signal,
      )
    : next;
}

const untried: SourceFailure = {
  reason: 'upstream_throttled',
  description: 'Entra ID refused a credential that may have been replaced since. Retry.',
  retryAfterS: 1,
  cooldownMs: 0,
};

function late({ timeoutMs }: Composition): SourceFailure {
  return entraDown(`there is no token of Entra ID after ${timeoutMs} ms`, 1_000);
}

/** Only for unexpected errors. Messages may contain secrets, so only the name is reported. */
function broken(error: unknown): SourceFailure {
  return entraDown(`Entra ID is unreachable (${networkCode(error)})`, 1_000);
}

function failed(failure: SourceFailure): SourceResult {
  return { ok: false, failure };
}
