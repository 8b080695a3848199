/**
 * Whether the executable was made from what lies here now: a digest over the content of every file
 * it is made from, and over the Node it carries.
 */
import { createHash } from 'node:crypto';
import { globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const inputs = [
  'src/**/*',
  // Beside these it serves while its code is compiled.
  'lab/fakes/**/*',
  'scripts/{build,bundle,code-cache,facades,freshness,native,notices}.ts',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
];

/** The digest of all that the executable is made from, under `root`. */
export function digestOfInputs(root: string): string {
  return digestOfFiles(root, inputs);
}

/** Hexadecimal SHA-256 over this Node and the names and contents of what matches under `root`. */
export function digestOfFiles(root: string, patterns: readonly string[]): string {
  const hash = createHash('sha256').update(`${process.version} ${process.arch}\n`);
  for (const path of globSync(patterns, { cwd: root }).sort()) {
    const file = join(root, path);
    if (!statSync(file).isFile()) continue;
    const content = readFileSync(file);
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}
