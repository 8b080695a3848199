/** Limits with one right value, so they are no options. Tests and benchmarks pass others. */
export const tuning = {
  /** Three missed proofs: a working watch is proven current at least every 101 s. */
  watchStalenessLimitMs: 300_000,
  /** So young, a missing object is answered with 503, for a retry; later with 400, as a mistake. */
  bindingGraceMs: 60_000,
  /** A pod's first request often arrives before the watch's event for the pod. */
  lateObjectWaitMs: 2_000,
  /** As long as one token request may take; the manifests allow 30 s for the whole stop. */
  drainTimeoutMs: 10_000,
  /** 80 tokens for each of 250 pods. */
  tokenCacheSize: 20_000,
  /** Agents with a shared identity are refused together, when a Secret is deleted for instance. */
  identityEventJitterMs: 30_000,
  /** A shorter break of IMDS or Entra ID is told by log and metric alone while cached tokens serve. */
  identityBreakMs: 30_000,
  /** For one fetch, retries and queueing included. */
  imdsTimeoutMs: 10_000,
  /** For one token, including reading its credential. */
  entraTimeoutMs: 10_000,
};

export type Tuning = Readonly<typeof tuning>;
