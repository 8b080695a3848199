/** `nmi reasons`: the guide to the reasons of refusals, in the terminal. */
import { refusals } from '../nmi/base/answers.ts';
import { reasonGuide } from '../nmi/base/reason-guide.ts';
import { nearest } from '../nmi/config/nearest.ts';
import type { Words } from './flags.ts';
import { exitCodes, type Outside } from './outside.ts';

const reasonNames = Object.keys(reasonGuide) as readonly (keyof typeof reasonGuide)[];

export function reasons({ rest: [code] }: Words, outside: Outside): number {
  if (code === undefined) {
    for (const name of reasonNames) {
      outside.stdout(`${name.padEnd(24)} ${refusals[name].status}  ${reasonGuide[name].means}\n`);
    }
    return exitCodes.ok;
  }
  const known = reasonNames.find((name) => name === code);
  if (known === undefined) {
    const near = nearest(code, reasonNames);
    const hint = near !== undefined && near.edits <= 4 ? `; did you mean "${near.name}"?` : '';
    outside.stderr(`nmi reasons: unknown reason "${code}"${hint}\n`);
    return exitCodes.usage;
  }
  const { means, check, fix } = reasonGuide[known];
  outside.stdout(
    `${known} (HTTP ${refusals[known].status})\n${means}\nCheck: ${check}\nFix: ${fix}\n`,
  );
  return exitCodes.ok;
}
