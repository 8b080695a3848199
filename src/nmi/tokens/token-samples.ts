/** When tokens in memory end, as few numbers: what an alert needs, and not a series for each token. */
import type { TokenStatus } from '../../cache/token/cache.ts';
import type { Sample } from '../base/part.ts';

/** A token in memory, and where it came from. */
export interface SourcedToken {
  readonly source: string;
  readonly token: TokenStatus;
}

/**
 * The least life of the tokens that are in use, by source and by how their refreshes go. One that nobody
 * uses is left to expire, and is none of them.
 */
export function soonestExpiries(tokens: Iterable<SourcedToken>): readonly Sample[] {
  const soonest = new Map<string, Sample>();
  for (const { source, token } of tokens) {
    if (token.state === 'idle') continue;
    const labels = { source, refresh: token.failedRefreshes > 0 ? 'failing' : 'ok' };
    const value = Math.max(0, token.expiresInMs / 1000);
    const key = `${labels.source} ${labels.refresh}`;
    if (value >= (soonest.get(key)?.value ?? Infinity)) continue;
    soonest.set(key, { metric: 'nmi_token_soonest_expiry_seconds', labels, value });
  }
  return [...soonest.values()];
}
