/** A file of the product that decides anything has its own test, under its own name. */
import { mirrorsOf } from '../mutation/tests-beside.ts';
import { readSyntax } from './syntax.ts';
import { typescriptIn, type SourceFile } from './tree.ts';

interface Exemption {
  readonly path: string;
  /** The tests' folder. */
  readonly tests: string;
  readonly reason: string;
}

const exemptions: readonly Exemption[] = [
  {
    path: 'src/main.ts',
    tests: 'test/process/',
    reason: 'owns the process: its tests start one and look at it from outside',
  },
];

/** Files that decide something and have no test of their own, and unnecessary exemptions. */
export function checkMirrors(
  files: readonly SourceFile[],
  exempt: readonly Exemption[] = exemptions,
): readonly string[] {
  const paths = new Set(files.map(({ path }) => path));
  const untested = typescriptIn(files, 'src').filter(
    (file) =>
      !mirrorsOf(file.path).some((mirror) => paths.has(mirror)) &&
      readSyntax(file).decisions.length > 0,
  );
  const missing = untested
    .filter(({ path }) => !exempt.some((each) => each.path === path))
    .map((file) => {
      const [line = 0] = readSyntax(file).decisions;
      return `${file.path}:${line} decides something, and there is no ${mirrorsOf(file.path)[0] ?? 'test'}`;
    });
  const idle = exempt.flatMap(({ path, tests }) => {
    if (!untested.some((file) => file.path === path)) return [`${path} needs no exemption`];
    const hasTests = [...paths].some((each) => each.startsWith(tests) && each.endsWith('.test.ts'));
    return hasTests ? [] : [`${path} is to be tested in ${tests}, where no test is`];
  });
  return [...missing, ...idle];
}
