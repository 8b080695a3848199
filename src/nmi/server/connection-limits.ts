/**
 * Limits the connections of pods by the descriptor limit of the process: pods must not use up the
 * descriptors that the agent needs for its watches, its upstreams and the kernel's files.
 */
import { readFileSync } from 'node:fs';
import { StartError } from '../../base/start-error.ts';

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
/** With fewer, connections of pods would be reset. */
const leastFiles = 2 * reserved;
/** One caller gets at most the total divided by this, so that others always find room. */
const greediest = 4;

/**
 * The limits of each of several listeners.
 * @param limits content of `/proc/PID/limits`; Node has raised the soft limit to the hard one.
 * @throws StartError `CONFIG` if there are too few descriptors.
 */
export function connectionLimits(
  listeners: number,
  limits: string = readLimits(),
): ConnectionLimits {
  const files = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Infinity);
  if (files < leastFiles) {
    const problem = `the process may have ${files} open files, and the agent needs ${leastFiles}`;
    const remedy = 'raise the limit in the container runtime (LimitNOFILE) or by ulimit -n';
    throw new StartError('CONFIG', problem, remedy);
  }
  const all = Math.min(enough.total, files - reserved);
  const total = Math.floor(all / listeners);
  const most = Math.ceil(total / greediest);
  return {
    total,
    each: Math.min(enough.each, most),
    eachWhenShort: Math.min(enough.eachWhenShort, most),
  };
}

/** @param path for tests. */
export function readLimits(path = '/proc/self/limits'): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new StartError('CONFIG', `${path} cannot be read`, 'mount proc at /proc', error);
  }
}
