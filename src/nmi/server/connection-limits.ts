/**
 * Limits the connections of pods by the descriptor limit of the process: pods must not use up the
 * descriptors that the agent needs for its watches, its upstreams and the kernel's files.
 */
import { readFileSync } from 'node:fs';

export interface ConnectionLimits {
  readonly total: number;
  /** Per caller. SDKs open a handful, a pod that starts many workers one for each of them. */
  readonly each: number;
  /** Per caller while half of the total is open. */
  readonly eachWhenShort: number;
}

const enough: ConnectionLimits = { total: 20_000, each: 384, eachWhenShort: 64 };
/** Descriptors for everything but pods' connections; each relayed request takes one more. */
const reserved = 512;
/** One caller gets at most the total divided by this, so that others always find room. */
const greediest = 4;

/**
 * The limits of each of several listeners.
 * @param limits content of `/proc/PID/limits`; Node has raised the soft limit to the hard one.
 */
export function connectionLimits(
  listeners: number,
  limits: string = readFileSync('/proc/self/limits', 'utf8'),
): ConnectionLimits {
  const files = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Infinity);
  const all = Math.min(enough.total, Math.max(files - reserved, files / 2));
  const total = Math.floor(all / listeners);
  const most = Math.ceil(total / greediest);
  return {
    total,
    each: Math.min(enough.each, most),
    eachWhenShort: Math.min(enough.eachWhenShort, most),
  };
}
