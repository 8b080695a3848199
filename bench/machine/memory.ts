/** Memory of a process, from /proc. */
import { readFileSync } from 'node:fs';

export interface Memory {
  readonly rssMb: number;
  /** Proportional: pages that processes share are divided among them. */
  readonly pssMb: number;
  /** Private memory: neither shared with others nor unchanged file pages. */
  readonly privateMb: number;
}

/** @throws the read error when there is no such process. */
export function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  const kb = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]);
  return {
    rssMb: kb('Rss') / 1024,
    pssMb: kb('Pss') / 1024,
    privateMb: kb('Private_Dirty') / 1024,
  };
}
