/**
 * Small JSON files in a folder that several processes share: agents of one node, or both containers of a pod.
 * A reader may distrust the writer, which may be another user: it follows no link, waits for no pipe, and reads no
 * more than `maxBytes`.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { parseRecord, type JsonRecord } from '../../base/json-value.ts';

/** A thousand ids of cgroups take 24 kB. */
const maxBytes = 64 * 1024;

/** Replaces the file at once. @throws errors of the file system. */
export function writeShared(path: string, value: unknown): void {
  const aside = `${path}.${Math.random().toString(16).slice(2, 10)}`;
  try {
    // Exclusive: another user who may write to the folder cannot have put a link there.
    writeFileSync(aside, JSON.stringify(value), { flag: 'wx', mode: 0o644 });
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
}

/** The content; undefined if there is no such file, or no JSON object of that size in it. */
export function readShared(path: string): JsonRecord | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > maxBytes) return undefined;
    return parseRecord(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Ids of cgroups in such a file, without what can be none: a map of the kernel would have another id for it. */
export function cgroupIds(texts: readonly unknown[]): readonly bigint[] {
  const numbers = texts.filter((each) => typeof each === 'string' && /^[1-9]\d{0,19}$/.test(each));
  return numbers.map((each) => BigInt(String(each))).filter((id) => id < 2n ** 64n);
}

/** Calls back when the file is replaced or removed. A kernel without room for another watch reports nothing. */
export function watchShared(path: string, onChange: () => void): Disposable {
  const name = basename(path);
  try {
    const watcher = watch(dirname(path), { persistent: false }, (_event, changed) => {
      if (changed === name) onChange();
    });
    watcher.on('error', () => watcher.close());
    return { [Symbol.dispose]: () => watcher.close() };
  } catch {
    return { [Symbol.dispose]: () => undefined };
  }
}
