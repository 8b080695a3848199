/** The log lines of requests, which a pod causes in bounds. */
import { fullName } from '../../cache/index/object-name.ts';
import type { LogBudget } from '../../base/lines/log-budget.ts';
import { OwnerBudgets } from '../../base/lines/owner-budgets.ts';
import { loggablePath, loggableResource, redactClientId, type LogFields } from '../../base/log.ts';
import type { Logger } from '../../base/logger.ts';
import type { Clock } from '../../base/time/clock.ts';
import { correlationInBytes } from '../base/correlation.ts';
import type { Grant } from '../grants/grant.ts';
import { roundedMs, type Hit, type RequestRecord } from '../server/request-record.ts';
import { hostTokenPath, tokenPath, type Route } from '../server/route.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import type { Renderer } from './renderer.ts';

/** Lines of one pod and identity, or of one pod and reason, in a period. Clients keep tokens. */
const most = { info: 100, warn: 1 } as const;
const tokenRequest = 'token request';
const requestHandled = 'request handled';

export class RequestLog implements Renderer {
  readonly #log: Logger;
  readonly #budgets: OwnerBudgets;

  constructor(log: Logger, clock: Clock) {
    this.#log = log;
    this.#budgets = new OwnerBudgets({
      clock,
      // A pod may be bound to any number of identities.
      maxLines: 200,
      onOthers: (uid, count) => log.warn({ uid, count }, 'further log lines left out'),
    });
  }

  render(record: RequestRecord): void {
    const { decision, route, reason, status } = record;
    const isMetadata = route.kind === 'passthrough' && reason !== 'ok';
    // Probes of SDKs and of other clouds' clients arrive all the time and are no errors.
    if (!isMetadata) this.#log.debug(handledFields(record), requestHandled);
    if (!isMetadata && decision === undefined) return;
    const level = status === 200 ? 'info' : 'warn';
    const message = isMetadata ? 'metadata request' : tokenRequest;
    const whose = whoseFields(record);
    const reportMore = (count: number): void =>
      this.#log[level](
        { ...whose, ...(isMetadata ? { path: undefined } : {}), count },
        `further ${message}s`,
      );
    if (!this.#budgetOf(record).allows(kindOf(record), most[level], reportMore)) return;
    this.#log[level](
      {
        ...whose,
        ...tokenFields(record),
        durationMs: record.durationMs,
        requestId: record.requestId,
        ...record.correlation,
        fetchId: decision?.fetchId,
        clientGone: record.isGone ? true : undefined,
      },
      message,
    );
  }

  hitsLike(first: RequestRecord): (hit: Hit, durationMs: number) => void {
    const log = this.#log;
    const budget = this.#budgetOf(first);
    const kind = kindOf(first);
    const fields = { ...whoseFields(first), ...tokenFields(first) };
    const reportMore = (count: number): void =>
      log.info({ ...fields, count }, `further ${tokenRequest}s`);
    const handled = handledFields(first);
    return ({ requestId, request, fetchId }, durationMs) => {
      if (budget.allows(kind, most.info, reportMore)) {
        const ids = { requestId, ...correlationInBytes(request), fetchId };
        log.info({ ...fields, durationMs: roundedMs(durationMs), ...ids }, tokenRequest);
      }
      log.debug(handled, requestHandled);
    };
  }

  /** Callers that are no known pod share one: they may come from any number of addresses. */
  #budgetOf({ pod }: RequestRecord): LogBudget {
    return this.#budgets.of(pod?.uid ?? 'unknown');
  }
}

function kindOf({ route, decision, limitKey, status, reason }: RequestRecord): string {
  if (decision === undefined) return `${route.kind} ${limitKey} ${reason}`;
  const { grant } = decision;
  const identity = status === 200 && grant?.kind === 'granted' ? grant.identity : undefined;
  return `${reason} ${identity?.name ?? ''}`;
}

function handledFields({ route, reason, method, podIp }: RequestRecord): LogFields {
  return { route: route.kind, reason, method, podIp };
}

function whoseFields(record: RequestRecord): LogFields {
  const { status, reason, method, route, podIp, pod, decision } = record;
  return {
    status,
    reason,
    method,
    path: pathOf(route),
    podIp,
    pod: pod?.name,
    namespace: pod?.namespace,
    uid: pod?.uid,
    ...identityFields(decision?.grant),
  };
}

function pathOf(route: Route): string {
  if (route.kind === 'passthrough') return loggablePath(route.path);
  return route.kind === 'host-token' ? hostTokenPath : tokenPath;
}

function tokenFields({ decision }: RequestRecord): LogFields {
  if (decision === undefined) return {};
  const { grant, resource, cache } = decision;
  return {
    resource: resource === '' ? undefined : loggableResource(resource),
    source: grant?.kind === 'granted' ? sourceNameOf(grant.upstream) : undefined,
    cache,
  };
}

function identityFields(grant: Grant | undefined): LogFields {
  if (grant?.kind !== 'granted') return {};
  const { identity, by, upstream, pod } = grant;
  const clientId = identity?.clientId ?? clientIdOf(upstream);
  const owner = upstream.kind === 'entra' ? `${pod.namespace}/${pod.serviceAccount}` : 'node';
  return {
    identity: identity === undefined ? owner : fullName(identity),
    identityType: identity?.type,
    clientId: clientId === '' ? undefined : redactClientId(clientId),
    by,
  };
}

function clientIdOf(upstream: UpstreamIdentity): string {
  if (upstream.kind === 'entra') return upstream.clientId;
  return upstream.kind === 'client_id' ? upstream.value : '';
}
