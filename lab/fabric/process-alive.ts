import { readFileSync } from 'node:fs';

/** A zombie counts as dead: it can no longer clean up. */
export function isAlive(pid: number): boolean {
  try {
    const text = readFileSync(`/proc/${String(pid)}/stat`, 'latin1');
    // The command in parentheses may itself contain parentheses and spaces; the state follows it.
    const state = text.charAt(text.lastIndexOf(')') + 2);
    return state !== 'Z' && state !== 'X';
  } catch {
    return false;
  }
}
