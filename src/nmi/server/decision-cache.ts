/**
 * Caches decisions for the requests of a pod while they are valid: the parsed target and its grant
 * are computed once for all connections of the pod and both parsers.
 *
 * A decision is valid while no index has changed: every request compares the indexes' generation.
 * It is computed again after a second, since objects that are read on demand change no generation
 * until they are read. No request is granted from the cache alone.
 */
import type { Clock } from '../../base/time/clock.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { Grant, Granted } from '../grants/grant.ts';
import { decideGrant, generationOf, type GrantState } from '../grants/decide-grant.ts';
import { tokenKey } from '../grants/cache-key.ts';
import type { CallerConnection } from '../callers/caller.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import { identify } from '../callers/identify.ts';
import { parseRoute } from './route.ts';
import {
  parseTokenQuery,
  wantsOtherToken,
  type RefusedQuery,
  type TokenQuery,
} from './token-query.ts';

/** The parsed target and its grant, at one generation of the indexes. */
export interface Decision {
  readonly target: string;
  readonly query: TokenQuery;
  readonly grant: Grant;
  /** NaN, which equals no generation, if the caller could not be identified. */
  readonly generation: number;
  readonly madeAtMs: number;
  /** Key of the one token that answers it; undefined when it needs more than a cache look-up. */
  readonly cacheKey: string | undefined;
}

/** A decision that grants one token; the same object while it is valid. */
export interface GrantedDecision extends Decision {
  readonly grant: Granted;
  readonly cacheKey: string;
}

const maxAgeMs = 1_000;
/**
 * Cached decisions of one pod and of all pods, one or two kilobytes each. Without the cache, the
 * decision is a seventh of the cost of a new connection, and most of the cost of a connection that
 * requests many targets in turn.
 */
const maxOfPod = 512;
const maxOfAll = 4_096;
const maxRememberedTarget = 512;

/** Refuses a grant whose resource is beyond what its pod may have. */
export type Admit = (grant: Grant, resource: string) => Grant;

export interface DecisionCacheOptions {
  readonly clusterState: GrantState;
  readonly policy: GrantPolicy;
  readonly admit: Admit;
  readonly clock: Clock;
}

export class DecisionCache {
  readonly #options: DecisionCacheOptions;
  /** By target. */
  readonly #byPod = new Map<Pod, Map<string, GrantedDecision>>();
  #size = 0;
  #generation = Number.NaN;

  constructor(options: DecisionCacheOptions) {
    this.#options = options;
  }

  isCurrent(decision: Decision, nowMs: number): boolean {
    return (
      decision.generation === this.#currentGeneration() && nowMs - decision.madeAtMs < maxAgeMs
    );
  }

  /**
   * Parses a target and finds the grant of its caller.
   * @param target of a token request.
   */
  decide(caller: CallerConnection, target: string, nowMs: number): Decision | RefusedQuery {
    // The caller is always identified by the connection itself: pods can share an address.
    const { pod } = identify(caller, this.#options.clusterState);
    const known = this.#get(pod, target);
    if (known !== undefined && this.isCurrent(known, nowMs)) return known;
    const route = parseRoute(target);
    const parsed = parseTokenQuery(route.kind === 'token' ? route.query : '');
    return parsed.kind === 'refused' ? parsed : this.decideFor(caller, target, parsed.query, nowMs);
  }

  /** The same for a target that is already parsed. */
  decideFor(caller: CallerConnection, target: string, query: TokenQuery, nowMs: number): Decision {
    const { clusterState, policy, admit, clock } = this.#options;
    const identified = identify(caller, clusterState);
    const known = this.#get(identified.pod, target);
    if (known !== undefined && this.isCurrent(known, nowMs)) return known;
    const isRefused = identified.kind === 'refused';
    const grant = isRefused
      ? identified
      : admit(
          decideGrant(identified.pod, query, clusterState, policy, clock.wallMs()),
          query.resource,
        );
    const decision: Decision = {
      target,
      query,
      grant,
      generation: isRefused ? Number.NaN : this.#currentGeneration(),
      madeAtMs: nowMs,
      cacheKey: cacheKeyOf(grant, query),
    };
    if (isGranted(decision)) this.#remember(decision);
    return decision;
  }

  #get(pod: Pod | undefined, target: string): GrantedDecision | undefined {
    return pod === undefined ? undefined : this.#byPod.get(pod)?.get(target);
  }

  #currentGeneration(): number {
    return generationOf(this.#options.clusterState);
  }

  #remember(decision: GrantedDecision): void {
    const { target, generation, grant } = decision;
    if (target.length > maxRememberedTarget) return;
    // Decisions of another generation are invalid, and would keep old objects in memory.
    if (generation !== this.#generation || this.#size >= maxOfAll) this.#clear();
    this.#generation = generation;
    const known = this.#byPod.get(grant.pod);
    const decisions = known ?? new Map<string, GrantedDecision>();
    if (known === undefined) this.#byPod.set(grant.pod, decisions);
    const before = decisions.size;
    // A pod that invents targets evicts only its own decisions.
    if (before >= maxOfPod && !decisions.has(target)) decisions.clear();
    decisions.set(target, decision);
    this.#size += decisions.size - before;
  }

  #clear(): void {
    this.#byPod.clear();
    this.#size = 0;
  }
}

export function isGranted(decision: Decision): decision is GrantedDecision {
  return decision.cacheKey !== undefined;
}

function cacheKeyOf(grant: Grant, query: TokenQuery): string | undefined {
  if (grant.kind !== 'granted' || grant.auxiliary.length > 0) return undefined;
  return wantsOtherToken(query) ? undefined : tokenKey(grant.upstream, query.resource);
}
