/** The audit stream: each request, or a count beyond a budget; first uses always. */
import type { Clock } from '../../../base/time/clock.ts';
import type { ReportOmitted } from '../../../base/lines/log-budget.ts';
import { OwnerBudgets } from '../../../base/lines/owner-budgets.ts';
import { correlationInBytes } from '../../base/correlation.ts';
import {
  identityOf,
  roundedMs,
  type Hit,
  type RequestRecord,
} from '../../server/request-record.ts';
import type { ResourceUses } from '../../grants/resource-uses.ts';
import type { Route } from '../../server/route.ts';
import type { Renderer } from '../renderer.ts';
import {
  detailFields,
  renderRecord,
  whoseFields,
  type AuditFields,
  type AuditState,
} from './record.ts';

/** Records of one pod, identity and reason in a minute. Clients keep tokens. */
const most = 600;

const messages = {
  token: 'token request',
  'host-token': 'token request',
  passthrough: 'metadata request',
  refused: 'request refused',
} as const satisfies Record<Route['kind'], string>;

export interface AuditOptions {
  readonly write: (line: string) => void;
  readonly clusterState: AuditState;
  readonly uses: Pick<ResourceUses, 'isFirst'>;
  readonly clock: Clock;
}

interface Entry {
  /** Entries of one owner and kind share a budget. */
  readonly owner: string;
  readonly kind: string;
  readonly message: string;
  /** All but the ids and the time of a single request. */
  readonly fields: AuditFields;
  readonly resource: string;
  /** No token of its identity and resource has a record yet. */
  isFirst: boolean;
  readonly reportMore: ReportOmitted;
}

export class AuditRecords implements Renderer {
  readonly #options: AuditOptions;
  readonly #budgets: OwnerBudgets;

  constructor(options: AuditOptions) {
    this.#options = options;
    this.#budgets = new OwnerBudgets({
      clock: options.clock,
      onOthers: (caller, count, resources) =>
        this.#write({ caller, count, resources }, 'further requests'),
    });
  }

  render(record: RequestRecord): void {
    const entry = this.#entryOf(record, {});
    if (!this.#allows(entry)) return;
    const { durationMs, requestId, correlation, decision, isGone } = record;
    this.#write(
      {
        ...entry.fields,
        durationMs,
        requestId,
        ...correlation,
        fetchId: decision?.fetchId,
        clientGone: isGone ? true : undefined,
      },
      entry.message,
    );
  }

  hitsLike(first: RequestRecord): (hit: Hit, durationMs: number) => void {
    const entry = this.#entryOf(first, { cache: 'hit' });
    return ({ requestId, request, fetchId }, durationMs) => {
      if (!this.#allows(entry)) return;
      const ids = { requestId, ...correlationInBytes(request), fetchId };
      this.#write({ ...entry.fields, durationMs: roundedMs(durationMs), ...ids }, entry.message);
    };
  }

  #entryOf(record: RequestRecord, common: AuditFields): Entry {
    const { route, reason, status, decision, limitKey } = record;
    const whose = { ...whoseFields(record, this.#options.clusterState), ...common };
    const identity = status === 200 ? identityOf(decision?.grant) : undefined;
    const message = messages[route.kind];
    const details = detailFields(record);
    return {
      owner: limitKey,
      kind: `${route.kind} ${reason} ${identity?.name ?? ''}`,
      message,
      fields: { ...whose, ...details },
      resource: details.resource ?? '',
      isFirst: status === 200 && this.#isFirst(decision),
      reportMore: (count, resources) =>
        this.#write({ ...whose, count, resources }, `further ${message}s`),
    };
  }

  #isFirst(decision: RequestRecord['decision']): boolean {
    const { grant, resource = '' } = decision ?? {};
    return grant?.kind === 'granted' && this.#options.uses.isFirst(grant, resource);
  }

  #allows(entry: Entry): boolean {
    const { owner, kind, isFirst, resource, reportMore } = entry;
    entry.isFirst = false;
    const limit = isFirst ? Infinity : most;
    return this.#budgets.of(owner).allows(kind, limit, reportMore, resource) || isFirst;
  }

  #write(fields: AuditFields, message: string): void {
    const { write, clock } = this.#options;
    write(renderRecord(clock.wallMs(), fields, message));
  }
}
