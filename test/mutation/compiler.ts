/** Whether a fault is left to the tests: nobody can make one that the compiler rejects. */
import { spawnSync } from 'node:child_process';
import { globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');

/**
 * Of one file and all that it imports, which takes a second; a fault does not change what a file
 * exports.
 * @param folder with the whole tree. @param file from there.
 */
export function compiles(folder: string, file: string): boolean {
  const place = mkdtempSync(join(tmpdir(), 'nmi-compile-'));
  try {
    const declarations = globSync('src/**/*.d.ts', { cwd: folder });
    const project = join(place, 'tsconfig.json');
    writeFileSync(
      project,
      JSON.stringify({
        extends: join(folder, 'tsconfig.json'),
        compilerOptions: { typeRoots: [join(root, 'node_modules/@types')] },
        include: [],
        files: [file, ...declarations].map((each) => join(folder, each)),
      }),
    );
    const compiler = join(root, 'node_modules/.bin/tsc');
    const { status, error } = spawnSync(compiler, ['-p', project], { stdio: 'ignore' });
    if (error !== undefined) throw error;
    return status === 0;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}
