/** What one load program is to do, and what it says when it has. */
import type { CompactHistogram } from '../core/histogram.ts';
import type { RequestStyle } from './request.ts';

export interface LoadPlan {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
  /**
   * `keep`: connections stay. `new`: one for each request. `burst`: all connections are opened, then
   * all ask once at the same moment.
   */
  readonly kind: 'keep' | 'new' | 'burst';
  /** Not recorded. */
  readonly warmUpMs: number;
  readonly measuredMs: number;
  /**
   * Requests a second over all connections, whatever the answers do: latencies count from when a
   * request was due. Absent: each connection asks again when its answer has come.
   */
  readonly ratePerSec?: number;
  /**
   * The load program sleeps until a request is due, to the millisecond of a timer, which counts as
   * latency; else it watches the clock and uses most of its core.
   */
  readonly isSleepy?: boolean;
  /** How long answers may take that are outstanding at the end. Default 15 s. */
  readonly patienceMs?: number;
  /** Default `sdk`. */
  readonly style?: RequestStyle;
  /** Connections take them in turn. */
  readonly callers: readonly Caller[];
  /** Processes whose CPU time is counted. */
  readonly serverPids: readonly number[];
  /** Also tell what happened in each piece of this length. */
  readonly timelineMs?: number;
}

export interface Caller {
  /** Where its connections come from; absent: wherever the kernel says. */
  readonly sourceIp?: string;
  /** `{n}` is replaced by a number of the range below, another at each request. */
  readonly target: string;
  readonly from?: number;
  /** How many different numbers; then from the start again. Default 1. */
  readonly count?: number;
  readonly expect: Expectation;
}

export type Expectation =
  /** Status 200 and a token of this identity of the lab. */
  | { readonly kind: 'identity'; readonly name: string }
  /** Any of these, whatever the body. */
  | { readonly kind: 'status'; readonly statuses: readonly number[] };

export interface LoadReport {
  readonly perSec: number;
  readonly answers: number;
  readonly failures: number;
  /** Tokens of another identity than the one that was to come. */
  readonly foreign: number;
  /** What the first failure was. */
  readonly firstFailure: string | undefined;
  readonly cpuMsPer1000: number | undefined;
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
