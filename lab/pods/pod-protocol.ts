/**
 * Commands of a lab pod and their answers. Between processes each is one line of JSON
 * with an `id`; in one process the same values are passed directly.
 */

/** One HTTP request, byte for byte as the caller wants it. */
export interface PodRequest {
  readonly method: string;
  /** The raw request target: origin or absolute form, backslashes and all. */
  readonly target: string;
  /** Name, value, name, value: sent in this order and case, duplicates kept. `Host` is added if absent. */
  readonly headers: readonly string[];
  /** Sent with a Content-Length unless `headers` says otherwise. */
  readonly body?: string;
  /** `new`: a connection of its own, closed afterwards. Else the name of a kept-alive one. */
  readonly connection: string;
  /** Of the pod's own time, as `ownMs` of the answer. */
  readonly timeoutMs: number;
  /** Default: the pod's metadata address. */
  readonly host?: string;
  readonly port?: number;
  /** The address to dial from; default: the pod's own. */
  readonly from?: string;
  /** Default 1.1. */
  readonly httpVersion?: '1.0' | '1.1';
}

/**
 * `failed` carries a system error code (`ECONNREFUSED`, `ECONNRESET`, …), a parser's code (`HPE_…`)
 * or `TIMEOUT`.
 */
export type PodAnswer =
  | {
      readonly outcome: 'answered';
      readonly status: number;
      /** Name and value as they came, duplicates kept. */
      readonly headers: readonly (readonly [name: string, value: string])[];
      readonly body: string;
      readonly durationMs: number;
      /** Without what a busy machine made the pod wait. */
      readonly ownMs: number;
      readonly reusedConnection: boolean;
    }
  | {
      readonly outcome: 'failed';
      readonly error: string;
      readonly durationMs: number;
      readonly ownMs: number;
    };

export interface PodLoadTarget {
  readonly target: string;
  readonly headers: readonly string[];
}

/** Requests in a loop, wholly inside the pod. Targets take turns. */
export interface PodLoad {
  readonly targets: readonly PodLoadTarget[];
  readonly durationMs: number;
  readonly concurrency: number;
  readonly newConnectionPerRequest: boolean;
  /** Per request. */
  readonly timeoutMs: number;
  /** Of a worker, after each request. Default: none. */
  readonly pauseMs?: number;
  /** The name of a header with the wall time at which a request is begun, in milliseconds. */
  readonly stamp?: string;
  readonly host?: string;
  readonly port?: number;
}

export interface PodLoadCount {
  /** Index into `targets`. */
  readonly target: number;
  /** A status (`200`) or a failure's code. */
  readonly outcome: string;
  /** Whose token the body carried: {@link LabClaims.lab_identity}. */
  readonly identity?: string;
  readonly count: number;
}

export interface PodLoadReport {
  readonly counts: readonly PodLoadCount[];
  readonly requests: number;
  /** Answers with status 200. */
  readonly successes: number;
  /** Of every answer, whatever its status. All 0 without answers. */
  readonly latencyMs: {
    readonly p50: number;
    readonly p90: number;
    readonly p99: number;
    readonly max: number;
  };
  /** The pod's longest own time without a success, the load's beginning and end counted as successes. */
  readonly maxGapMs: number;
  readonly elapsedMs: number;
}

/** One pod's worst, wholly inside the pod. */
export interface PodAttack {
  /**
   * `repeat` sends the next request when something came, `renew` each on a connection of its own,
   * `flood` without ever reading, `hold` none. `spin` takes processor time and no connection.
   */
  readonly style: 'repeat' | 'renew' | 'flood' | 'hold' | 'spin';
  /** The bytes of a request, or of several; `%N` becomes a number of its own, `%M` one of 500. */
  readonly request: string;
  readonly connections: number;
  readonly durationMs: number;
  /** Default: the pod's metadata address. */
  readonly host?: string;
  readonly port?: number;
  /** The address to dial from; default: the pod's own. */
  readonly from?: string;
  /** A folder of the pod in the cgroup2 tree: each connection is made from a new cgroup in it. */
  readonly cgroup?: string;
}

export interface PodAttackReport {
  readonly connects: number;
  /** Pieces of answers. */
  readonly answers: number;
  readonly failures: number;
}

export type PodCommand =
  | { readonly id: number; readonly command: 'request'; readonly request: PodRequest }
  | { readonly id: number; readonly command: 'load'; readonly load: PodLoad }
  | { readonly id: number; readonly command: 'attack'; readonly attack: PodAttack }
  | { readonly id: number; readonly command: 'close'; readonly connection: string };

/** `ready` once, before anything else; then one line for each command, in order of completion. */
export type PodReply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'answer'; readonly id: number; readonly answer: PodAnswer }
  | { readonly kind: 'report'; readonly id: number; readonly report: PodLoadReport }
  | { readonly kind: 'attacked'; readonly id: number; readonly report: PodAttackReport }
  | { readonly kind: 'closed'; readonly id: number };

/** The first value of a header, its name in any case. */
export function findHeader(answer: PodAnswer, name: string): string | undefined {
  if (answer.outcome === 'failed') return undefined;
  const wanted = name.toLowerCase();
  return answer.headers.find(([key]) => key.toLowerCase() === wanted)?.[1];
}
