/**
 * Which resources each pod requests, each with the identity. A pod gets at most `mostNew` new ones in a minute, more
 * than any application has, and 429 beyond. So the first token of each can have an audit record: no flood of requests
 * hides what a pod reached.
 */
import { hash } from 'node:crypto';
import { dropOldest } from '../../base/drop-oldest.ts';
import type { Clock } from '../../base/time/clock.ts';
import { normaliseResource } from '../../cache/index/identifiers.ts';
import { limitKeyOf } from '../callers/caller.ts';
import { tokenKey } from './cache-key.ts';
import type { ByObjectId, Grant, Granted } from './grant.ts';

const mostNew = 600;
const periodMs = 60_000;
/** As many as are new in a minute: an application with fewer is never refused. */
const maxKnown = mostNew;
/** A node has 250 pods at most. */
const maxPods = 512;

interface PodUses {
  /** Whether a token of it was recorded. A digest for each, since a pod chooses the text. */
  readonly known: Map<number, boolean>;
  periodStartMs: number;
  inPeriod: number;
}

export class ResourceUses {
  readonly #clock: Clock;
  readonly #byPod = new Map<string, PodUses>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The grant, or its refusal if the resource is beyond what the pod may have now. */
  admit(grant: Grant, resource: string, onBeyond: (limitKey: string) => void): Grant {
    if (grant.kind === 'refused') return grant;
    const limitKey = limitKeyOf(grant.pod);
    const waitMs = this.#waitMs(this.#usesOf(limitKey), digestOf(grant, resource));
    if (waitMs === 0) return grant;
    onBeyond(limitKey);
    const facts = { about: 'resources', most: mostNew, waitS: Math.ceil(waitMs / 1_000) } as const;
    return { kind: 'refused', reason: 'caller_throttled', facts, isPending: false, pod: grant.pod };
  }

  /** Whether this served token is the first of its identity and resource. */
  isFirst(grant: Granted, resource: string): boolean {
    const { known } = this.#usesOf(limitKeyOf(grant.pod));
    const use = digestOf(grant, resource);
    if (known.get(use) === true) return false;
    known.set(use, true);
    dropOldest(known, maxKnown);
    return true;
  }

  #waitMs(uses: PodUses, use: number): number {
    const { known } = uses;
    if (known.has(use)) return 0;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - uses.periodStartMs >= periodMs) {
      uses.periodStartMs = nowMs;
      uses.inPeriod = 0;
    }
    if (uses.inPeriod >= mostNew) return uses.periodStartMs + periodMs - nowMs;
    uses.inPeriod += 1;
    known.set(use, false);
    dropOldest(known, maxKnown);
    return 0;
  }

  #usesOf(limitKey: string): PodUses {
    const known = this.#byPod.get(limitKey);
    if (known !== undefined) return known;
    const added: PodUses = { known: new Map(), periodStartMs: -Infinity, inPeriod: 0 };
    this.#byPod.set(limitKey, added);
    dropOldest(this.#byPod, maxPods);
    return added;
  }
}

/** Spellings of a resource that get the same token are one use. */
function digestOf(grant: Granted | ByObjectId, resource: string): number {
  const normal = normaliseResource(resource);
  const text =
    grant.kind === 'granted'
      ? tokenKey(grant.upstream, normal)
      : `object ${grant.objectId} ${normal}`;
  return hash('sha256', text, 'buffer').readUIntBE(0, 6);
}
