/**
 * The Debian that releases are made of: a time in Debian's archive of snapshots, and the digests of the
 * indexes that Debian has signed for it. By the digests, another mirror with the same indexes is as good.
 */
import { createHash } from 'node:crypto';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** From the root of the clone. */
export const pinFile = 'scripts/image/debian-pin.json';

export interface DebianPin {
  /** As in addresses of snapshot.debian.org: 20261129T000000Z. */
  readonly snapshot: string;
  /** SHA-256 of each file InRelease by its codename: trixie, trixie-updates, trixie-security. */
  readonly indexes: Readonly<Record<string, string>>;
}

/** @throws Error if there is none, or it is incomplete. */
export function readPin(root: string): DebianPin {
  const file = join(root, pinFile);
  const pin: unknown = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
  if (isPin(pin)) return pin;
  const problem = pin === undefined ? 'is missing' : 'has no snapshot or no indexes';
  throw new Error(`${pinFile} ${problem}: run ./dev release pin, and commit it`);
}

function isPin(value: unknown): value is DebianPin {
  if (typeof value !== 'object' || value === null) return false;
  const { snapshot, indexes } = value as Partial<Record<keyof DebianPin, unknown>>;
  if (typeof snapshot !== 'string' || !/^\d{8}T\d{6}Z$/.test(snapshot)) return false;
  if (typeof indexes !== 'object' || indexes === null) return false;
  const digests = Object.values(indexes);
  return digests.length > 0 && digests.every((each) => /^[0-9a-f]{64}$/.test(String(each)));
}

/** The digests by codename, from the folder where apt keeps what it has verified. */
export function readIndexes(lists: string): DebianPin['indexes'] {
  const files = globSync('*_InRelease', { cwd: lists }).toSorted();
  const indexes = files.map((file) => {
    const content = readFileSync(join(lists, file));
    const [, codename = file] = /^Codename: (\S+)$/m.exec(content.toString()) ?? [];
    return [codename, createHash('sha256').update(content).digest('hex')] as const;
  });
  if (indexes.length === 0) throw new Error('apt has no signed index of Debian');
  return Object.fromEntries(indexes);
}

/** The first index, by name, that is only on one side or has two digests. */
export function findUnpinned(
  { indexes: pinned }: DebianPin,
  indexes: DebianPin['indexes'],
): string | undefined {
  const names = new Set([...Object.keys(pinned), ...Object.keys(indexes)]);
  return [...names].toSorted().find((name) => pinned[name] !== indexes[name]);
}
