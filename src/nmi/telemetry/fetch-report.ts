/** The metrics and log lines of token fetches from IMDS and Entra ID. */
import { LogBudget } from '../../base/lines/log-budget.ts';
import type { Log } from '../../base/log.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { SourceResult } from '../sources/source.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import type { Metrics } from './metrics.ts';

const maxDetail = 500;
/** Lines about failures of one source and reason before further ones are only counted. */
const most = 20;

export class FetchReport {
  readonly #metrics: Metrics;
  readonly #log: Log;
  readonly #budget: LogBudget;

  constructor(metrics: Metrics, log: Log, clock: Clock) {
    this.#metrics = metrics;
    this.#log = log;
    this.#budget = new LogBudget({ clock, onOthers: () => undefined });
  }

  add(identity: UpstreamIdentity, result: SourceResult, durationMs: number): void {
    const metrics = this.#metrics;
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
    const reportMore = (count: number): void =>
      this.#log.warn({ source, reason, count }, 'further token fetches failed');
    if (!this.#budget.allows(`${source} ${reason}`, most, reportMore)) return;
    this.#log.warn(
      {
        source,
        reason,
        durationMs,
        detail: description.slice(0, maxDetail),
        fetchId,
        correlationId: details?.correlationId,
      },
      'token fetch failed',
    );
  }
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
