/** What the program of misses is to ask, and what it says. */

export interface MissPlan {
  readonly agentUrl: string;
  /** Whom the agent takes the program for. */
  readonly sourceIp: string;
  /** `{n}` is a number that nobody asked for before. */
  readonly agentTarget: string;
  readonly upstream: MissUpstream;
  /** Trusted besides those of Node. */
  readonly caPem: string;
  readonly misses: number;
  /** Between two, for the sake of the upstream's limits. */
  readonly pauseMs: number;
}

export type MissUpstream =
  | { readonly kind: 'imds'; readonly url: string }
  | {
      readonly kind: 'entra';
      readonly url: string;
      readonly form: Readonly<Record<string, string>>;
    };

/** The same question by way of the agent and put to the upstream itself, one after the other. */
export interface MissPair {
  readonly agentMs: number;
  readonly directMs: number;
}
