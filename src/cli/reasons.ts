/** `nmi reasons`: the guide to the reasons of refusals, in the terminal. */
import { allReasons, rowOf } from '../nmi/diagnosis/codes.ts';
import { nearest } from '../base/nearest.ts';
import type { Args } from './flags.ts';
import { exitCodes, type Io } from './io.ts';

export function reasons({ rest: [code] }: Args, io: Io): number {
  if (code === undefined) {
    for (const reason of allReasons) {
      const { status, means } = rowOf(reason);
      io.stdout(`${reason.padEnd(24)} ${status ?? ''}  ${means}\n`);
    }
    return exitCodes.ok;
  }
  const reason = allReasons.find((each) => each === code);
  if (reason === undefined) {
    const near = nearest(code, allReasons, 4);
    const hint = near === undefined ? '' : `; did you mean "${near}"?`;
    io.stderr(`nmi reasons: unknown reason "${code}"${hint}\n`);
    return exitCodes.usage;
  }
  const { status, means, check, fix } = rowOf(reason);
  io.stdout(`${code} (HTTP ${status ?? ''})\n${means}\nCheck: ${check ?? ''}\nFix: ${fix}\n`);
  return exitCodes.ok;
}
