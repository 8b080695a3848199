/** The agent's token cache in this process, with as many tokens as wanted and no upstream to wait for. */
import { randomBytes } from 'node:crypto';
import { systemClock } from '../../src/cache/clock.ts';
import { RateLimiter } from '../../src/cache/token/rate-limiter.ts';
import { TokenCache } from '../../src/cache/token/cache.ts';

interface Refused {
  readonly cooldownMs: number;
}

interface Asked {
  readonly key: string;
}

const boundless = 1_000_000;
const tokenBytes = 1_000;
const refused: Refused = { cooldownMs: 0 };

export type BenchCache = TokenCache<Asked, Refused> & Disposable;

/** @returns the cache and the keys of its tokens, in an order that memory does not follow. */
export async function fillCache(
  count: number,
): Promise<{ readonly cache: BenchCache; readonly keys: readonly string[] }> {
  const clock = systemClock;
  const gate = new RateLimiter({
    clock,
    maxConcurrent: boundless,
    maxPerSec: boundless,
    maxQueued: boundless,
  });
  const cache: BenchCache = new TokenCache<Asked, Refused>({
    clock,
    random: Math.random,
    limiterOf: () => gate,
    isWanted: () => false,
    partyOf: () => ({ namespace: 'default', pod: 'pod' }),
    fetch: ({ key }) => Promise.resolve({ ok: true, token: createToken(key) }),
    onRefresh: () => undefined,
    onBug: (error) => {
      throw error;
    },
    failures: { overloaded: refused, late: refused, expired: refused },
    maxEntries: boundless,
    maxWaiters: boundless,
    minLifeMs: 300_000,
    waitMs: 10_000,
    waitWithTokenMs: 1_000,
    usedWithinMs: 3_600_000,
  });
  const keys = Array.from({ length: count }, (_, index) => `imds|client-${index}|https://vault`);
  for (const key of keys) await cache.get({ key });
  if (cache.size !== count) throw new Error(`${cache.size} tokens of ${count} are cached`);
  return { cache, keys: shuffle(keys) };
}

/** Nanoseconds of finding a token and rendering its answer, by rounds. */
export function timeHits(cache: BenchCache, keys: readonly string[]): readonly number[] {
  const lookUps = 50_000;
  const nowMs = Date.now();
  let bytes = 0;
  const rounds = Array.from({ length: 11 }, () => {
    const startedAtMs = performance.now();
    for (let index = 0; index < lookUps; index++) {
      const rendered = cache.peek(keys[index % keys.length] ?? '');
      bytes += rendered?.body(nowMs).length ?? NaN;
    }
    return ((performance.now() - startedAtMs) * 1e6) / lookUps;
  });
  if (!(bytes > 0)) throw new Error('a token was not found');
  // In the first ones the code is still being compiled.
  return rounds.slice(2);
}

function createToken(key: string) {
  const expiresAtWallS = Math.floor(Date.now() / 1000) + 86_400;
  return {
    clientId: key,
    resource: 'https://vault.azure.net',
    expiresAtWallS,
    accessToken: randomBytes(tokenBytes).toString('base64url'),
    notBeforeWallS: expiresAtWallS - 86_700,
    extExpiresAtWallS: expiresAtWallS,
  };
}

/** The same order in every run. */
function shuffle(keys: readonly string[]): readonly string[] {
  const shuffled = [...keys];
  let state = 1;
  for (let index = shuffled.length - 1; index > 0; index--) {
    state = (state * 48_271) % 0x7fff_ffff;
    const other = state % (index + 1);
    const kept = shuffled[index] ?? '';
    shuffled[index] = shuffled[other] ?? '';
    shuffled[other] = kept;
  }
  return shuffled;
}
