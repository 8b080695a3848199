/**
 * Reports objects that give a pod of this node an identity without a grant: each once in the log,
 * and their number as a metric, so that an operator sees when `enforce` would refuse no pod. Costs
 * requests nothing; a user who creates and deletes objects causes at most a few lines per
 * `everyMs`.
 */
import type { Clock } from '../../base/time/clock.ts';
import { fullName } from '../../cache/index/object-name.ts';
import { debounce } from '../../base/time/debounce.ts';
import { redactClientId, type Log } from '../../base/log.ts';
import type { GrantState } from '../grants/decide-grant.ts';
import type { DemandState } from '../grants/identities-in-use.ts';
import { unownedOf, type Unowned } from '../grants/unowned.ts';

export interface OwnerReport extends Disposable {
  /** Number of objects without a grant at the last check. */
  readonly unowned: number;
}

export interface OwnerReportOptions {
  readonly clusterState: DemandState & Pick<GrantState, 'isSynced'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Objects are created in bursts, together with their grants. */
const everyMs = 5_000;
const maxLines = 10;

export function openOwnerReport({ clusterState, clock, log }: OwnerReportOptions): OwnerReport {
  const { grants, owners } = clusterState;
  const outcome = owners.mode === 'enforce' ? 'refused' : 'served';
  let known: ReadonlySet<string> = new Set();
  const look = debounce(clock, everyMs, () => {
    // Before the first lists are complete, the grants may be missing.
    if (!clusterState.isSynced()) {
      look.trigger();
      return;
    }
    const found = new Map(unownedOf(clusterState).map((each) => [keyOf(each), each]));
    const fresh = [...found].filter(([key]) => !known.has(key));
    known = new Set(found.keys());
    for (const [, each] of fresh.slice(0, maxLines)) {
      log.warn(fieldsOf(each), `identity without an AzureIdentityGrant is ${outcome}`);
    }
    const omitted = fresh.length - maxLines;
    if (omitted > 0) log.warn({ omitted }, 'more identities without an AzureIdentityGrant');
  });
  const offs = [grants.onChange(() => look.trigger()), owners.onChange(() => look.trigger())];
  return {
    get unowned() {
      return known.size;
    },
    [Symbol.dispose]() {
      for (const off of offs) off();
      look[Symbol.dispose]();
    },
  };
}

function fieldsOf({ by, entry, pod }: Unowned) {
  const { namespace } = pod;
  const object = `${by.kind} ${fullName({ namespace, name: by.name })}`;
  const id = entry.field === 'nodeIdentities' ? undefined : redactClientId(entry.id);
  return { object, pod: fullName(pod), lacks: `spec.${entry.field}`, id };
}

function keyOf({ by, entry, pod }: Unowned): string {
  const id = entry.field === 'nodeIdentities' ? '' : entry.id;
  return `${by.kind} ${pod.namespace}/${by.name} ${entry.field} ${id}`;
}
