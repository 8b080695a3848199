/**
 * The audit stream: a record of every request that reached the router, including hits. Beyond a
 * number of records of one kind in a minute, those of a pod are only counted, and one record
 * reports their number: no request is omitted without a count, and no pod decides how much is
 * written.
 */
import type { Clock } from '../../../base/time/clock.ts';
import type { Pod } from '../../../cache/index/objects.ts';
import { OwnerBudgets } from '../../../base/lines/owner-budgets.ts';
import { loggablePath } from '../../../base/log.ts';
import type { Authorization } from '../../grants/authorization.ts';
import { limitKeyOf, type CallerConnection } from '../../callers/caller.ts';
import { correlationInBytes, correlationOf } from '../../base/correlation.ts';
import type { Hit, Observer, TokenDecision } from '../../server/observer.ts';
import { relayed, type Exchange, type Handled } from '../../server/request.ts';
import type { Route } from '../../server/route.ts';
import type { GrantedDecision } from '../../server/decision-cache.ts';
import {
  attestedBy,
  identityFields,
  outcomeOf,
  podFields,
  renderRecord,
  resourceField,
  versionsOf,
  type AuditFields,
  type AuditState,
  type AttestedBy,
} from './record.ts';

/**
 * Records of one pod, identity and reason before further ones are only counted. Clients keep
 * tokens.
 */
const most = 600;

const messages = {
  token: 'token request',
  'host-token': 'token request',
  passthrough: 'metadata request',
  refused: 'request refused',
} as const satisfies Record<Route['kind'], string>;

export interface AuditOptions {
  /** Takes whole lines. */
  readonly write: (line: string) => void;
  readonly clusterState: AuditState;
  readonly clock: Clock;
  /** A record could not be created. */
  readonly onBug: (error: unknown) => void;
}

/** The data that is the same for all hits of one decision. */
interface PreparedHit {
  readonly owner: string;
  readonly kind: string;
  readonly fields: AuditFields;
  readonly reportMore: (count: number) => void;
}

/** An observer that passes everything on to another, and writes audit records. */
export function withAudit(observer: Observer, options: AuditOptions): Observer {
  const { clock, clusterState, onBug } = options;
  const budgets = new OwnerBudgets({
    clock,
    onOthers: (caller, count) => write({ caller, count }, 'further requests'),
  });
  const prepared = new WeakMap<GrantedDecision, PreparedHit>();
  const decisions = new WeakMap<Exchange, TokenDecision>();

  function write(fields: AuditFields, message: string): void {
    options.write(renderRecord(clock.wallMs(), fields, message));
  }

  function prepareHit(right: GrantedDecision, caller: CallerConnection): PreparedHit {
    const { authorization } = right;
    const { pod, identity } = authorization;
    const fields = {
      ...decidedFields(200, 'ok', attestedBy(caller), pod, authorization),
      resource: resourceField(right.query.resource),
      cache: 'hit',
    };
    const hit: PreparedHit = {
      fields,
      owner: limitKeyOf(pod),
      kind: `token ok ${identity?.name ?? ''}`,
      reportMore: (count) =>
        write(
          { ...fields, resource: undefined, podIp: caller.ip, count },
          'further token requests',
        ),
    };
    prepared.set(right, hit);
    return hit;
  }

  function auditHit(
    { caller, requestId, startedAtMs, request, fetchId }: Hit,
    right: GrantedDecision,
  ): void {
    const hit = prepared.get(right) ?? prepareHit(right, caller);
    if (!budgets.allows(hit.owner, hit.kind, most, hit.reportMore)) return;
    const ids = { podIp: caller.ip, requestId, ...correlationInBytes(request), fetchId };
    const durationMs = durationSince(startedAtMs);
    write({ ...hit.fields, ...ids, durationMs }, messages.token);
  }

  function auditHandled(exchange: Exchange, route: Route, handled: Handled): void {
    const decision = decisions.get(exchange);
    decisions.delete(exchange);
    const { caller } = exchange;
    const authorization = decision?.authorization;
    const latest = caller.latest.kind === 'pod' ? caller.latest.pod : undefined;
    const pod = authorization?.pod ?? (route.kind === 'host-token' ? undefined : latest);
    const [status, reason] = handled === relayed ? [200, 'ok'] : [handled.status, handled.reason];
    const by = route.kind === 'host-token' ? 'host process' : attestedBy(caller);
    const whose = {
      ...decidedFields(status, reason, by, pod, authorization),
      podIp: caller.ip,
      method: exchange.method,
    };
    const identity =
      authorization?.kind === 'authorized' ? authorization.identity?.name : undefined;
    const kind = `${route.kind} ${reason} ${status === 200 ? (identity ?? '') : ''}`;
    const owner = pod === undefined ? caller.limitKey : limitKeyOf(pod);
    const message = messages[route.kind];
    const reportMore = (count: number): void => write({ ...whose, count }, `further ${message}s`);
    if (!budgets.allows(owner, kind, most, reportMore)) return;
    write(
      {
        ...whose,
        path: route.kind === 'passthrough' ? loggablePath(route.path) : undefined,
        resource: resourceField(decision?.resource ?? ''),
        cache: decision?.cache,
        durationMs: durationSince(exchange.startedAtMs),
        requestId: exchange.requestId,
        ...correlationOf(exchange),
        fetchId: decision?.fetchId,
        clientGone: exchange.isGone ? true : undefined,
      },
      message,
    );
  }

  function decidedFields(
    status: number,
    reason: string,
    by: AttestedBy,
    pod: Pod | undefined,
    authorization: Authorization | undefined,
  ): AuditFields {
    return {
      outcome: outcomeOf(status, authorization),
      status,
      reason,
      attestedBy: by,
      ...podFields(pod),
      ...identityFields(authorization),
      versions: versionsOf(pod, authorization, clusterState),
    };
  }

  function durationSince(startedAtMs: number): number {
    return Math.round((clock.monotonicMs() - startedAtMs) * 1000) / 1000;
  }

  /** An error of the audit is reported and changes no answer. */
  function safely(audit: () => void): void {
    try {
      audit();
    } catch (error) {
      onBug(error);
    }
  }

  return {
    ...observer,
    onHit: (hit, right) => {
      observer.onHit(hit, right);
      safely(() => auditHit(hit, right));
    },
    onDecision: (exchange, decision) => {
      observer.onDecision(exchange, decision);
      decisions.set(exchange, decision);
    },
    onHandled: (exchange, route, handled) => {
      observer.onHandled(exchange, route, handled);
      safely(() => auditHandled(exchange, route, handled));
    },
  };
}
