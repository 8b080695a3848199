/**
 * The expiries of tokens in memory in few numbers, for alerts, instead of a series for each token.
 */
import type { TokenStatus } from '../../cache/token/cache.ts';
import type { Sample } from '../base/part.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';

interface CachedToken {
  readonly request: { readonly identity: UpstreamIdentity };
  readonly token: TokenStatus;
}

/**
 * The shortest life of the tokens in use, by source and by the outcome of their refreshes. An
 * unused token is left to expire, and is not included.
 */
export function soonestExpiries(tokens: Iterable<CachedToken>): readonly Sample[] {
  const soonest = new Map<string, Sample>();
  for (const { request, token } of tokens) {
    if (token.state === 'idle') continue;
    const source = sourceNameOf(request.identity);
    const labels = { source, refresh: token.failedRefreshes > 0 ? 'failing' : 'ok' };
    const value = Math.max(0, token.expiresInMs / 1000);
    const key = `${labels.source} ${labels.refresh}`;
    if (value >= (soonest.get(key)?.value ?? Infinity)) continue;
    soonest.set(key, { metric: 'nmi_token_soonest_expiry_seconds', labels, value });
  }
  return [...soonest.values()];
}
