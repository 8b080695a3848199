/**
 * Limits with one right value, which are therefore not options. Tests and benchmarks in the same process
 * pass others as `AgentOptions.tuning`.
 */
export const tuning = {
  /** Three misses: a watch that works is proven current every 101 s at the latest. */
  watchStalenessLimitMs: 300_000,
  /**
   * Bindings are created beside their pods: while a pod, its label or its binding is younger than
   * this, a missing object is answered 503, so that clients retry; later it is a mistake, and 400.
   */
  bindingGraceMs: 60_000,
  /** A pod's first request is often ahead of the watch that announces the pod. */
  lateObjectWaitMs: 2_000,
  /** As long as one token request may take; the manifests give 30 s to the whole stop. */
  drainTimeoutMs: 10_000,
  /** An agent that shares its listening socket leaves the connections to the other one until it knows the pods. */
  acceptWaitMs: 30_000,
  /** 80 tokens for each of 250 pods. */
  tokenCacheSize: 20_000,
  /** For one fetch, retries and queueing included. */
  imdsTimeoutMs: 10_000,
  /** For one token, the reading of its credential included. */
  entraTimeoutMs: 10_000,
};

export type Tuning = Readonly<typeof tuning>;
