/** Input and output of the program that measures misses. */

export interface MissPlan {
  readonly agentUrl: string;
  /** Source address: the agent identifies the program as this pod. */
  readonly sourceIp: string;
  /** `{n}` is a number not requested before. */
  readonly agentTarget: string;
  /** The bare proxy in front of the upstream. */
  readonly proxyUrl: string;
  readonly upstream: MissUpstream;
  /** Trusted instead of the authorities of Node. */
  readonly caPem: string;
  readonly misses: number;
  /** Pause after each request, to respect the upstream's limits. */
  readonly pauseMs: number;
}

export interface MissUpstream {
  readonly url: string;
  /** `{n}` as above. */
  readonly target: string;
  /** Sent by POST; undefined: a GET. */
  readonly form?: Readonly<Record<string, string>>;
}

/**
 * Equal requests through the agent, through the bare proxy and directly to the upstream, one after
 * another: milliseconds until the whole answer has arrived.
 */
export interface MissTimes {
  readonly agentMs: number;
  readonly proxyMs: number;
  readonly directMs: number;
}
