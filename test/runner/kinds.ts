/** Kinds of test files, by their names: which run has them, beside what, and what is built for them before. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Each run contains the one before: `./dev test`, `./dev test --all`, `./dev test --long`. */
export const sizes = ['test', 'all', 'long'] as const;
export type Size = (typeof sizes)[number];

/**
 * `alone`: measures latency, so nothing runs beside it. `kernel`: one at a time, since two of them would use the same
 * part of the kernel. `shared`: beside each other and beside one of `kernel`.
 */
export type Lane = 'alone' | 'kernel' | 'shared';

/** What is built or fetched before tests can use it; what most tests wait for comes first, the longest builds last. */
export const allPrograms = [
  'cluster',
  'clients',
  'kernels',
  'registry',
  'older',
  'node',
  'gvisor',
] as const;
export type Programs = (typeof allPrograms)[number];

export interface Kind {
  /** A word of the command line; two kinds may share it. */
  readonly name: string;
  /** As CONTRIBUTING.md has it. */
  readonly files: string;
  readonly size: Size;
  /** Default: `shared`. */
  readonly lane?: Lane;
  readonly needs?: Programs;
}

/** The first that fits a file is its kind. Files start in this order, so what takes minutes comes first. */
export const kinds: readonly Kind[] = [
  { name: 'lab', files: 'attacks.lab.test.ts', size: 'all', lane: 'alone' },
  { name: 'kernel', files: 'hit-ratio.kernel.test.ts', size: 'test', lane: 'alone' },
  { name: 'kernels', files: 'test/node/kernels/long/*.vm.test.ts', size: 'long', needs: 'kernels' },
  { name: 'node', files: 'test/node/long/*.node.test.ts', size: 'long', needs: 'node' },
  { name: 'node', files: '*.node.test.ts', size: 'all', needs: 'node' },
  { name: 'kernels', files: '*.vm.test.ts', size: 'all', needs: 'kernels' },
  { name: 'lab', files: '*.lab.test.ts', size: 'test' },
  { name: 'debian', files: '*.debian.test.ts', size: 'all' },
  { name: 'debian', files: '*.image.test.ts', size: 'long' },
  { name: 'unit', files: 'test/simulation/*.test.ts', size: 'test' },
  { name: 'cluster', files: 'test/cluster/wide/*.cluster.test.ts', size: 'all', needs: 'cluster' },
  { name: 'kernel', files: 'clients.kernel.test.ts', size: 'all', lane: 'kernel' },
  { name: 'kernel', files: '*.kernel.test.ts', size: 'test', lane: 'kernel' },
  { name: 'cluster', files: '*.cluster.test.ts', size: 'test', needs: 'cluster' },
  { name: 'helm', files: '*.helm.test.ts', size: 'test', needs: 'cluster' },
  { name: 'conformance', files: 'test/conformance/*.test.ts', size: 'test' },
  { name: 'unit', files: '*.test.ts', size: 'test' },
];

export function kindOf(file: string): Kind {
  const kind = kinds.find(({ files }) => fits(file, files));
  if (kind === undefined) throw new Error(`${file} is not the name of a test`);
  return kind;
}

function fits(file: string, files: string): boolean {
  const slash = files.lastIndexOf('/') + 1;
  const end = files.slice(slash + 1);
  return file.endsWith(end) && (slash === 0 || `/${file}`.includes(`/${files.slice(0, slash)}`));
}

export function laneOf(file: string): Lane {
  return kindOf(file).lane ?? 'shared';
}

/** Of its kind, and of what it calls. */
export function needsOf(file: string, size: Size, root: string): readonly Programs[] {
  const { name, needs } = kindOf(file);
  const text = readFileSync(join(root, file), 'utf8');
  const olderFrom: Size = /^describeOnEveryVersion\(/m.test(text) ? 'all' : 'long';
  const calls = (maker: string): boolean => new RegExp(`^import .*\\b${maker}\\b`, 'm').test(text);
  return [
    ...(needs === undefined ? [] : [needs]),
    ...(name === 'cluster' && isWithin(olderFrom, size) ? (['older'] as const) : []),
    ...(calls('installKit') ? (['clients'] as const) : []),
    ...(calls('provideRegistry') ? (['registry'] as const) : []),
    ...(calls('provideGvisor') ? (['gvisor'] as const) : []),
  ];
}

export function isWithin(part: Size, whole: Size): boolean {
  return sizes.indexOf(part) <= sizes.indexOf(whole);
}

/** Of the run that this process belongs to; a test that is started by hand is one of `all`. */
export function sizeOfThisRun(): Size {
  const given = process.env['TEST_SIZE'];
  return sizes.find((size) => size === given) ?? 'all';
}
