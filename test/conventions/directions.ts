/**
 * Who may import what. Folder order is dependency order; each third-party package has its place.
 */
import { posix } from 'node:path';
import { readSyntax, type Import } from './syntax.ts';
import { typescriptIn, type SourceFile } from './tree.ts';

/** What each area of `src` may import besides itself. */
const areas: Readonly<Record<string, readonly string[]>> = {
  cache: [],
  redirect: [],
  nmi: ['cache', 'redirect'],
  lab: ['nmi', 'cache', 'redirect'],
  cli: ['lab', 'nmi', 'cache', 'redirect'],
  main: ['cli', 'lab', 'nmi', 'cache', 'redirect'],
};

/** Built-in modules that do no I/O, and the pure functions of those that do. */
const pureBuiltins: Readonly<Record<string, 'all' | readonly string[]>> = {
  'node:assert': 'all',
  'node:assert/strict': 'all',
  'node:buffer': 'all',
  'node:crypto': 'all',
  'node:util': 'all',
  'node:net': ['isIP', 'isIPv4', 'isIPv6'],
};

interface PackageHome {
  /** Files, or folders with a closing slash. */
  readonly homes: readonly string[];
  /** The only module of the package that may be named. */
  readonly module?: string;
  /** One file at most, wherever in `homes` it lies. */
  readonly oneFile?: true;
}

/** Where each package may be imported from, types included. What is not here may not be imported. */
const packages: Readonly<Record<string, PackageHome>> = {
  '@azure/msal-node': { homes: ['src/nmi/sources/entra/'], oneFile: true },
  '@kubernetes/client-node': {
    homes: ['src/nmi/kube/'],
    module: '@kubernetes/client-node/dist/config.js',
    oneFile: true,
  },
  'node-forge': { homes: ['src/nmi/sources/entra/', 'src/lab/'] },
  pino: { homes: ['src/nmi/'], oneFile: true },
  'prom-client': { homes: ['src/nmi/admin/'] },
  undici: { homes: ['src/nmi/kube/', 'src/nmi/sources/', 'src/nmi/passthrough.ts'] },
  yargs: { homes: ['src/cli/'] },
};

/** Imports in `src` that go against the order of areas, leave `src`, or do I/O in the cache. */
export function checkAreas(files: readonly SourceFile[]): readonly string[] {
  return eachImport(files, (path, { specifier, names }) => {
    const area = areaOf(path);
    const allowed = areas[area];
    if (allowed === undefined) return `lies in no known area of src`;
    if (specifier === '?') return 'imports something that is only known at run time';
    if (specifier.startsWith('.')) {
      const target = resolve(path, specifier);
      if (!target.startsWith('src/')) return `imports ${specifier}, which is outside src`;
      const other = areaOf(target);
      if (other === 'main') return 'imports src/main.ts, which nobody may';
      if (other === area || allowed.includes(other)) return undefined;
      return `imports ${target}: ${area} may import ${allowed.join(', ') || 'nothing of ours'}`;
    }
    if (area !== 'cache' || isPure(specifier, names)) return undefined;
    return `imports ${specifier}: the cache does no I/O and knows no package`;
  });
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
  const graph = new Map<string, readonly string[]>();
  for (const file of typescriptIn(files, 'src')) {
    const own = readSyntax(file).imports.filter(({ specifier }) => specifier.startsWith('.'));
    graph.set(
      file.path,
      own.map(({ specifier }) => resolve(file.path, specifier)),
    );
  }
  const cycles: string[] = [];
  const finished = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const from = trail.indexOf(path);
    if (from >= 0) {
      cycles.push([...trail.slice(from), path].join(' -> '));
      return;
    }
    if (finished.has(path)) return;
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path]);
    finished.add(path);
  };
  for (const path of [...graph.keys()].sort()) visit(path, []);
  return cycles;
}

function eachImport(
  files: readonly SourceFile[],
  check: (path: string, found: Import) => string | undefined,
): readonly string[] {
  return typescriptIn(files, 'src').flatMap((file) =>
    readSyntax(file).imports.flatMap((found) => {
      const problem = check(file.path, found);
      return problem === undefined ? [] : [`${file.path}:${found.line} ${problem}`];
    }),
  );
}

function areaOf(path: string): string {
  return path === 'src/main.ts' ? 'main' : (/^src\/([^/]+)\//.exec(path)?.[1] ?? '');
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
