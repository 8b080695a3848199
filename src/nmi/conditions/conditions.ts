/**
 * Status conditions on `AzureIdentity` and `AzureIdentityBinding`. A failed write costs no token.
 */
import { bugReporter } from '../../base/lines/bug-reporter.ts';
import type { Clock } from '../../base/time/clock.ts';
import { OwnerIndex } from '../../cache/index/owner-index.ts';
import type { Logger } from '../../base/logger.ts';
import { samplesBy, type Part } from '../base/part.ts';
import type { Config } from '../config/config.ts';
import { tuning } from '../config/tuning.ts';
import { authoritiesOf } from '../grants/authorities.ts';
import { IdentityOwners } from '../grants/identity-owners.ts';
import { UpstreamResolver } from '../grants/resolve-upstream.ts';
import type { KubeClient } from '../kube/api/client.ts';
import { parseBinding, parseIdentity, parseIdentityGrant } from '../kube/watch/parse.ts';
import { openReflector, type Reflector } from '../kube/watch/reflector.ts';
import { absences, groupWatches } from '../kube/watch/watches.ts';
import { watchConditions } from '../kube/watch/watch-report.ts';
import { ConditionWriter, type WriteCounts } from './condition-writer.ts';
import { observing } from './observed.ts';
import { openSecretCheck } from '../sources/entra/credentials/kinds.ts';
import { groupPath, kinds, ObservedObjects } from './observed-objects.ts';
import { openWritePace } from './write-pace.ts';

export interface ConditionsOptions {
  readonly client: KubeClient;
  readonly config: Config;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
}

export function openConditions(options: ConditionsOptions): Required<Part> & AsyncDisposable {
  const { client, config, clock, random, log } = options;
  const opened = new AsyncDisposableStack();
  const objects = new ObservedObjects();
  // No mutation: a listener of the index fails only if it has a bug.
  const ownerIndex = new OwnerIndex(bugReporter(log, clock, 'index listener failed'));
  const owners = new IdentityOwners(ownerIndex, config.identityOwners);
  const upstreams = new UpstreamResolver(authoritiesOf(config), clock);
  const counts: WriteCounts = {
    written: 0,
    conflict: 0,
    deleted: 0,
    rejected: 0,
    forbidden: 0,
    failed: 0,
  };
  const parts = { client, clock, random, log };
  const reflectors: Record<string, Reflector> = {
    identities: openReflector({
      ...parts,
      name: 'identities',
      path: `${groupPath}/${kinds.identity.plural}`,
      parse: observing(parseIdentity),
      store: objects.identities,
    }),
    bindings: openReflector({
      ...parts,
      name: 'bindings',
      path: `${groupPath}/${kinds.binding.plural}`,
      parse: observing(parseBinding),
      store: objects.bindings,
    }),
  };
  if (owners.mode === 'enforce') {
    opened.defer(owners.onChange(() => objects.touchAll()));
    reflectors['grants'] = openReflector({
      ...parts,
      name: 'grants',
      path: `${groupPath}/azureidentitygrants`,
      parse: parseIdentityGrant,
      store: ownerIndex.grants,
      absence: absences.grants.enforcing,
    });
  }
  const watches = opened.use(groupWatches(reflectors));
  const pace = opened.use(openWritePace({ client, config, clock, log }));
  opened.use(
    new ConditionWriter({
      ...parts,
      checkSecret: openSecretCheck({ client, clock }),
      objects,
      rules: { upstreams, owners },
      isSynced: () => watches.synced,
      pauseMs: () => pace.pauseMs,
      counts,
    }),
  );
  return {
    conditions: watchConditions(watches, tuning.watchStalenessLimitMs),
    samples: () => samplesBy('nmi_conditions_writes_total', 'outcome', counts),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
