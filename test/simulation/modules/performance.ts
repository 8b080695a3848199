/** In place of the global of that name. */
import { currentProcess } from '../machine.ts';

export const performance = { now: (): number => currentProcess().machine.scheduler.nowMs };
