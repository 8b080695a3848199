/** `nmi reasons`: the guide to the reasons of refusals, in the terminal. */
import { refusals, type RefusalReason } from '../nmi/base/answers.ts';
import { rowOf } from '../nmi/diagnosis/codes.ts';
import { nearest } from '../base/nearest.ts';
import type { Args } from './flags.ts';
import { exitCodes, type Io } from './io.ts';

const known = Object.keys(refusals) as RefusalReason[];

export function reasons({ rest: [code] }: Args, io: Io): number {
  if (code === undefined) {
    for (const reason of known) {
      const { status, means } = rowOf(reason);
      io.stdout(`${reason.padEnd(24)} ${status ?? ''}  ${means}\n`);
    }
    return exitCodes.ok;
  }
  const reason = known.find((each) => each === code);
  if (reason === undefined) {
    const near = nearest(code, known);
    const hint = near !== undefined && near.edits <= 4 ? `; did you mean "${near.name}"?` : '';
    io.stderr(`nmi reasons: unknown reason "${code}"${hint}\n`);
    return exitCodes.usage;
  }
  const { status, means, check, fix } = rowOf(reason);
  io.stdout(`${code} (HTTP ${status ?? ''})\n${means}\nCheck: ${check ?? ''}\nFix: ${fix}\n`);
  return exitCodes.ok;
}
