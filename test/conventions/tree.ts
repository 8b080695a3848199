/** The repository's own files as values, so that every convention is a pure function over them. */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

export interface SourceFile {
  /** From the repository's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
}

/** Absolute path of the repository. */
export const repositoryRoot = join(import.meta.dirname, '../..');

/** Every text file that is tracked, or would be by `git add`, without links and binary files. */
export function repositoryFiles(): readonly SourceFile[] {
  return listPaths()
    .filter((path) => statSync(join(repositoryRoot, path), { throwIfNoEntry: false })?.isFile())
    .map((path) => ({ path, text: readFileSync(join(repositoryRoot, path), 'utf8') }))
    .filter(({ text }) => !text.includes('\0'));
}

/** The TypeScript files below one of the folders, or exactly at a path. */
export function typescriptIn(
  files: readonly SourceFile[],
  ...roots: readonly string[]
): readonly SourceFile[] {
  return files.filter(
    ({ path }) =>
      path.endsWith('.ts') && roots.some((root) => path === root || path.startsWith(`${root}/`)),
  );
}

/** A source archive has no index; build and installation outputs are left out by name there. */
function listPaths(): readonly string[] {
  const options = { cwd: repositoryRoot, encoding: 'utf8' } as const;
  const listed = spawnSync('git', ['ls-files', '-z', '-co', '--exclude-standard'], options);
  if (listed.status === 0 && existsSync(join(repositoryRoot, '.git'))) {
    return listed.stdout.split('\0').filter((path) => path !== '');
  }
  const made = /^(?:node_modules|dist|\.git|\.cache)(?:\/|$)/;
  return globSync(['**/*', '.*', '.ci/**/*'], { cwd: repositoryRoot }).filter(
    (path) => !made.test(path),
  );
}
