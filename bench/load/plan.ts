/** Input and report of one load program. */
import type { CompactHistogram } from '../core/histogram.ts';
import type { RequestStyle } from './request.ts';

export interface LoadPlan {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
  /**
   * `keep`: connections are kept. `new`: one for each request. `burst`: all connections are opened,
   * then each sends one request at the same moment.
   */
  readonly kind: 'keep' | 'new' | 'burst';
  /** Not recorded. */
  readonly warmUpMs: number;
  readonly measuredMs: number;
  /**
   * Requests per second over all connections, independent of the answers: latency counts from the
   * time a request was due. Absent: each connection sends its next request after an answer.
   */
  readonly ratePerSec?: number;
  /**
   * The load program sleeps until a request is due, with a timer's resolution of 1ms, which counts
   * as latency; else it polls the clock and uses most of its core.
   */
  readonly isSleepy?: boolean;
  /** Maximum wait for outstanding answers at the end. Default 15s. */
  readonly patienceMs?: number;
  /** Default `sdk`. */
  readonly style?: RequestStyle;
  /** Assigned to connections round-robin. */
  readonly callers: readonly Caller[];
  /** Processes whose CPU time is counted. */
  readonly serverPids: readonly number[];
  /** Also report each interval of this length. */
  readonly timelineMs?: number;
}

export interface Caller {
  /** Source address of its connections; absent: chosen by the kernel. */
  readonly sourceIp?: string;
  /** `{n}` is replaced by the next number of the range below at each request. */
  readonly target: string;
  readonly from?: number;
  /** Size of the range; then it repeats. Default 1. */
  readonly count?: number;
  readonly expect: Expectation;
}

export type Expectation =
  /** Status 200 and a token of this identity of the lab. */
  | { readonly kind: 'identity'; readonly name: string }
  /** Any of these statuses, whatever the body. */
  | { readonly kind: 'status'; readonly statuses: readonly number[] };

export interface LoadReport {
  /** When the warm-up ended, in milliseconds since the epoch: the zero of the timeline. */
  readonly measuredFromWallMs: number;
  readonly perSec: number;
  readonly answers: number;
  readonly failures: number;
  /** Tokens of another identity than the expected one. */
  readonly foreign: number;
  /** Description of the first failure. */
  readonly firstFailure: string | undefined;
  readonly cpuMsPer1000: number | undefined;
  /** Time between the timers that read the processor time; answers are of `measuredMs`. */
  readonly cpuWindowMs: number;
  /** Share of one core that the load program itself used. */
  readonly loadCpuShare: number;
  readonly latency: CompactHistogram;
  readonly timeline: readonly TimelinePiece[];
}

export interface TimelinePiece {
  readonly atMs: number;
  readonly answers: number;
  readonly failures: number;
  readonly p50Us: number;
  readonly maxUs: number;
}
