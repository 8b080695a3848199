/** A file of the product that decides anything has its own test, under its own name. */
import { mirrorsOf } from '../mutation/tests-beside.ts';
import { readSyntax } from './syntax.ts';
import { typescriptIn, type SourceFile } from './tree.ts';

/** Files that decide something and have no test of their own. */
export function checkMirrors(files: readonly SourceFile[]): readonly string[] {
  const paths = new Set(files.map(({ path }) => path));
  return typescriptIn(files, 'src')
    .filter((file) => !mirrorsOf(file.path).some((mirror) => paths.has(mirror)))
    .flatMap((file) => {
      const [line] = readSyntax(file).decisions;
      if (line === undefined) return [];
      return [
        `${file.path}:${line} decides something, and there is no ${mirrorsOf(file.path)[0] ?? 'test'}`,
      ];
    });
}
