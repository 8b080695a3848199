/**
 * Writes that the API server did not accept, and when each is tried again. A write is the same as
 * long as it is for the same version of the object with the same content; another one is not held
 * back. Pure.
 */
import { backoffMs, type Backoff } from '../kube/api/backoff.ts';

interface RefusedWrite {
  readonly write: string;
  readonly failures: number;
  readonly untilMs: number;
  /** Not reported as due yet. */
  isWaiting: boolean;
}

export class RefusedWrites {
  readonly #refused = new Map<string, RefusedWrite>();

  get size(): number {
    return this.#refused.size;
  }

  /** This write was refused, and is not to be tried yet. */
  has(key: string, write: string): boolean {
    const refused = this.#refused.get(key);
    return refused?.isWaiting === true && refused.write === write;
  }

  /** @param random from 0 up to 1. */
  add(key: string, write: string, backoff: Backoff, nowMs: number, random: number): void {
    const before = this.#refused.get(key);
    const failures = before?.write === write ? before.failures + 1 : 1;
    const untilMs = nowMs + backoffMs(backoff, failures, random);
    this.#refused.set(key, { write, failures, untilMs, isWaiting: true });
  }

  delete(key: string): void {
    this.#refused.delete(key);
  }

  /** Keys of writes whose time has come since the last call. */
  takeDue(nowMs: number): readonly string[] {
    const due: string[] = [];
    for (const [key, refused] of this.#refused) {
      if (!refused.isWaiting || nowMs < refused.untilMs) continue;
      refused.isWaiting = false;
      due.push(key);
    }
    return due;
  }

  /** Drops those of objects that no longer exist. */
  keepOnly(exists: (key: string) => boolean): void {
    for (const key of this.#refused.keys()) if (!exists(key)) this.#refused.delete(key);
  }
}
