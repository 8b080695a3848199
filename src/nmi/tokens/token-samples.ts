/**
 * The expiries of tokens in memory in few numbers, for alerts, instead of a series for each token.
 */
import type { TokenStatus } from '../../cache/token/cache.ts';
import type { Sample } from '../base/part.ts';
import type { IdentityOwner } from '../grants/identities-in-use.ts';
import type { FailureReason } from '../sources/source.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import { causeOf } from './source-refusals.ts';

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

/** An identity in use that its source refused last. */
export interface RefusedIdentity {
  /** Undefined for one of the node, which excepted pods use. */
  readonly owner: IdentityOwner | undefined;
  readonly reason: FailureReason;
  /** Milliseconds until its first cached token expires. */
  readonly leftMs: number;
}

const maxIdentities = 200;
const other = { namespace: 'other', identity: 'other' };

/** How long cached tokens last of each, those first that end first, and the number of all. */
export function refusedIdentities(refused: readonly RefusedIdentity[]): readonly Sample[] {
  const counts = new Map<string, Sample>();
  const lives = new Map<string, Sample>();
  const names = new Set<string>();
  for (const { owner, reason, leftMs } of refused.toSorted((a, b) => a.leftMs - b.leftMs)) {
    const causes = { cause: causeOf(reason), reason };
    const count = (counts.get(reason)?.value ?? 0) + 1;
    counts.set(reason, { metric: 'nmi_identities_refused', labels: causes, value: count });
    const own = labelsOf(owner);
    const name = `${own.namespace}/${own.identity}`;
    if (names.size < maxIdentities) names.add(name);
    const labels = { ...(names.has(name) ? own : other), ...causes };
    const key = Object.values(labels).join('\t');
    const value = Math.max(0, leftMs / 1000);
    // The first one has the least.
    if (lives.has(key)) continue;
    lives.set(key, { metric: 'nmi_identity_refused_expiry_seconds', labels, value });
  }
  return [...counts.values(), ...lives.values()];
}

function labelsOf(owner: IdentityOwner | undefined) {
  if (owner === undefined) return { namespace: '', identity: 'node' };
  const { kind, namespace, name } = owner;
  return { namespace, identity: kind === 'ServiceAccount' ? `serviceaccount:${name}` : name };
}
