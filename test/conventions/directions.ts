/**
 * Allowed imports. Folder order is dependency order; each third-party package has its place.
 */
import { posix } from 'node:path';
import { readSyntax, type Import } from './syntax.ts';
import { typescriptIn, type SourceFile } from './tree.ts';

/**
 * The order of the entries of a folder, lowest first: each may import those on earlier lines, but
 * not those on its own line. Folders that are not listed have no fixed order: they may contain no
 * cycle between their entries.
 */
const orders: Readonly<Record<string, readonly (readonly string[])[]>> = {
  '': [['src'], ['lab']],
  src: [['base'], ['cache', 'redirect'], ['nmi'], ['cli', 'kubectl'], ['main.ts']],
  'src/cache': [['index', 'token']],
  'src/nmi': [
    ['base'],
    ['kube'],
    ['sources'],
    ['config'],
    ['callers'],
    ['grants'],
    ['diagnosis', 'kernel'],
    ['tokens', 'state'],
    ['server', 'conditions'],
    ['telemetry', 'explain'],
    ['admin'],
    ['agent.ts', 'conditions-process.ts', 'redirect-daemon.ts'],
  ],
  'src/kubectl': [
    ['base'],
    ['transport', 'azure'],
    ['cluster'],
    ['findings'],
    ['verbs', 'completion.ts', 'usage.ts'],
    ['plugin.ts'],
    ['main.ts'],
  ],
  lab: [
    ['fakes', 'frames', 'fabric'],
    ['pods'],
    ['test-bed'],
    ['scenarios'],
    ['command.ts', 'once.ts'],
    ['main.ts'],
  ],
};

/** What the folders beside the product and its test bed import nothing of. */
const strangers: Readonly<Record<string, readonly string[]>> = {
  scripts: ['lab', 'test'],
  bench: ['scripts', 'test'],
};

/** Built-in modules that do no I/O, and the pure functions of those that do. */
const pureBuiltins: Readonly<Record<string, 'all' | readonly string[]>> = {
  'node:assert': 'all',
  'node:assert/strict': 'all',
  'node:buffer': 'all',
  'node:crypto': 'all',
  'node:util': 'all',
  'node:net': ['SocketAddress', 'isIP', 'isIPv4', 'isIPv6'],
};

/** The product and its test bed. */
const roots = ['src', 'lab'] as const;

interface PackageHome {
  /** Files, or folders with a closing slash. */
  readonly homes: readonly string[];
  /** The only module of the package that may be imported. */
  readonly module?: string;
  /** Only one file, anywhere in `homes`, may import it. */
  readonly oneFile?: true;
}

/** Where each package may be imported, types included. Packages not listed may not be imported. */
const packages: Readonly<Record<string, PackageHome>> = {
  '@azure/msal-node': { homes: ['src/nmi/sources/entra/'], oneFile: true },
  '@kubernetes/client-node': {
    homes: ['src/nmi/kube/api/'],
    module: '@kubernetes/client-node/dist/config.js',
    oneFile: true,
  },
  'node-forge': { homes: ['src/nmi/sources/entra/credentials/', 'lab/fakes/'] },
  pino: { homes: ['src/base/'], oneFile: true },
  'prom-client': { homes: ['src/nmi/telemetry/'] },
  'sonic-boom': { homes: ['src/nmi/telemetry/audit/'], oneFile: true },
  undici: {
    homes: ['src/nmi/kube/api/', 'src/nmi/sources/', 'src/nmi/server/passthrough.ts'],
  },
  yaml: { homes: ['src/kubectl/'] },
  yargs: { homes: ['src/cli/', 'src/kubectl/', 'lab/command.ts'] },
};

/** Imports that break the order of folders, leave the product, or do I/O in the cache. */
export function checkOrder(files: readonly SourceFile[]): readonly string[] {
  const places = typescriptIn(files, ...roots).flatMap(({ path }) => {
    const problem = placeProblem(path);
    return problem === undefined ? [] : [`${path} ${problem}`];
  });
  const imports = eachImport(files, (path, { specifier, names }) => {
    if (specifier === '?') return 'imports something that is only known at run time';
    if (specifier.startsWith('.')) return orderProblem(path, resolve(path, specifier));
    if (!path.startsWith('src/cache/') || isPure(specifier, names)) return undefined;
    return `imports ${specifier}: the cache does no I/O and knows no package`;
  });
  return [...places, ...imports];
}

/** An entry of an ordered folder that the order does not name. */
function placeProblem(path: string): string | undefined {
  const parts = path.split('/');
  for (const depth of parts.keys()) {
    const folder = parts.slice(0, depth).join('/');
    const part = parts[depth] ?? '';
    if (orders[folder] !== undefined && rankIn(folder, part) < 0) {
      return `has no place in the order of ${folder}`;
    }
  }
  return undefined;
}

function orderProblem(path: string, target: string): string | undefined {
  if (/^(?:src|src\/kubectl|lab)\/main\.ts$/.test(target))
    return `imports ${target}, which nobody may`;
  const { folder, from, to } = fork(path, target);
  if (from === to || orders[folder] === undefined) return undefined;
  const rank = rankIn(folder, to);
  if (rank < 0) return `imports ${target}, which is outside src and lab`;
  if (rank < rankIn(folder, from)) return undefined;
  return `imports ${target}: ${from} is below ${to} or beside it`;
}

function rankIn(folder: string, part: string): number {
  return orders[folder]?.findIndex((line) => line.includes(part)) ?? -1;
}

/** Where two paths diverge: the common folder, and its entry on either side. */
function fork(path: string, target: string): { folder: string; from: string; to: string } {
  const [one, other] = [path.split('/'), target.split('/')];
  let depth = 0;
  while (depth < one.length - 1 && one[depth] === other[depth]) depth++;
  const folder = one.slice(0, depth).join('/');
  return { folder, from: one[depth] ?? '', to: other[depth] ?? '' };
}

/** Imports of `scripts` and `bench` from folders that they know nothing of. */
export function checkTools(files: readonly SourceFile[]): readonly string[] {
  const rootOf = (path: string): string => path.split('/')[0] ?? '';
  return typescriptIn(files, ...Object.keys(strangers)).flatMap((file) =>
    readSyntax(file)
      .imports.filter(({ specifier }) => specifier.startsWith('.'))
      .map(({ specifier }) => resolve(file.path, specifier))
      .filter((target) => strangers[rootOf(file.path)]?.includes(rootOf(target)))
      .map((target) => `${file.path} imports ${target}`),
  );
}

/** Folders, and files beside them, that import each other in a ring, at every level. */
export function checkFolderCycles(files: readonly SourceFile[]): readonly string[] {
  const levels = new Map<string, Map<string, Set<string>>>();
  for (const [path, targets] of importGraph(files)) {
    for (const target of targets) {
      const { folder, from, to } = fork(path, target);
      if (from === to) continue;
      const level = levels.get(folder) ?? new Map<string, Set<string>>();
      levels.set(folder, level);
      level.set(from, (level.get(from) ?? new Set()).add(to));
    }
  }
  return [...levels].flatMap(([folder, level]) =>
    cyclesIn(new Map([...level].map(([from, to]) => [from, [...to]]))).map(
      (cycle) => `${folder}: ${cycle}`,
    ),
  );
}

/** Imports of third-party packages outside their homes. */
export function checkPackages(files: readonly SourceFile[]): readonly string[] {
  const users = new Map<string, string>();
  return eachImport(files, (path, { specifier }) => {
    if (/^(?:\.|node:|\?)/.test(specifier)) return undefined;
    const name = packageOf(specifier);
    const home = packages[name];
    if (home === undefined) return `imports ${name}, which has no home in the table of packages`;
    if (!home.homes.some((place) => isIn(path, place))) {
      return `imports ${name}, whose home is ${home.homes.join(', ')}`;
    }
    if (home.module !== undefined && home.module !== specifier) {
      return `imports ${specifier} where only ${home.module} is meant to be loaded`;
    }
    if (home.oneFile !== true) return undefined;
    const user = users.get(name) ?? path;
    users.set(name, user);
    return user === path ? undefined : `imports ${name}, which ${user} is the one file for`;
  });
}

/** Each cycle of imports once, from its first file in alphabetical order; types count too. */
export function checkCycles(files: readonly SourceFile[]): readonly string[] {
  return cyclesIn(importGraph(files));
}

type Graph = ReadonlyMap<string, readonly string[]>;

/** The files that each file imports. */
function importGraph(files: readonly SourceFile[]): Graph {
  return new Map(
    typescriptIn(files, ...roots).map((file) => {
      const own = readSyntax(file).imports.filter(({ specifier }) => specifier.startsWith('.'));
      return [file.path, own.map(({ specifier }) => resolve(file.path, specifier))] as const;
    }),
  );
}

function cyclesIn(graph: Graph): readonly string[] {
  const cycles: string[] = [];
  const finished = new Set<string>();
  const visit = (node: string, trail: readonly string[]): void => {
    const from = trail.indexOf(node);
    if (from >= 0) {
      cycles.push([...trail.slice(from), node].join(' -> '));
      return;
    }
    if (finished.has(node)) return;
    for (const next of graph.get(node) ?? []) visit(next, [...trail, node]);
    finished.add(node);
  };
  for (const node of [...graph.keys()].sort()) visit(node, []);
  return cycles;
}

function eachImport(
  files: readonly SourceFile[],
  check: (path: string, found: Import) => string | undefined,
): readonly string[] {
  return typescriptIn(files, ...roots).flatMap((file) =>
    readSyntax(file).imports.flatMap((found) => {
      const problem = check(file.path, found);
      return problem === undefined ? [] : [`${file.path}:${found.line} ${problem}`];
    }),
  );
}

function resolve(from: string, specifier: string): string {
  return posix.join(posix.dirname(from), specifier);
}

function isPure(specifier: string, names: readonly string[]): boolean {
  const pure = pureBuiltins[specifier];
  if (pure === undefined || pure === 'all') return pure === 'all';
  return names.length > 0 && names.every((name) => pure.includes(name));
}

function isIn(path: string, place: string): boolean {
  return place.endsWith('/') ? path.startsWith(place) : path === place;
}

function packageOf(specifier: string): string {
  const parts = specifier.split('/');
  return parts.slice(0, specifier.startsWith('@') ? 2 : 1).join('/');
}
