/**
 * Whether Secrets exist and are readable, as found by the last check of each: names only,
 * no content of a Secret. A finding is valid for a while, since changes are not reported.
 */
import type { Clock } from '../../base/time/clock.ts';
import { fullName, type ObjectName } from '../../cache/index/object-name.ts';
import type { SecretFinding } from '../diagnosis/objects.ts';

interface Kept {
  readonly finding: SecretFinding;
  readonly atMs: number;
  /** When this finding was first made. */
  readonly sinceMs: number;
}

/** A readable Secret usually remains readable; a missing one is probably being created. */
const lifeMs = { least: 60_000, most: 1_800_000 };

export class SecretFindings {
  readonly #clock: Clock;
  readonly #kept = new Map<string, Kept>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Undefined if it has to be checked. */
  get(secret: ObjectName): SecretFinding | undefined {
    const kept = this.#kept.get(fullName(secret));
    if (kept === undefined) return undefined;
    const { least, most } = lifeMs;
    const nowMs = this.#clock.monotonicMs();
    // A Secret that has been missing for an hour is checked every half hour, not every minute.
    const life =
      kept.finding.kind === 'readable'
        ? most
        : Math.min(most, Math.max(least, kept.atMs - kept.sinceMs));
    return nowMs - kept.atMs < life ? kept.finding : undefined;
  }

  set(secret: ObjectName, finding: SecretFinding): void {
    const key = fullName(secret);
    const nowMs = this.#clock.monotonicMs();
    const before = this.#kept.get(key);
    const sinceMs = before?.finding.kind === finding.kind ? before.sinceMs : nowMs;
    this.#kept.set(key, { finding, atMs: nowMs, sinceMs });
  }

  /** Drops findings of Secrets that no identity names any more. @param named by `fullName`. */
  keepOnly(named: ReadonlySet<string>): void {
    for (const key of this.#kept.keys()) if (!named.has(key)) this.#kept.delete(key);
  }
}
