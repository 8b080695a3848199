/** The hidden verb of the self-test: one request from wherever this process was put. */
import { dialOnce } from '../redirect/self-dial.ts';
import type { Words } from './flags.ts';
import { exitCodes, type Outside } from './outside.ts';

export async function selfDial(words: Words, outside: Outside): Promise<number> {
  outside.stdout(`${await dialOnce(words.rest)}\n`);
  return exitCodes.ok;
}
