/** What the program of misses is to ask, and what it says. */

export interface MissPlan {
  readonly agentUrl: string;
  /** Whom the agent takes the program for. */
  readonly sourceIp: string;
  /** `{n}` is a number that nobody asked for before. */
  readonly agentTarget: string;
  /** Leads to the upstream and does nothing else. */
  readonly proxyUrl: string;
  readonly upstream: MissUpstream;
  /** Trusted instead of the authorities of Node. */
  readonly caPem: string;
  readonly misses: number;
  /** After each question, for the sake of the upstream's limits. */
  readonly pauseMs: number;
}

export interface MissUpstream {
  readonly url: string;
  /** `{n}` as above. */
  readonly target: string;
  /** Posted; undefined: a GET. */
  readonly form?: Readonly<Record<string, string>>;
}

/**
 * The same question by way of the agent, by way of the bare proxy and put to the upstream itself,
 * one after the other: milliseconds until the whole answer is there.
 */
export interface MissTimes {
  readonly agentMs: number;
  readonly proxyMs: number;
  readonly directMs: number;
}
