/** CPU time of processes, from /proc. */
import { readdirSync, readFileSync } from 'node:fs';

/** Of all their threads, in ms; undefined when a process has ended or the kernel has no data. */
export function cpuMsOf(pids: readonly number[]): number | undefined {
  try {
    return pids.reduce((sum, pid) => sum + cpuMsOfOne(pid), 0);
  } catch {
    return undefined;
  }
}

/** From the scheduler's own count in ns: the ticks of `stat` are 10 ms long. */
function cpuMsOfOne(pid: number): number {
  const folder = `/proc/${pid}/task`;
  return readdirSync(folder).reduce((sum, thread) => {
    const [ns] = readFileSync(`${folder}/${thread}/schedstat`, 'latin1').split(' ');
    return sum + Number(ns) / 1e6;
  }, 0);
}
