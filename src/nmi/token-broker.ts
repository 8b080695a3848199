/**
 * Tokens for authorised requests: the cache in front of the source, and the object ids learned
 * from tokens on the way. Knows nothing of HTTP or pods.
 */
import type { Clock } from '../cache/clock.ts';
import { TokenCache, type Cached } from '../cache/token-cache.ts';
import type { RenderedToken } from '../cache/token.ts';
import { objectIdOf } from './sources/imds-body.ts';
import type {
  SourceFailure,
  SourceResult,
  TokenSource,
  UpstreamIdentity,
} from './sources/source.ts';

export type CachedToken = Cached<SourceFailure>;

export interface UpstreamObserver {
  /** One fetch has ended. */
  onFetch(
    source: string,
    identity: UpstreamIdentity,
    result: SourceResult,
    durationMs: number,
  ): void;
}

export interface TokenBrokerOptions {
  readonly source: TokenSource;
  readonly clock: Clock;
  readonly maxEntries: number;
  readonly observer: UpstreamObserver;
}

/** No SDK caches a token with less than five minutes left, so none is handed out if it can be helped. */
const minLifeMs = 5 * 60_000;

export class TokenBroker {
  readonly sourceName: string;
  readonly #source: TokenSource;
  readonly #clock: Clock;
  readonly #observer: UpstreamObserver;
  readonly #cache: TokenCache<SourceFailure>;
  /** Upstream identity → object id; as many as identities are in use. */
  readonly #objectIds = new Map<string, string>();

  constructor(options: TokenBrokerOptions) {
    this.#source = options.source;
    this.sourceName = options.source.name;
    this.#clock = options.clock;
    this.#observer = options.observer;
    this.#cache = new TokenCache({
      clock: options.clock,
      maxEntries: options.maxEntries,
      minLifeMs,
    });
  }

  get cachedTokens(): number {
    return this.#cache.size;
  }

  /** A token from memory, without waiting. */
  peek(identity: UpstreamIdentity, resource: string): RenderedToken | undefined {
    return this.#cache.peek(cacheKey(this.sourceName, identity, resource));
  }

  get(identity: UpstreamIdentity, resource: string): Promise<CachedToken> {
    const key = cacheKey(this.sourceName, identity, resource);
    return this.#cache.get(key, () => this.#fetch(identity, resource));
  }

  /** The object id of an identity, as the upstream's tokens told it; undefined until one came. */
  objectIdOf(identity: UpstreamIdentity): string | undefined {
    return this.#objectIds.get(identityKey(identity));
  }

  async #fetch(identity: UpstreamIdentity, resource: string): Promise<SourceResult> {
    const startedAtMs = this.#clock.monotonicMs();
    const result = await this.#source.fetch({ identity, resource });
    const durationMs = this.#clock.monotonicMs() - startedAtMs;
    this.#observer.onFetch(this.sourceName, identity, result, durationMs);
    const objectId = result.ok ? objectIdOf(result.token.accessToken) : undefined;
    if (objectId !== undefined) this.#objectIds.set(identityKey(identity), objectId);
    return result;
  }
}

/** Ids compare without regard to letter case; the resource is exact, since it is echoed. */
function cacheKey(source: string, identity: UpstreamIdentity, resource: string): string {
  return `${source}\n${identityKey(identity)}\n${resource}`;
}

function identityKey(identity: UpstreamIdentity): string {
  return identity.kind === 'unnamed' ? '' : `${identity.kind}=${identity.value.toLowerCase()}`;
}
