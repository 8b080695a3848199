/**
 * Whether the executable was made from what lies here now: a digest over the content of every file
 * it is made from, and over the Node it carries.
 */
import { createHash } from 'node:crypto';
import { globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const inputs = [
  'src/**/*',
  'scripts/{build,bundle,freshness}.ts',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
];

/** Hexadecimal SHA-256 over names and contents of the build's inputs under `root`. */
export function digestOfInputs(root: string): string {
  const hash = createHash('sha256').update(`${process.version} ${process.arch}\n`);
  for (const path of globSync(inputs, { cwd: root }).sort()) {
    const file = join(root, path);
    if (!statSync(file).isFile()) continue;
    const content = readFileSync(file);
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}
