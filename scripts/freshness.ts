/**
 * Whether the executable was built from the current files: a digest over the content of all its
 * input files and over the Node that it contains.
 */
import { createHash } from 'node:crypto';
import { globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const inputs = [
  'src/**/*',
  // The bundle runs in it while its code is compiled.
  'lab/{main,once}.ts',
  'lab/fakes/**/*',
  'scripts/{build,bundle,code-cache,facades,freshness,native,notices}.ts',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
];

/** The digest of all inputs of the executable under `root`. */
export function digestOfInputs(root: string): string {
  return digestOfFiles(root, inputs);
}

/** Hexadecimal SHA-256 over this Node and the names and contents of matching files under `root`. */
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
