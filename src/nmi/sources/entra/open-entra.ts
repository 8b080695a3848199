/**
 * Sets up the tokens of Entra ID itself: the provider of each kind of credential, and the exchange.
 * No connection is opened, and no library for it loaded, before the first such token is requested.
 */
import type { Clock } from '../../../base/time/clock.ts';
import type { PodIndex } from '../../../cache/index/pod-index.ts';
import { debounce } from '../../../base/time/debounce.ts';
import type { KubeClient } from '../../kube/api/client.ts';
import { openCredentials, type EntraCredential } from './credentials/kinds.ts';
import { openEntraSource, type EntraSource } from './entra.ts';
import { livePodOf } from './live-pod.ts';

/** Which client credentials are still needed in memory. */
export interface CredentialDemand {
  isCredentialNeeded(credential: EntraCredential): boolean;
  /**
   * Calls `listener` when the need, or a pod, may have changed; the returned function unsubscribes.
   */
  onChange(listener: () => void): () => void;
}

export interface EntraUpstreamOptions {
  /** For one token, including reading its credential. */
  readonly timeoutMs: number;
  readonly userAgent: string;
  /** PEM of authorities to trust beside the built-in ones. */
  readonly caPem: string | undefined;
  readonly client: KubeClient;
  readonly pods: PodIndex;
  readonly demand: CredentialDemand;
  /**
   * Called each time the certificate of a credential was read; its expiry is in milliseconds since
   * the epoch.
   */
  readonly onCertificate: (credential: EntraCredential, expiresAtWallMs: number) => void;
  readonly clock: Clock;
  /** Where the proxy variables are looked up. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** @throws StartError `CONFIG` for a proxy that cannot be used. */
export function openEntraUpstream(options: EntraUpstreamOptions): EntraSource {
  const { client, pods, demand, clock } = options;
  using opening = new DisposableStack();
  const clientCredentials = opening.use(
    openCredentials({
      client,
      clock,
      livePodOf: (account) => livePodOf(pods.all(), account),
      onCertificate: options.onCertificate,
      isNeeded: (credential) => demand.isCredentialNeeded(credential),
    }),
  );
  // Objects come in bursts.
  const dropUnneeded = opening.use(debounce(clock, 0, () => clientCredentials.dropUnneeded()));
  opening.defer(demand.onChange(() => dropUnneeded.trigger()));
  const source = openEntraSource({ ...options, clientCredentials });
  const owned = opening.move();
  return {
    fetch: (request, mayRetry) => source.fetch(request, mayRetry),
    [Symbol.asyncDispose]: async () => {
      owned.dispose();
      await source[Symbol.asyncDispose]();
    },
  };
}
