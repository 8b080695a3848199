/**
 * Checks with prettier the files that have not passed before. All files take 34 s of processor time. The cache of
 * prettier belongs to the path of one clone; this one has hashes of contents, and clones share it.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

const root = join(import.meta.dirname, '..');
/** Of several branches. */
const maxKept = 10_000;

export interface FormatCheck {
  readonly root: string;
  /** Has a line for each file that has passed. */
  readonly cache: string;
  /** prettier on those files; true if all are formatted. */
  readonly check: (paths: readonly string[]) => boolean;
}

/** True if all files below the root are formatted. */
export function checkFormat({ root: folder, cache, check }: FormatCheck): boolean {
  const settings = ['package-lock.json', '.prettierrc.json', '.prettierignore'].map((name) =>
    readFileSync(join(folder, name), 'utf8'),
  );
  const passed = existsSync(cache) ? readFileSync(cache, 'utf8').split('\n') : [];
  const hashes = new Map(
    listFiles(folder).map((path) => {
      const hash = createHash('sha256').update(JSON.stringify([...settings, path]));
      return [path, hash.update(readFileSync(join(folder, path))).digest('hex')];
    }),
  );
  const known = new Set(passed);
  const unknown = [...hashes].flatMap(([path, hash]) => (known.has(hash) ? [] : [path]));
  if (unknown.length === 0) return true;
  if (!check(unknown)) return false;
  const kept = new Set([...hashes.values(), ...passed]);
  mkdirSync(dirname(cache), { recursive: true });
  // Another clone may read it.
  const work = `${cache}.${process.pid}`;
  writeFileSync(work, [...kept].slice(0, maxKept).join('\n'));
  renameSync(work, cache);
  return true;
}

/** From the root, without what is installed or built. */
function listFiles(folder: string): readonly string[] {
  return globSync(['**/*', '**/.*', '.*/**/*'], {
    cwd: folder,
    withFileTypes: true,
    exclude: ({ name }) => ['node_modules', 'dist', '.cache', '.git'].includes(name),
  })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(folder, join(parentPath, name)))
    .toSorted();
}

function runPrettier(paths: readonly string[]): boolean {
  const program = join(root, 'node_modules/.bin/prettier');
  const flags = ['--check', '--ignore-unknown', '--log-level', 'warn'];
  return spawnSync(program, [...flags, ...paths], { cwd: root, stdio: 'inherit' }).status === 0;
}

if (import.meta.main) {
  const { TEST_CACHE, NMI_TEST_CACHE } = process.env;
  const cache = join(TEST_CACHE ?? NMI_TEST_CACHE ?? join(root, '.cache'), 'formatted');
  process.exitCode = checkFormat({ root, cache, check: runPrettier }) ? 0 : 1;
}
