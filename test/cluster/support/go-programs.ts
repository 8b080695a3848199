/**
 * Programs built once from the Go modules in `test/cluster/go`, pinned by `go.sum`. Each recipe has
 * a folder of the tests' cache, named by a hash of `go.mod`, `go.sum`, the flags and the patches. No
 * test builds them: `test/runner/run.ts` does before, and reports the progress.
 */
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isKept, keep, keyOf, testCache } from '../../support/test-cache.ts';

/** Programs, or why there are none. */
export type Provided<T> =
  | { readonly name: string; readonly programs: T; readonly missing: undefined }
  | { readonly name: string; readonly programs: undefined; readonly missing: string };

/** A change of a third-party module, made in a copy. */
export interface GoPatch {
  readonly module: string;
  readonly file: string;
  /** Occurs exactly once. */
  readonly before: string;
  readonly after: string;
}

export interface GoRecipe {
  /** Folder below `test/cluster/go`. */
  readonly module: string;
  /** Main packages by the names of their programs. */
  readonly programs: Readonly<Record<string, string>>;
  /** Variables that the linker sets, for the version in `go.mod`. */
  readonly stamps: (goMod: string) => readonly string[];
  readonly patches?: readonly GoPatch[];
}

const modules = join(import.meta.dirname, '../go');

/** A cold build takes 15 minutes on two cores. */
const buildTimeoutMs = 3_600_000;
const loadTimeoutMs = 600_000;

/** The folder of a recipe's programs, whether it exists or not. */
interface Place {
  readonly folder: string;
  readonly flags: readonly string[];
}

function placeOf(recipe: GoRecipe, cacheName: string): Place {
  const sources = join(modules, recipe.module);
  const [goMod = '', goSum = ''] = ['go.mod', 'go.sum'].map((file) =>
    readFileSync(join(sources, file), 'utf8'),
  );
  const stamps = recipe.stamps(goMod).map((stamp) => `-X ${stamp}`);
  const flags = [
    ...['-mod=readonly', '-trimpath', '-buildvcs=false'],
    `-ldflags=${['-s', '-w', ...stamps].join(' ')}`,
  ];
  const patches = recipe.patches === undefined ? [] : [JSON.stringify(recipe.patches)];
  const inputs = [goMod, goSum, ...flags, ...patches, process.platform, process.arch];
  return { flags, folder: join(testCache, cacheName, `${recipe.module}-${keyOf(inputs)}`) };
}

/** Builds them if necessary and not in a test: that takes minutes and is reported on standard error. */
export function providePrograms<T>(
  name: string,
  recipe: GoRecipe,
  cacheName: string,
  locate: (folder: string) => T,
): Provided<T> {
  const place = placeOf(recipe, cacheName);
  const missing = isKept(place.folder) ? undefined : build(recipe, place);
  return missing === undefined
    ? { name, programs: locate(place.folder), missing }
    : { name, programs: undefined, missing };
}

/** Returns why nothing can be built here; throws if a download does not build. */
function build(recipe: GoRecipe, { folder, flags }: Place): string | undefined {
  const { module, programs, patches = [] } = recipe;
  const sources = ['-C', join(modules, module)];
  const packages = Object.values(programs);
  // The output of a test shows only when it has ended.
  if (process.env['NODE_TEST_CONTEXT'] !== undefined) {
    return `${module} is not built: \`./dev test FILE\` builds what FILE needs`;
  }
  if (spawnSync('go', ['version']).error !== undefined) return 'go is not installed';
  const load = () => go(['list', ...sources, '-mod=readonly', '-deps', ...packages], loadTimeoutMs);
  // Hundreds of downloads; what has come is kept.
  let loaded = load();
  for (let left = 2; left > 0 && brokenDownload.test(loaded.stderr); left -= 1) loaded = load();
  if (loaded.status !== 0) return `go cannot load the modules of ${module}: ${reasonOf(loaded)}`;
  const names = `${Object.keys(programs).join(', ')} (${module})`;
  process.stderr.write(`building ${names}; this takes minutes, once\n`);
  const startedMs = performance.now();
  keep(folder, (work) => {
    const made = join(work, 'programs');
    mkdirSync(made);
    const patched = patches.length === 0 ? [] : applyPatches(patches, join(modules, module), work);
    for (const [name, path] of Object.entries(programs)) {
      const run = go(
        ['build', ...sources, ...flags, ...patched, '-o', join(made, name), path],
        buildTimeoutMs,
      );
      if (run.status !== 0) throw new Error(`go cannot build ${path}: ${reasonOf(run)}`);
    }
    return made;
  });
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  process.stderr.write(`built ${names} in ${seconds} s\n`);
  return undefined;
}

/**
 * Go takes a module from a folder only if `go.mod` says so, and does not overlay files of its module
 * cache (Go 1.26): copies of `go.mod` and of the modules. Returns the flags that name them.
 */
function applyPatches(
  patches: readonly GoPatch[],
  sources: string,
  work: string,
): readonly string[] {
  for (const file of ['go.mod', 'go.sum']) cpSync(join(sources, file), join(work, file));
  const modFile = join(work, 'go.mod');
  for (const [at, { module, file, before, after }] of patches.entries()) {
    const from = go(['list', '-C', sources, '-m', '-f', '{{.Dir}}', module], loadTimeoutMs);
    if (from.status !== 0) throw new Error(`go does not have ${module}: ${reasonOf(from)}`);
    const copy = join(work, `module-${at}`);
    cpSync(from.stdout.trim(), copy, { recursive: true, mode: 0 });
    const text = readFileSync(join(copy, file), 'utf8');
    const parts = text.split(before);
    if (parts.length !== 2) throw new Error(`the patch of ${module}/${file} does not fit`);
    // The module cache is read-only.
    rmSync(join(copy, file), { force: true });
    writeFileSync(join(copy, file), parts.join(after));
    writeFileSync(modFile, `\nreplace ${module} => ${copy}\n`, { flag: 'a' });
  }
  return [`-modfile=${modFile}`];
}

const brokenDownload = /timeout|connection reset|unexpected EOF/;

/** With the lowest priority: all cores are busy for minutes. */
function go(args: readonly string[], timeout: number): SpawnSyncReturns<string> {
  return spawnSync('nice', ['-n', '19', 'go', ...args], {
    encoding: 'utf8',
    timeout,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, CGO_ENABLED: '0' },
  });
}

function reasonOf({ error, stderr }: SpawnSyncReturns<string>): string {
  if (error !== undefined) return error.message;
  const lines = stderr.trim().split('\n');
  return lines
    .filter((line) => !line.startsWith('go: downloading'))
    .slice(0, 3)
    .join('; ');
}
