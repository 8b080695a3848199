/** The metrics and log lines of token fetches from IMDS and Entra ID. */
import { fullName } from '../../cache/index/object-name.ts';
import { OwnerBudgets } from '../../base/lines/owner-budgets.ts';
import type { Log } from '../../base/log.ts';
import type { Clock } from '../../base/time/clock.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import type { UpstreamObserver } from '../tokens/broker.ts';
import type { Metrics } from './metrics.ts';

const maxDetail = 500;
/** Lines about failures of one identity and reason before further ones are only counted. */
const most = 20;
/** Of one namespace, in a minute. */
const maxLines = 40;

export function createFetchReport(
  metrics: Metrics,
  log: Log,
  clock: Clock,
): UpstreamObserver['onFetch'] {
  const budgets = new OwnerBudgets({
    clock,
    maxLines,
    onOthers: (namespace, count) => log.warn({ namespace, count }, 'further token fetches failed'),
  });
  return (identity, result, durationMs, [owner, ...others]) => {
    const source = sourceNameOf(identity);
    const outcome = result.ok ? 'ok' : result.failure.reason;
    metrics.inc('nmi_upstream_requests_total', { source, outcome });
    metrics.observe('nmi_upstream_duration_seconds', durationMs / 1000, { source });
    const labels = { operation_type: operationType(identity) };
    if (result.ok) {
      metrics.observe('aadpodidentity_imds_operations_duration_seconds', durationMs / 1000, labels);
      return;
    }
    metrics.inc('aadpodidentity_imds_operations_errors_count', labels);
    const { reason, description, details, fetchId } = result.failure;
    const whose = {
      // Excepted pods may name any identity of the node.
      identity: owner === undefined ? 'node' : fullName(owner),
      namespace: owner?.namespace,
      sharedBy: others.length === 0 ? undefined : others.length + 1,
      source,
      reason,
    };
    const reportMore = (count: number): void =>
      log.warn({ ...whose, count }, 'further token fetches failed');
    const budget = budgets.of(owner?.namespace ?? '');
    if (!budget.allows(`${whose.identity} ${source} ${reason}`, most, reportMore)) return;
    const detail = description.slice(0, maxDetail);
    const correlationId = details?.correlationId;
    log.warn({ ...whose, durationMs, detail, fetchId, correlationId }, 'token fetch failed');
  };
}

/** The label values of the old metric, which counted Entra ID under IMDS, too. */
function operationType(identity: UpstreamIdentity): string {
  switch (identity.kind) {
    case 'entra':
      return 'adal_token';
    case 'unnamed':
      return 'adal_token_msi';
    default:
      return 'adal_token_msi_userassignedid';
  }
}
