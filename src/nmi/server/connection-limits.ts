/**
 * How many connections of pods there may be, by the descriptors that the process may have: pods must
 * not be able to leave it without any for its watches, its upstreams and the kernel's files.
 */
import { readFileSync } from 'node:fs';

export interface ConnectionLimits {
  readonly total: number;
  /** Of one caller. SDKs hold a handful; each is read and parsed however slowly it is served. */
  readonly each: number;
}

const enough: ConnectionLimits = { total: 20_000, each: 64 };
/** For everything that is no pod's connection; a relayed request takes another for each. */
const reserved = 512;
/** So that some others always find room beside the greediest. */
const greediest = 4;

/**
 * Of each of so many listeners.
 * @param limits what `/proc/PID/limits` says; Node has raised the soft limit to the hard one.
 */
export function connectionLimits(
  listeners: number,
  limits: string = readFileSync('/proc/self/limits', 'utf8'),
): ConnectionLimits {
  const files = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Infinity);
  const all = Math.min(enough.total, Math.max(files - reserved, files / 2));
  const total = Math.floor(all / listeners);
  return { total, each: Math.min(enough.each, Math.ceil(total / greediest)) };
}
