/** The observer of requests: hands the record of each to metrics, log, and what else reports it. */
import type { Pod } from '../../cache/index/objects.ts';
import { bugReporter } from '../../base/lines/bug-reporter.ts';
import type { Logger } from '../../base/logger.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { RefreshOutcome } from '../../cache/token/cache.ts';
import type { Reason } from '../base/answers.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';
import type { IdentityOwner } from '../grants/identities-in-use.ts';
import type { GrantedDecision } from '../server/decision-cache.ts';
import {
  recordOfHit,
  type Hit,
  type Observer,
  type RequestRecord,
} from '../server/request-record.ts';
import { createFetchReport } from './fetch-report.ts';
import { IdentityEvents, type IdentityEventsOptions } from './identity-events.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { presetSeries } from './preset-series.ts';
import { exportProcess } from './process-metrics.ts';
import { RefusalEvents } from './refusal-events.ts';
import type { Renderer } from './renderer.ts';
import { RequestLog } from './request-log.ts';
import { createRequestMetrics } from './request-metrics.ts';
import { SeenClients } from './seen-clients.ts';

export interface TelemetryOptions {
  readonly log: Logger;
  readonly clock: Clock;
  readonly oldNames: boolean;
  readonly byIdentity: boolean;
}

interface KnownHits {
  /** Connections of one pod share a decision, and may come from several addresses. */
  readonly podIp: string;
  readonly renderers: readonly ((hit: Hit, durationMs: number) => void)[];
}

export class Telemetry implements Observer {
  readonly metrics: Metrics;
  readonly clients: SeenClients;
  /** The source threw, which it must not. */
  readonly onSourceBug: (error: unknown) => void;
  readonly #clock: Clock;
  readonly #renderers: Renderer[];
  readonly #reportFetch: Observer['onFetch'];
  #identities: IdentityEvents | undefined;
  readonly #hits = new WeakMap<GrantedDecision, KnownHits>();
  readonly #onBug: (error: unknown) => void;

  constructor({ log, clock, oldNames, byIdentity }: TelemetryOptions) {
    const metrics = createMetrics({ oldNames });
    presetSeries(metrics);
    exportProcess(metrics);
    this.metrics = metrics;
    this.#clock = clock;
    this.clients = new SeenClients(clock);
    const requests = createRequestMetrics(metrics, byIdentity);
    this.#renderers = [requests, this.clients, new RequestLog(log, clock)];
    this.#reportFetch = createFetchReport(metrics, log, clock);
    this.#onBug = bugReporter(log, clock, 'failed to record request telemetry');
    this.onSourceBug = bugReporter(log, clock, 'token source failed');
  }

  add(renderer: Renderer): void {
    this.#renderers.push(renderer);
  }

  /** From now on. @returns what ends the Events that wait. */
  writeEvents(
    options: Pick<IdentityEventsOptions, 'events' | 'node' | 'jitterMs' | 'breakMs'>,
  ): Disposable {
    this.add(new RefusalEvents(options.events));
    return (this.#identities = new IdentityEvents({
      ...options,
      clock: this.#clock,
      random: Math.random,
    }));
  }

  onRequest(record: RequestRecord): void {
    for (const renderer of this.#renderers) this.#afterAnswer(() => renderer.render(record));
  }

  onHit(hit: Hit): void {
    const durationMs = this.#clock.monotonicMs() - hit.startedAtMs;
    const known = this.#hits.get(hit.decision);
    const { renderers } = known?.podIp === hit.caller.ip ? known : this.#prepare(hit, durationMs);
    for (const render of renderers) {
      try {
        render(hit, durationMs);
      } catch (error) {
        this.#onBug(error);
      }
    }
  }

  onRefusal(reason: Reason): void {
    this.metrics.inc('nmi_requests_total', { route: 'refused', reason });
  }

  onThrottled(pod: Pod, limit: ThrottleLimit): void {
    for (const renderer of this.#renderers) renderer.throttled?.(pod, limit);
  }

  onFetch(...fetch: Parameters<Observer['onFetch']>): void {
    this.#afterAnswer(() => this.#reportFetch(...fetch));
  }

  onRefused(...refused: Parameters<IdentityEvents['refused']>): void {
    this.#afterAnswer(() => this.#identities?.refused(...refused));
  }

  onAccepted(owner: IdentityOwner): void {
    this.#afterAnswer(() => this.#identities?.accepted(owner));
  }

  onRefresh(outcome: RefreshOutcome): void {
    this.metrics.inc('nmi_token_refreshes_total', { outcome });
  }

  #prepare(hit: Hit, durationMs: number): KnownHits {
    const first = recordOfHit(hit, durationMs);
    // A decision is valid for one second: only the client of its first request is recorded.
    this.clients.render(first);
    const renderers = this.#renderers.flatMap((each) => each.hitsLike?.(first) ?? []);
    const known = { podIp: first.podIp, renderers };
    this.#hits.set(hit.decision, known);
    return known;
  }

  /** After the answer, in its turn: recording a miss takes 0.1 ms, since its code is never warm. */
  #afterAnswer(report: () => void): void {
    process.nextTick(() => {
      try {
        report();
      } catch (error) {
        this.#onBug(error);
      }
    });
  }
}
