/** Kinds of test files, by their names, and the smallest run that has them. */

/** Each run contains the one before: `./dev test`, `./dev test --all`, `./dev test --long`. */
export const sizes = ['test', 'all', 'long'] as const;
export type Size = (typeof sizes)[number];

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
  /**
   * Measures, or fails when another file uses the same part of the kernel: no two such files run at
   * once.
   */
  readonly isExclusive: boolean;
  readonly needs: readonly Programs[];
  /** How many processors a file without a measured time uses; what measures latency claims more. */
  readonly processors: number;
  /** Of a file without a measured time. */
  readonly usualSeconds: number;
}

const anywhere = {
  size: 'test',
  isExclusive: false,
  needs: [],
  processors: 0.6,
  usualSeconds: 5,
} as const;
const alone = { ...anywhere, isExclusive: true, usualSeconds: 30 } as const;

/** The first that fits a file is its kind. */
export const kinds: readonly Kind[] = [
  {
    ...alone,
    name: 'lab',
    files: 'attacks.lab.test.ts',
    size: 'all',
    processors: 1.6,
    usualSeconds: 120,
  },
  { ...anywhere, name: 'lab', files: '*.lab.test.ts', processors: 0.75, usualSeconds: 300 },
  { ...alone, name: 'kernel', files: 'clients.kernel.test.ts', size: 'all', processors: 0.7 },
  // Processor time beside other files is up to twice as much, and not alike for all programs.
  { ...alone, name: 'kernel', files: 'hit-ratio.kernel.test.ts', processors: 1.6 },
  { ...alone, name: 'kernel', files: '*.kernel.test.ts', processors: 0.7 },
  {
    ...anywhere,
    name: 'cluster',
    files: 'test/cluster/wide/*.cluster.test.ts',
    size: 'all',
    needs: ['cluster'],
    usualSeconds: 100,
  },
  {
    ...anywhere,
    name: 'cluster',
    files: '*.cluster.test.ts',
    needs: ['cluster'],
    usualSeconds: 60,
  },
  { ...anywhere, name: 'helm', files: '*.helm.test.ts', needs: ['cluster'] },
  {
    ...anywhere,
    name: 'node',
    files: 'test/node/long/*.node.test.ts',
    size: 'long',
    needs: ['node'],
    processors: 0.7,
    usualSeconds: 400,
  },
  {
    ...anywhere,
    name: 'node',
    files: '*.node.test.ts',
    size: 'all',
    needs: ['node'],
    processors: 0.7,
    usualSeconds: 300,
  },
  {
    ...anywhere,
    name: 'debian',
    files: '*.debian.test.ts',
    size: 'all',
    usualSeconds: 240,
  },
  {
    ...anywhere,
    name: 'debian',
    files: '*.image.test.ts',
    size: 'long',
    usualSeconds: 240,
  },
  {
    ...anywhere,
    name: 'kernels',
    files: 'test/kernels/long/*.vm.test.ts',
    size: 'long',
    needs: ['kernels'],
    usualSeconds: 3_000,
  },
  {
    ...anywhere,
    name: 'kernels',
    files: '*.vm.test.ts',
    size: 'all',
    needs: ['kernels'],
    usualSeconds: 300,
  },
  {
    ...anywhere,
    name: 'conformance',
    files: 'test/conformance/*.test.ts',
    processors: 0.3,
    usualSeconds: 20,
  },
  // They compute all the time, and would wait for the end if they claimed a whole processor.
  {
    ...anywhere,
    name: 'unit',
    files: 'test/simulation/*.test.ts',
    processors: 0.7,
    usualSeconds: 40,
  },
  { ...anywhere, name: 'unit', files: '*.test.ts' },
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

export function isExclusive(file: string): boolean {
  return file.endsWith('.test.ts') && kindOf(file).isExclusive;
}

export function isWithin(part: Size, whole: Size): boolean {
  return sizes.indexOf(part) <= sizes.indexOf(whole);
}

/** Of the run that this process belongs to; a test that is started by hand is one of `all`. */
export function sizeOfThisRun(): Size {
  const given = process.env['TEST_SIZE'];
  return sizes.find((size) => size === given) ?? 'all';
}
