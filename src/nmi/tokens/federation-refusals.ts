/**
 * Entra ID refuses a valid federated credential now and then (AADSTS700213 for 22 of 1,021 requests
 * in a public report), and a new one for some minutes. So a refusal is final only after many in a
 * row for a while; any other outcome begins anew. They are counted by identity, subject and
 * resource, in the negative cache. Pure.
 */
import type { SourceFailure } from '../sources/source.ts';

/** At 2.2% by mistake, one answer in a hundred thousand is the third in a row. */
const triesAtOnce = 3;
const finalCount = 8;
/** A new credential takes minutes to be known everywhere. */
const finalMs = 5 * 60_000;

/**
 * @param failure that is counted already if it is of an earlier leg of a chain.
 * @param before the last failure of the same key, if it has not succeeded since.
 */
export function countRefusal(
  failure: SourceFailure,
  key: string,
  before: SourceFailure | undefined,
  nowMs: number,
): SourceFailure {
  if (failure.reason !== 'federation_refused' || failure.refusals !== undefined) return failure;
  const counted = before?.refusals?.key === key ? before.refusals : undefined;
  const { count, sinceMs } = counted ?? { count: 0, sinceMs: nowMs };
  const isFinal = count + 1 >= finalCount && nowMs - sinceMs >= finalMs;
  const refusals = { key, count: count + 1, sinceMs, isFinal };
  // Its caller waits for the next try. The third is no mistake: alerts are for that.
  return refusals.count < triesAtOnce
    ? { ...failure, refusals, reason: 'federation_pending' }
    : { ...failure, refusals };
}
