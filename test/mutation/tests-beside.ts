/** Which tests have to detect a fault in a source file. */
import { existsSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { parseSync } from 'rolldown/utils';
import { kindOf } from '../runner/kinds.ts';

const endings = ['.test.ts', '.kernel.test.ts', '.cluster.test.ts'] as const;

/** The names that the test of a file of the product may have. */
export function mirrorsOf(path: string): readonly string[] {
  const base = path.replace(/^src\//, 'test/').replace(/\.ts$/, '');
  return endings.map((ending) => `${base}${ending}`);
}

/**
 * The file's own unit test, then the others of the same folder. If the file has none of its own, its
 * tests on a kernel or a cluster.
 * @param tests every test of the repository.
 */
export function testsBeside(file: string, tests: readonly string[]): readonly string[] {
  const mirrors = mirrorsOf(file);
  const folder = posix.dirname(mirrors[0] ?? '');
  const own = tests.filter((test) => mirrors.includes(test));
  const units = own.filter(isUnit);
  const others = tests
    .filter((test) => posix.dirname(test) === folder && !own.includes(test))
    .filter(isUnit)
    .toSorted();
  return [...(units.length > 0 ? units : own), ...others];
}

function isUnit(test: string): boolean {
  return kindOf(test).name === 'unit';
}

/** Which files a file imports, at any distance. */
export class Imports {
  readonly #root: string;
  readonly #direct = new Map<string, readonly string[]>();
  readonly #all = new Map<string, ReadonlySet<string>>();

  constructor(root: string) {
    this.#root = root;
  }

  reaches(from: string, to: string): boolean {
    const known = this.#all.get(from) ?? this.#closure(from);
    this.#all.set(from, known);
    return known.has(to);
  }

  #closure(from: string): ReadonlySet<string> {
    const found = new Set<string>();
    for (let left = [from]; left.length > 0;) {
      left = left.flatMap((file) => this.#importsOf(file)).filter((file) => !found.has(file));
      for (const file of left) found.add(file);
    }
    return found;
  }

  #importsOf(file: string): readonly string[] {
    const known = this.#direct.get(file);
    if (known !== undefined) return known;
    const path = posix.join(this.#root, file);
    const imports = file.endsWith('.ts') && existsSync(path) ? importsIn(file, path) : [];
    this.#direct.set(file, imports);
    return imports;
  }
}

function importsIn(file: string, path: string): readonly string[] {
  const text = readFileSync(path, 'utf8');
  const { module } = parseSync(file, text, { lang: 'ts', sourceType: 'module' });
  return [
    ...module.staticImports.map(({ moduleRequest }) => moduleRequest.value),
    ...module.staticExports.flatMap(({ entries }) =>
      entries.flatMap(({ moduleRequest }) => moduleRequest?.value ?? []),
    ),
    ...module.dynamicImports.map(({ moduleRequest: { start, end } }) =>
      text.slice(start + 1, end - 1),
    ),
  ]
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => posix.join(posix.dirname(file), specifier));
}
