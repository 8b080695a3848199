/** What a release has: `release.json` for programs, `SHA256SUMS` for `sha256sum --check`. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a registry gets. */
export interface Artifact {
  /** Where it goes, below the place in the registry. */
  readonly repository: string;
  /** Of the manifest or the index, in every registry. */
  readonly digest: string;
  /** The file that has it, an OCI archive. */
  readonly archive: string;
}

export interface Listing {
  readonly version: string;
  readonly commit: string;
  readonly image: Artifact;
  readonly chart: Artifact;
}

const listing = 'release.json';
const sums = 'SHA256SUMS';

interface ListedFile {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

/** Lists all files of the folder so far. */
export function writeListing(folder: string, release: Listing): void {
  const files = readdirSync(folder)
    .toSorted()
    .map((name): ListedFile => {
      const path = join(folder, name);
      return { name, size: statSync(path).size, sha256: digestOf(path) };
    });
  writeFileSync(join(folder, listing), `${JSON.stringify({ ...release, files }, undefined, 2)}\n`);
  const all = [...files, { name: listing, sha256: digestOf(join(folder, listing)) }];
  writeFileSync(join(folder, sums), all.map((each) => `${each.sha256}  ${each.name}\n`).join(''));
}

/** @throws Error if there is no release, or one of its files has changed. */
export function readListing(folder: string): Listing {
  const lines = readFileSync(join(folder, sums), 'utf8').trim().split('\n');
  for (const line of lines) {
    const [digest = '', name = ''] = line.split('  ');
    if (digestOf(join(folder, name)) !== digest) throw new Error(`${name} is not that of ${sums}`);
  }
  const release: unknown = JSON.parse(readFileSync(join(folder, listing), 'utf8'));
  if (!isListing(release)) throw new Error(`${listing} names no image and chart`);
  return release;
}

/** Its digest is checked, so nobody else has written it. */
function isListing(value: unknown): value is Listing {
  return typeof value === 'object' && value !== null && 'image' in value && 'chart' in value;
}

function digestOf(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}
