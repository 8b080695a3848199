/** The parts of a node's agent that write status conditions, with the permissions of the manifests. */
import type { Clock } from '../../../src/cache/clock.ts';
import { createLogger } from '../../../src/nmi/base/logger.ts';
import { Conditions } from '../../../src/nmi/conditions/conditions.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { openKubeClient } from '../../../src/nmi/kube/api/client.ts';
import type { ElectionTiming } from '../../../src/nmi/kube/lease/leader-election.ts';
import { createOwners } from '../../support/owners.ts';
import type { Cluster } from './cluster.ts';

export interface ConditionsAgent extends AsyncDisposable {
  readonly node: string;
  /** Its log. */
  readonly lines: readonly string[];
  isLeader(): boolean;
  /** Number of writes by outcome. */
  writes(): Readonly<Record<string, number>>;
  /** Ends its connections and leaves the state of a killed agent. */
  cut(): PromiseLike<void>;
}

const account = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const timing: ElectionTiming = {
  durationMs: 3_000,
  deadlineMs: 2_000,
  renewMs: 500,
  pollMs: 1_000,
  firstMs: 10,
};

export async function openConditionsAgent(
  cluster: Cluster,
  node: string,
  clock: Clock,
): Promise<ConditionsAgent> {
  await using opening = new AsyncDisposableStack();
  const { kubeconfigPath } = await cluster.createServiceAccountClient(account);
  const client = opening.use(
    await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1', clock }),
  );
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const { owners } = createOwners('warn');
  const authority = 'https://login.example';
  const upstreams = new UpstreamResolver(() => ({ ok: true, authority, audience: 'api://x' }));
  const conditions = opening.use(
    new Conditions({
      client,
      node,
      clock,
      random: Math.random,
      log,
      timing,
      clusterState: { upstreams, owners, isSynced: () => true },
    }),
  );
  const opened = opening.move();
  const samplesOf = (name: string) => conditions.samples().filter(({ metric }) => metric === name);
  return {
    node,
    lines,
    isLeader: () => samplesOf('nmi_conditions_leader').some(({ value }) => value === 1),
    writes: () =>
      Object.fromEntries(
        samplesOf('nmi_conditions_writes_total').map(({ labels, value }) => [
          labels?.['outcome'] ?? '',
          value,
        ]),
      ),
    cut: () => client[Symbol.asyncDispose](),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
