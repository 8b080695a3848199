/** `nmi reasons`: the guide to the reasons of refusals, in the terminal. */
import { refusals } from '../nmi/base/answers.ts';
import { reasonGuide, type ReasonGuide } from '../nmi/base/reason-guide.ts';
import { nearest } from '../base/nearest.ts';
import type { Args } from './flags.ts';
import { exitCodes, type Io } from './io.ts';

const guide = new Map<string, ReasonGuide>(Object.entries(reasonGuide));
const statuses = new Map<string, number>(
  Object.entries(refusals).map(([reason, { status }]) => [reason, status]),
);

export function reasons({ rest: [code] }: Args, io: Io): number {
  if (code === undefined) {
    for (const [name, { means }] of guide) {
      io.stdout(`${name.padEnd(24)} ${statuses.get(name) ?? ''}  ${means}\n`);
    }
    return exitCodes.ok;
  }
  const known = guide.get(code);
  if (known === undefined) {
    const near = nearest(code, guide.keys(), 4);
    const hint = near === undefined ? '' : `; did you mean "${near}"?`;
    io.stderr(`nmi reasons: unknown reason "${code}"${hint}\n`);
    return exitCodes.usage;
  }
  const { means, check, fix } = known;
  io.stdout(`${code} (HTTP ${statuses.get(code) ?? ''})\n${means}\nCheck: ${check}\nFix: ${fix}\n`);
  return exitCodes.ok;
}
