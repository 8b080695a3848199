/** How often the kernel wakes the threads of a process. A busy machine does not add to it. */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** The average over some seconds. */
export async function wakeUpsPerSecond(pid: number, seconds = 5): Promise<number> {
  const before = await wakeUpsOf(pid);
  await delay(seconds * 1_000);
  return ((await wakeUpsOf(pid)) - before) / seconds;
}

async function wakeUpsOf(pid: number): Promise<number> {
  const tasks = await readdir(`/proc/${pid}/task`);
  const statuses = await Promise.all(
    // A thread may end meanwhile.
    tasks.map((task) => readFile(`/proc/${pid}/task/${task}/status`, 'utf8').catch(() => '')),
  );
  return statuses
    .map((status) => Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1] ?? 0))
    .reduce((sum, count) => sum + count, 0);
}
