/** CPU time and wake-ups of processes, from /proc. */
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

/** How often threads of a process went to sleep by themselves: each was woken before. */
export function wakeUpsOf(pid: number): number {
  const folder = `/proc/${pid}/task`;
  return readdirSync(folder).reduce((sum, thread) => {
    const status = readFileSync(`${folder}/${thread}/status`, 'latin1');
    return sum + Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1]);
  }, 0);
}

const tickMs = 10;

/** CPU time of the programs that a process has started and that have ended. */
export function endedChildrenMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[13]) + Number(fields[14])) * tickMs;
}
