/**
 * The short way of a request: a right that was worked out before and still stands, and a token in
 * memory. Whatever needs more than that is not answered here.
 *
 * A right stands for as long as nothing that it rests on has changed: the generation of the indexes
 * says so, and it is compared at every request; and it is worked out anew now and then, since what is
 * read on demand changes no generation until it is read. Nothing is granted by memory alone.
 */
import type { Clock } from '../../../cache/clock.ts';
import type { Pod } from '../../../cache/index/objects.ts';
import type { AskedId } from '../../../cache/token/token.ts';
import type { Authorised } from '../../grants/authorization.ts';
import { authorise, type GrantKnowledge } from '../../grants/authorize.ts';
import type { CallerConnection } from '../../grants/caller.ts';
import type { Exchange } from '../request.ts';
import type { GrantPolicy } from '../../grants/grant.ts';
import { identify } from '../../grants/identify.ts';
import type { TokenHit } from './response-cache.ts';
import { parseRoute } from '../route.ts';
import { sourceNameOf } from '../../sources/source.ts';
import type { TokenBroker } from '../../tokens/broker.ts';
import { askedIdOf, parseTokenQuery } from '../token-query.ts';
import { tokenKey } from '../../grants/cache-key.ts';

export interface HitPathOptions {
  readonly knowledge: GrantKnowledge;
  readonly broker: Pick<TokenBroker, 'peekKey'>;
  readonly policy: GrantPolicy;
  readonly clock: Clock;
  readonly onHit: (exchange: Exchange, right: StandingRight) => void;
}

/** Answers from memory for one connection. */
export interface Hits {
  /**
   * The token to answer with, or undefined when there is more to do than to answer from memory.
   * @param target of a request whose method and headers are those of a usual token request.
   */
  find(target: string, startedAtMs: number, requestId: string): TokenHit | undefined;
}

/** A right at one generation of what is known; the same object for as long as it stands. */
export interface StandingRight {
  readonly target: string;
  readonly generation: number;
  readonly workedOutAtMs: number;
  readonly authorised: Authorised;
  readonly resource: string;
  /** What the answer repeats of the question. */
  readonly asked: AskedId | undefined;
  readonly key: string;
  readonly source: string;
}

/** What a service account says is read again only when somebody asks for it. */
const maxAgeMs = 1_000;
/**
 * Rights that are remembered of a pod and of all pods, a kilobyte or two each. Without them working
 * one out is a seventh of the cost of a new connection, and most of that of one that asks for many
 * things in turn.
 */
const maxOfPod = 512;
const maxOfAll = 4_096;
const maxRememberedTarget = 512;
const noHeaders: readonly string[] = [];

/** A request that was answered from memory. */
class HitExchange implements Exchange {
  readonly method = 'GET';
  readonly isGone = false;
  readonly caller: CallerConnection;
  readonly startedAtMs: number;
  readonly requestId: string;

  constructor(caller: CallerConnection, startedAtMs: number, requestId: string) {
    this.caller = caller;
    this.startedAtMs = startedAtMs;
    this.requestId = requestId;
  }

  headerValues(): readonly string[] {
    return noHeaders;
  }
}

/** The latest right by pod and target. Whoever finds one asks whether it still stands. */
class RightMemory {
  readonly #byPod = new Map<Pod, Map<string, StandingRight>>();
  #size = 0;
  #generation = Number.NaN;

  /** Forgets what is of another generation: none of it stands, and it would keep old objects. */
  turnTo(generation: number): void {
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#clear();
  }

  get(pod: Pod, target: string): StandingRight | undefined {
    return this.#byPod.get(pod)?.get(target);
  }

  set(pod: Pod, right: StandingRight): void {
    const { target } = right;
    if (target.length > maxRememberedTarget) return;
    if (this.#size >= maxOfAll) this.#clear();
    const known = this.#byPod.get(pod);
    const rights = known ?? new Map<string, StandingRight>();
    if (known === undefined) this.#byPod.set(pod, rights);
    const before = rights.size;
    // A pod that invents targets displaces its own rights only.
    if (before >= maxOfPod && !rights.has(target)) rights.clear();
    rights.set(target, right);
    this.#size += rights.size - before;
  }

  #clear(): void {
    this.#byPod.clear();
    this.#size = 0;
  }
}

export class HitPath {
  readonly #options: HitPathOptions;
  readonly #memory = new RightMemory();

  constructor(options: HitPathOptions) {
    this.#options = options;
  }

  /** For one connection: its clients nearly always ask for the same thing again. */
  open(caller: CallerConnection): Hits {
    let right: StandingRight | undefined;
    return {
      find: (target, startedAtMs, requestId) => {
        if (right?.target !== target || !this.#isStanding(right, startedAtMs)) {
          right = this.#find(caller, target, startedAtMs);
        }
        if (right === undefined) return undefined;
        return this.#answer(caller, right, startedAtMs, requestId);
      },
    };
  }

  #isStanding(right: StandingRight, nowMs: number): boolean {
    return right.generation === this.#generation() && nowMs - right.workedOutAtMs < maxAgeMs;
  }

  /** One that was worked out before, for whichever connection of the same pod, or a new one. */
  #find(caller: CallerConnection, target: string, nowMs: number): StandingRight | undefined {
    // Who calls is always found by the connection itself: pods can share an address.
    const identified = identify(caller, this.#options.knowledge);
    if (identified.kind === 'refused') return undefined;
    const { pod } = identified;
    this.#memory.turnTo(this.#generation());
    const known = this.#memory.get(pod, target);
    if (known !== undefined && this.#isStanding(known, nowMs)) return known;
    const right = this.#workOut(pod, target, nowMs);
    if (right !== undefined) this.#memory.set(pod, right);
    return right;
  }

  /** Grows whenever a right may have changed. */
  #generation(): number {
    const { grants, workloadIdentities } = this.#options.knowledge;
    return grants.generation + (workloadIdentities?.generation ?? 0);
  }

  #workOut(pod: Pod, target: string, nowMs: number): StandingRight | undefined {
    const { knowledge, policy, clock } = this.#options;
    const route = parseRoute(target);
    if (route.kind !== 'token') return undefined;
    const parsed = parseTokenQuery(route.query);
    if (parsed.kind === 'refused' || parsed.query.bypassCache) return undefined;
    const { query } = parsed;
    const decision = authorise(pod, query, knowledge, policy, clock.wallMs());
    if (decision.kind !== 'authorised' || decision.auxiliary.length > 0) return undefined;
    const { resource } = query;
    return {
      ...{
        target,
        resource,
        asked: askedIdOf(query),
        authorised: decision,
        generation: this.#generation(),
      },
      workedOutAtMs: nowMs,
      key: tokenKey(decision.upstream, resource),
      source: sourceNameOf(decision.upstream),
    };
  }

  #answer(
    caller: CallerConnection,
    right: StandingRight,
    startedAtMs: number,
    requestId: string,
  ): TokenHit | undefined {
    const rendered = this.#options.broker.peekKey(right.key);
    if (rendered === undefined) return undefined;
    this.#options.onHit(new HitExchange(caller, startedAtMs, requestId), right);
    return { rendered, asked: right.asked };
  }
}
