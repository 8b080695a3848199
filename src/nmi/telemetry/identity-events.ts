/**
 * Events on an AzureIdentity: the first refusal by its source, also while cached tokens serve, and
 * when it is accepted again. The agents of all nodes write one together (`EventDraft.sharedForMs`),
 * those of a scale set if the identity is not assigned to it, and each its own if IMDS or Entra ID does not
 * answer, since one node may be cut off. Such a break is written once it lasts, or no token is left. An Event lives
 * for an hour, so a refusal that lasts is written again.
 */
import type { Clock } from '../../base/time/clock.ts';
import { timeText } from '../../base/time/duration.ts';
import { rowOf } from '../diagnosis/codes.ts';
import { scaleSetOf } from '../base/scale-set.ts';
import type { IdentityOwner } from '../grants/identities-in-use.ts';
import { eventReasonOf, noteOf, type EventDraft } from '../kube/events/event.ts';
import type { EventSink } from '../kube/events/event-writer.ts';
import { fixOfDown } from '../grants/refusal-text.ts';
import { causeOf, isReported, type SourceRefusal } from '../tokens/source-refusals.ts';
import { referenceOfIdentity } from './refusal-events.ts';

export interface IdentityEventsOptions {
  readonly events: EventSink;
  readonly clock: Clock;
  readonly node: string;
  /** From 0 up to 1. */
  readonly random: () => number;
  /** Most wait before an Event. */
  readonly jitterMs: number;
  /** A shorter break of an upstream is no Event while cached tokens serve. */
  readonly breakMs: number;
}

interface Reported {
  /** Of the last refusal. */
  reason: string;
  /** Monotonic time of the last Event about a refusal; -Infinity before the first. */
  writtenAtMs: number;
  /** Their own Events are written at once. */
  refusesPods: boolean;
  /** An Event that is not written yet. */
  waiting: { readonly kind: string; readonly cancel: () => void } | undefined;
}

const repeatMs = 30 * 60_000;
const refusedForMs = 10 * 60_000;
/** An acceptance must come after the refusals of other nodes. */
const acceptedForMs = 60_000;
const acceptedKind = 'accepted';
const acceptedReason = 'IdentityAccepted';
/** The one that was refused longest ago is forgotten first. */
const maxReported = 2_000;

/** Who writes an Event together, where not all nodes do: by what a reason holds for. */
const sharers: Readonly<Record<string, (node: string) => string>> = {
  identity_not_assigned: scaleSetOf,
  upstream_down: (node) => node,
};

export class IdentityEvents implements Disposable {
  readonly #options: IdentityEventsOptions;
  /** By uid; ends with the acceptance. */
  readonly #reported = new Map<string, Reported>();

  constructor(options: IdentityEventsOptions) {
    this.#options = options;
  }

  refused(owner: IdentityOwner, refusal: SourceRefusal, leftMs: () => number | undefined): void {
    const { reason } = refusal.failure;
    if (owner.kind !== 'AzureIdentity' || reason === 'upstream_throttled') return;
    const { clock, breakMs } = this.#options;
    const reported = this.#reportedOf(owner);
    const hadTokens = !reported.refusesPods;
    reported.refusesPods ||= (leftMs() ?? 0) <= 0;
    const isWorse = hadTokens && reported.refusesPods && causeOf(reason) === 'platform';
    if (reported.waiting?.kind === reason && !isWorse) return;
    reported.waiting?.cancel();
    reported.waiting = undefined;
    const isKnown = reported.reason === reason;
    reported.reason = reason;
    if (isKnown && clock.monotonicMs() - reported.writtenAtMs < repeatMs) return;
    const lastedMs = clock.wallMs() - refusal.sinceWallMs;
    const isTold = isReported(refusal, leftMs() ?? 0, clock.wallMs(), breakMs);
    this.#later(reported, reason, isTold ? 0 : breakMs - lastedMs, () => {
      const left = leftMs();
      // Deleted meanwhile, or no pod may use it any more.
      if (left === undefined) return void this.#reported.delete(owner.uid);
      const isWritten = this.#record(owner, reason, reason, () => ({
        type: 'Warning',
        reason: eventReasonOf(reason),
        note: this.#noteOf(refusal, left),
        sharedForMs: refusedForMs,
      }));
      if (isWritten) reported.writtenAtMs = clock.monotonicMs();
    });
  }

  accepted(owner: IdentityOwner): void {
    const { uid } = owner;
    const reported = this.#reported.get(uid);
    if (reported === undefined || reported.waiting?.kind === acceptedKind) return;
    reported.waiting?.cancel();
    if (reported.writtenAtMs === -Infinity && !reported.refusesPods) {
      this.#reported.delete(uid);
      return;
    }
    this.#later(reported, acceptedKind, 0, () => {
      this.#reported.delete(uid);
      this.#record(owner, reported.reason, acceptedKind, () => ({
        type: 'Normal',
        reason: acceptedReason,
        note: 'The source of the identity accepts it again.',
        sharedForMs: acceptedForMs,
      }));
    });
  }

  [Symbol.dispose](): void {
    for (const { waiting } of this.#reported.values()) waiting?.cancel();
    this.#reported.clear();
  }

  #reportedOf({ uid }: IdentityOwner): Reported {
    const known = this.#reported.get(uid);
    const reported = known ?? {
      reason: '',
      writtenAtMs: -Infinity,
      refusesPods: false,
      waiting: undefined,
    };
    this.#reported.delete(uid);
    this.#reported.set(uid, reported);
    const [oldest] = this.#reported;
    if (this.#reported.size > maxReported && oldest !== undefined) {
      oldest[1].waiting?.cancel();
      this.#reported.delete(oldest[0]);
    }
    return reported;
  }

  #later(reported: Reported, kind: string, afterMs: number, work: () => void): void {
    const { clock, random, jitterMs } = this.#options;
    const cancel = clock.schedule(afterMs + random() * jitterMs, () => {
      reported.waiting = undefined;
      work();
    });
    reported.waiting = { kind, cancel };
  }

  #record(
    owner: IdentityOwner,
    refusedWith: string,
    kind: string,
    draft: () => Pick<EventDraft, 'type' | 'reason' | 'note' | 'sharedForMs'>,
  ): boolean {
    const { events, node } = this.#options;
    const sharedBy = sharers[refusedWith]?.(node) ?? '';
    return events.record(referenceOfIdentity(owner), `${kind} ${sharedBy}`.trimEnd(), () => ({
      related: undefined,
      action: 'GetToken',
      ...draft(),
    }));
  }

  #noteOf({ failure, identity }: SourceRefusal, leftMs: number): string {
    const { reason, description } = failure;
    const fix = reason === 'upstream_down' ? fixOfDown(identity) : rowOf(reason).fix;
    return noteOf(`${description} (${reason})`, fix, ` ${this.#untilWords(leftMs)}`);
  }

  #untilWords(leftMs: number): string {
    if (leftMs <= 0) return 'No cached token is left.';
    return `Cached tokens are valid until ${timeText(this.#options.clock.wallMs() + leftMs)}.`;
  }
}
