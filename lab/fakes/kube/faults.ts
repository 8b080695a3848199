/** Faults of the fake Kubernetes API. Plain state; the server reads it. */

export interface FakeKubeFaults {
  /** Every watch event and bookmark is sent this much later. Default 0. */
  delayEventsMs: number;
  /** More than that, by plural name: events of different kinds arrive in another order. */
  readonly delayKindsMs: Map<string, number>;
  /**
   * Every second connection is to a server whose memory is this late. It was current when this was set;
   * watches and lists from memory show what it knows.
   */
  memoryLagMs: number;
  /** Requests are read and never answered; open watches continue. */
  hang: boolean;
  /** When set, requests without this bearer token get 401. */
  requiredToken: string | undefined;
  /** Requests with this bearer token get 429 with `Retry-After: 1`. */
  throttledToken: string | undefined;
  /** An expired resourceVersion is answered with HTTP status 410 instead of an ERROR event. */
  goneByStatus: boolean;
  /** The next watch is cut off abruptly after this many bytes of events (1 or more). */
  cutNextWatchAfterBytes: number | undefined;
  /** Maximum lifetime of service account tokens, whatever lifetime was requested. */
  maxTokenSec: number | undefined;
  /** Plural names of custom resources whose definition is not installed. */
  readonly notInstalled: Set<string>;
  /** The next `count` requests that match fail with `status`. */
  failNext(count: number, status: number, options?: FailOptions): void;
  /** Ends all faults. Requests that already hang are not answered. */
  clear(): void;
}

export interface FailOptions {
  readonly retryAfterSec?: number;
  /** Only requests whose path and query contain this. */
  readonly containing?: string;
  /** Of the answer. */
  readonly message?: string;
}

export interface PlannedFailure {
  readonly status: number;
  readonly message: string;
  readonly retryAfterSec: number | undefined;
}

export interface FaultPlan extends FakeKubeFaults {
  /** Consumes one planned failure that matches the request. */
  takeFailure(url: string): PlannedFailure | undefined;
  /** Consumes the planned cut. */
  takeCut(): number | undefined;
}

const faultless = {
  delayEventsMs: 0,
  memoryLagMs: 0,
  hang: false,
  requiredToken: undefined,
  throttledToken: undefined,
  goneByStatus: false,
  cutNextWatchAfterBytes: undefined,
  maxTokenSec: undefined,
} as const satisfies Partial<FakeKubeFaults>;

export function createFaultPlan(): FaultPlan {
  const planned: { left: number; status: number; options: FailOptions }[] = [];
  return {
    ...faultless,
    delayKindsMs: new Map(),
    notInstalled: new Set(),
    failNext(count, status, options = {}) {
      planned.push({ left: count, status, options });
    },
    clear() {
      Object.assign(this, faultless);
      this.delayKindsMs.clear();
      this.notInstalled.clear();
      planned.length = 0;
    },
    takeFailure(url) {
      const entry = planned.find(
        ({ left, options }) => left > 0 && url.includes(options.containing ?? ''),
      );
      if (entry === undefined) return undefined;
      entry.left -= 1;
      const { retryAfterSec, message = 'failed on purpose' } = entry.options;
      return { status: entry.status, message, retryAfterSec };
    },
    takeCut() {
      const bytes = this.cutNextWatchAfterBytes;
      this.cutNextWatchAfterBytes = undefined;
      return bytes;
    },
  };
}
