/** Wires the token path: the sources, the cache in front of them, and its eviction. */
import type { Clock } from '../../base/time/clock.ts';
import { userAgent } from '../base/build-info.ts';
import type { Logger } from '../../base/logger.ts';
import type { Part } from '../base/part.ts';
import type { Config } from '../config/config.ts';
import type { Tuning } from '../config/tuning.ts';
import { IdentitiesInUse, type DemandState } from '../grants/identities-in-use.ts';
import { createSecretReader } from '../kube/accounts/secrets.ts';
import type { KubeClient } from '../kube/api/client.ts';
import { NodeImpersonation } from '../kube/api/node-impersonation.ts';
import { readEntraCa } from '../sources/entra/ca-file.ts';
import { secretOf, type EntraCredential } from '../sources/entra/credentials/kinds.ts';
import { openEntraUpstream } from '../sources/entra/entra.ts';
import { openImdsSource } from '../sources/imds/imds.ts';
import type { LoopDetection } from '../sources/imds/loop-detection.ts';
import { TokenBroker, type UpstreamBudget, type UpstreamObserver } from './broker.ts';
import { CertificateExpiries } from './certificate-expiries.ts';
import { evictDeletedSecrets } from './evict-deleted-secrets.ts';

/** As many as requests may wait for: each is small, and the limits per pod apply long before. */
const maxQueued = 5_000;

/** IMDS answers at most 5 identity requests at once and 20 a second, for the node as a whole. */
const imdsBudget: UpstreamBudget = { maxConcurrent: 4, maxPerSec: 20, maxQueued };

/** Entra ID names no limit per client; a starting node requests all its identities at once. */
const entraBudget: UpstreamBudget = { maxConcurrent: 8, maxPerSec: 40, maxQueued };

export interface TokensOptions {
  readonly config: Config;
  readonly tuning: Tuning;
  readonly client: KubeClient;
  readonly clusterState: DemandState;
  readonly observer: UpstreamObserver;
  /** Marks the agent's own requests to IMDS. */
  readonly loopDetection: LoopDetection;
  readonly clock: Clock;
  readonly log: Logger;
  /** Where the proxy variables are looked up. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface Tokens extends Required<Pick<Part, 'samples'>>, AsyncDisposable {
  readonly broker: TokenBroker;
}

/** @throws StartError `CONFIG` for a certificate file or proxy that cannot be used. */
export async function openTokens(options: TokensOptions): Promise<Tokens> {
  const { config, tuning, client, clock, observer } = options;
  const caPem = await readEntraCa(config.entraCaFile);
  await using opening = new AsyncDisposableStack();
  const demand = new IdentitiesInUse(options.clusterState);
  const names = new NodeImpersonation({
    node: config.node,
    purpose: 'tokens',
    log: options.log.child({ component: 'kube' }),
  });
  const certificates = new CertificateExpiries<EntraCredential>((credential) =>
    demand.isCredentialNeeded(credential),
  );
  const entra = opening.use(
    openEntraUpstream({
      timeoutMs: tuning.entraTimeoutMs,
      userAgent: userAgent(config.customUserAgent),
      client,
      clusterId: config.aksClusterId,
      tokenClient: client.as(names),
      pods: options.clusterState.pods,
      demand,
      onCertificate: (credential, atMs) =>
        certificates.note(credential, secretOf(credential), atMs),
      clock,
      environment: options.environment,
      caPem,
    }),
  );
  const imds = opening.use(
    openImdsSource({
      endpoint: `http://${config.metadataIp}:${config.metadataPort}`,
      userAgent: userAgent(config.customUserAgent),
      timeoutMs: tuning.imdsTimeoutMs,
      clock,
    }),
  );
  const broker = opening.use(
    new TokenBroker({
      imds: { source: imds, budget: imdsBudget },
      entra: { source: entra, budget: entraBudget },
      demand,
      clock,
      observer,
      nextImdsFetchId: () => options.loopDetection.next(),
      random: Math.random,
      maxEntries: tuning.tokenCacheSize,
      breakMs: tuning.identityBreakMs,
      waitMs: Math.max(tuning.imdsTimeoutMs, tuning.entraTimeoutMs) + 500,
    }),
  );
  opening.use(
    evictDeletedSecrets({
      broker,
      reader: createSecretReader(client),
      clock,
      log: options.log.child({ component: 'token' }),
    }),
  );
  const opened = opening.move();
  return {
    broker,
    samples: () => [...broker.samples(), ...certificates.samples(), ...names.samples()],
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
