/** Tokens of applications and federated identities, from Entra ID. */
import type { Clock } from '../../../base/time/clock.ts';
import type { PodIndex } from '../../../cache/index/pod-index.ts';
import { debounce } from '../../../base/time/debounce.ts';
import type { JsonPoster } from '../../kube/accounts/token-request.ts';
import type { KubeClient } from '../../kube/api/client.ts';
import { openDeadline, untilAborted } from '../../../base/time/deadline.ts';
import { networkCode } from '../../../base/network-code.ts';
import { failed } from '../source.ts';
import type {
  MayRetry,
  SourceFailure,
  SourceResult,
  TokenRequest,
  TokenSource,
} from '../source.ts';
import { entraDown } from './aadsts.ts';
import { hostOf, type EntraIdentity } from './entra-identity.ts';
import { createExchange, type Exchange } from './token-exchange.ts';
import { openBindingNetwork } from './identity-binding.ts';
import { openEntraNetwork, type EntraNetworkOptions } from './network.ts';
import type { ClientCredential, CredentialProvider } from './credentials/descriptor.ts';
import { kindOf, openCredentials, type EntraCredential } from './credentials/kinds.ts';
import { livePodOf } from './live-pod.ts';

/** Which client credentials are still needed in memory. */
export interface CredentialDemand {
  isCredentialNeeded(credential: EntraCredential): boolean;
  /** Calls `listener` when the need, or a pod, may have changed. @returns how to unsubscribe. */
  onChange(listener: () => void): () => void;
}

export interface EntraUpstreamOptions extends EntraNetworkOptions {
  readonly client: KubeClient;
  /** Of AKS, for identity bindings; empty: it is in the certificate of the API server. */
  readonly clusterId: string;
  readonly tokenClient: JsonPoster;
  readonly pods: PodIndex;
  readonly demand: CredentialDemand;
  /** Called each time the certificate of a credential was read. */
  readonly onCertificate: (credential: EntraCredential, expiresAtWallMs: number) => void;
}

/** Opens no connection before the first request. @throws StartError `CONFIG` */
export function openEntraUpstream(
  options: EntraUpstreamOptions,
): TokenSource<EntraIdentity> & AsyncDisposable {
  const { client, tokenClient, pods, demand, clock, onCertificate } = options;
  using opening = new DisposableStack();
  const clientCredentials = opening.use(
    openCredentials({
      client,
      tokenClient,
      clock,
      livePodOf: (account) => livePodOf(pods.all(), account),
      onCertificate,
      isNeeded: (credential) => demand.isCredentialNeeded(credential),
    }),
  );
  // Objects come in bursts.
  const dropUnneeded = opening.use(debounce(clock, 0, () => clientCredentials.dropUnneeded()));
  opening.defer(demand.onChange(() => dropUnneeded.trigger()));
  const network = openEntraNetwork(options);
  const bindings = openBindingNetwork(options);
  const atEntra = createExchange({ network, clock });
  const atCluster = createExchange({ network: bindings, clock });
  const exchange: Exchange = (request, signal) =>
    (kindOf(request.identity.credential).isExchangedByCluster ? atCluster : atEntra)(
      request,
      signal,
    );
  const owned = opening.move();
  return {
    ...createEntraSource({ ...options, clientCredentials, exchange }),
    async [Symbol.asyncDispose]() {
      owned.dispose();
      await Promise.all([network, bindings].map((each) => each[Symbol.asyncDispose]()));
    },
  };
}

interface Composition {
  readonly clientCredentials: Pick<CredentialProvider<EntraCredential>, 'get' | 'forget'>;
  readonly exchange: Exchange;
  /** For one fetch, with a second pass after a refused credential. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** The source without its network. */
export function createEntraSource(options: Composition): TokenSource<EntraIdentity> {
  return {
    async fetch(request, mayRetry) {
      using deadline = openDeadline(options.clock, options.timeoutMs);
      const { signal } = deadline;
      try {
        return await untilAborted(signal, fetchToken(request, mayRetry, signal, options));
      } catch (error) {
        // Messages of unexpected errors may contain secrets, so only the name is reported.
        const { authority, credential } = request.identity;
        const isOfCluster = kindOf(credential).isExchangedByCluster === true;
        const at = isOfCluster ? 'the API server' : `Entra ID (${hostOf(authority)})`;
        const problem = deadline.passed
          ? `no token of ${at} came within ${options.timeoutMs} ms, as behind a firewall`
          : `${at} is unreachable (${networkCode(error)})`;
        return failed(entraDown(problem, 1_000));
      }
    },
  };
}

/**
 * A refused credential is dropped. If the provider had cached it, the next one may differ: the
 * secret was rotated, or the assertion expired (700024). Then the fetch is tried once more; if the
 * budget does not allow that, the caller's next request tries it.
 */
async function fetchToken(
  { identity, resource, correlationId, assertion }: TokenRequest<EntraIdentity>,
  mayRetry: MayRetry,
  signal: AbortSignal,
  { clientCredentials, exchange }: Composition,
): Promise<SourceResult> {
  const { credential } = identity;
  const got =
    assertion === undefined
      ? await clientCredentials.get(credential, signal)
      : ({ ok: true, clientCredential: { clientAssertion: assertion } } as const);
  if (!got.ok) return got;
  const send = (clientCredential: ClientCredential): Promise<SourceResult> =>
    exchange({ identity, resource, correlationId, clientCredential }, signal);
  const result = await send(got.clientCredential);
  if (result.ok || result.failure.reason !== 'credential_refused') return result;
  if (assertion !== undefined) return result;
  if (!clientCredentials.forget(credential, got.clientCredential)) return result;
  if (!mayRetry()) return failed(untried);
  const next = await clientCredentials.get(credential, signal);
  return next.ok ? send(next.clientCredential) : next;
}

const untried: SourceFailure = {
  reason: 'upstream_throttled',
  description: 'Entra ID refused a credential that may have been replaced since. Retry.',
  retryAfterS: 1,
  cooldownMs: 0,
};
