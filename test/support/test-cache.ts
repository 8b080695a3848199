/**
 * What tests build or fetch once, each under a key of its inputs. Clones may share the folder, and it
 * contains nothing that depends on the path of a clone.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { isAlive } from '../../lab/fabric/process-alive.ts';

// The runner passes the folder on by the second name: agents in tests inherit their environment, and
// warn of a variable `NMI_…` that is no option.
const given = process.env['NMI_TEST_CACHE'] ?? process.env['TEST_CACHE'] ?? '';

export const testCache = given === '' ? join(import.meta.dirname, '../../.cache') : resolve(given);

/** Another clone may use what this one does not. */
const keptForDays = 14;
const dayMs = 24 * 3_600_000;

export function keyOf(inputs: readonly string[]): string {
  return createHash('sha256').update(inputs.join('\0')).digest('hex').slice(0, 12);
}

/** Notes that the folder or file is in use, so that it is kept. */
export function isKept(path: string): boolean {
  if (!existsSync(path)) return false;
  writeFileSync(`${path}.used`, '');
  return true;
}

/**
 * A folder or file, with a key at the end of its name. `make` gets a work folder and returns the path
 * in it that is kept. That is renamed, so that what exists is complete; if another process was first,
 * its result stays. What is there under other keys is removed once it was not used for so many days.
 */
export function keep(path: string, make: (work: string) => string, unusedDays = keptForDays): void {
  const cache = dirname(path);
  mkdirSync(cache, { recursive: true });
  removeDeadWork(cache);
  const work = mkdtempSync(join(cache, `.work-${process.pid}-`));
  try {
    const made = make(work);
    if (!existsSync(path)) rename(made, path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  isKept(path);
  removeUnused(path, unusedDays);
}

function rename(made: string, path: string): void {
  try {
    renameSync(made, path);
  } catch (err) {
    if (!existsSync(path)) throw err;
  }
}

function removeUnused(own: string, unusedDays: number): void {
  const cache = dirname(own);
  const ownName = withoutKey(basename(own));
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    if (withoutKey(name) === name || path === own) continue;
    const lastUse = statSync(`${path}.used`, quietly) ?? statSync(path, quietly);
    const days = withoutKey(name) === ownName ? unusedDays : keptForDays;
    if (lastUse === undefined || Date.now() - lastUse.mtimeMs < days * dayMs) continue;
    rmSync(path, { recursive: true, force: true });
    rmSync(`${path}.used`, { force: true });
  }
}

const quietly = { throwIfNoEntry: false } as const;

function withoutKey(name: string): string {
  return name.replace(/-[0-9a-f]{12}$/, '');
}

/** Unfinished work of processes that were killed. */
export function removeDeadWork(cache: string): void {
  for (const name of readdirSync(cache)) {
    const pid = /^\.work-(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) {
      rmSync(join(cache, name), { recursive: true, force: true });
    }
  }
}
