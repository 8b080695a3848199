/**
 * Status conditions on `AzureIdentity` and `AzureIdentityBinding`, so that `kubectl get`, `kubectl
 * wait` and GitOps tools show how the agents evaluate them. One agent of the cluster, elected by a
 * Lease, watches both kinds with their status and writes. A failed write costs no pod a token.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../cache/clock.ts';
import type { Logger } from '../base/logger.ts';
import type { Part, Sample } from '../base/part.ts';
import { startPeriodicJob } from '../base/periodic-job.ts';
import type { GrantState } from '../grants/authorize.ts';
import { createOwnAccount } from '../kube/accounts/own-account.ts';
import { createSecretReader } from '../kube/accounts/secrets.ts';
import { backoffMs } from '../kube/api/backoff.ts';
import type { KubeClient } from '../kube/api/client.ts';
import { LeaderElection, type ElectionTiming } from '../kube/lease/leader-election.ts';
import { parseBinding, parseIdentity } from '../kube/watch/parse.ts';
import { openReflector } from '../kube/watch/reflector.ts';
import { ConditionWriter, type WriteCounts } from './condition-writer.ts';
import { observing } from './observed.ts';
import { ObservedObjects } from './observed-objects.ts';
import { groupPath, kinds, StatusSupport } from './status-support.ts';

/** Name of the Lease in the agent's namespace; the manifests' role names it. */
export const leaseName = 'entra-pod-identity-conditions';

export interface ConditionsOptions {
  readonly client: KubeClient;
  readonly clusterState: Pick<GrantState, 'upstreams' | 'owners' | 'isSynced'>;
  /** Name of this node, for the Lease. */
  readonly node: string;
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly log: Logger;
  readonly timing?: Partial<ElectionTiming>;
}

const syncPollMs = 1_000;
const accountBackoff = { baseMs: 1_000, capMs: 300_000 } as const;

/** Begins when the watches of the agent have synced. */
export class Conditions implements Part, AsyncDisposable {
  readonly #options: ConditionsOptions;
  readonly #counts: WriteCounts = {
    written: 0,
    conflict: 0,
    deleted: 0,
    rejected: 0,
    forbidden: 0,
    failed: 0,
  };
  readonly #support: StatusSupport;
  readonly #start: Disposable;
  readonly #ended = new AbortController();
  #starting: Promise<unknown> = Promise.resolve();
  #election: LeaderElection | undefined;
  #failures = 0;

  constructor(options: ConditionsOptions) {
    this.#options = options;
    this.#support = new StatusSupport(options.log);
    const account = createOwnAccount(options);
    this.#start = startPeriodicJob(options.clock, 0, () => {
      if (!options.clusterState.isSynced()) return syncPollMs;
      const starting = this.#findNamespace(account);
      this.#starting = starting;
      return starting;
    });
  }

  samples(): readonly Sample[] {
    // An agent that takes no part in the election reports nothing about the Lease holder.
    if (this.#election === undefined) return [];
    return [
      { metric: 'nmi_conditions_leader', value: this.#election.isLeader ? 1 : 0 },
      ...Object.entries(this.#counts).map(([outcome, value]): Sample => {
        return { metric: 'nmi_conditions_writes_total', labels: { outcome }, value };
      }),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    this.#start[Symbol.dispose]();
    await this.#starting;
    await this.#election?.[Symbol.asyncDispose]();
  }

  /** The Lease is in the agent's own namespace. Returns when to try again. */
  async #findNamespace(account: ReturnType<typeof createOwnAccount>): Promise<number | undefined> {
    const { log, random } = this.#options;
    const { signal } = this.#ended;
    const outcome = await account.get(signal).catch(() => undefined);
    if (outcome === undefined || signal.aborted) return undefined;
    if (outcome.kind === 'ok') {
      this.#elect(outcome.serviceAccount.namespace);
      return undefined;
    }
    if (outcome.kind === 'no_service_account') {
      log.info({}, 'status conditions are off: the agent has no service account');
      return undefined;
    }
    this.#failures += 1;
    return backoffMs(accountBackoff, this.#failures, random());
  }

  #elect(namespace: string): void {
    const { client, node, clock, random, log, timing } = this.#options;
    const election = new LeaderElection({
      client,
      namespace,
      clock,
      random,
      log,
      name: leaseName,
      identity: `${node}_${randomUUID()}`,
      lead: () => this.#lead(() => election.isLeader),
      timing: timing ?? {},
    });
    this.#election = election;
  }

  #lead(isLeader: () => boolean): AsyncDisposable {
    const { client, clusterState, clock, random, log } = this.#options;
    const { upstreams, owners } = clusterState;
    const leading = new AsyncDisposableStack();
    const objects = new ObservedObjects();
    const parts = { client, clock, random, log };
    const identities = leading.use(
      openReflector({
        ...parts,
        name: 'identity conditions',
        path: `${groupPath}/${kinds.identity.plural}`,
        parse: observing(parseIdentity),
        store: objects.identities,
      }),
    );
    const bindings = leading.use(
      openReflector({
        ...parts,
        name: 'binding conditions',
        path: `${groupPath}/${kinds.binding.plural}`,
        parse: observing(parseBinding),
        store: objects.bindings,
      }),
    );
    if (owners.mode === 'enforce') {
      leading.defer(owners.onChange(() => objects.touchOwners()));
    }
    leading.use(
      new ConditionWriter({
        ...parts,
        secrets: createSecretReader(client),
        objects,
        rules: { upstreams, owners },
        support: this.#support,
        isSynced: () => identities.synced && bindings.synced && clusterState.isSynced(),
        isLeader,
        counts: this.#counts,
      }),
    );
    return leading;
  }
}
