/**
 * Programs built once from published Go modules. A module's checksum covers its own `go.mod` and
 * `go.sum`, which pin all that it needs. Each recipe has a folder of the tests' cache, named by a hash
 * of the recipe. No test builds them: `test/runner/run.ts` does before, and reports the progress.
 */
import { createHash } from 'node:crypto';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isKept, keep, keyOf, testCache } from '../../support/test-cache.ts';
import { download, type Downloaded, type GoModule } from './go-module.ts';

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

/** Modules that the main one requires as v0.0.0, from folders which it is published without. */
export interface Siblings {
  readonly version: string;
  /** Of their lines in `go.sum`. */
  readonly sha256: string;
}

export interface GoRecipe {
  /** Name of the folder. */
  readonly name: string;
  readonly module: GoModule;
  readonly siblings?: Siblings;
  /** Main packages by the names of their programs. */
  readonly programs: Readonly<Record<string, string>>;
  /** Variables that the linker sets. */
  readonly stamps?: readonly string[];
  readonly patches?: readonly GoPatch[];
}

/** A cold build takes 15 minutes on two cores. */
const buildTimeoutMs = 3_600_000;
const loadTimeoutMs = 600_000;

class LoadError extends Error {}

/** Builds them if necessary and not in a test: that takes minutes and is reported on standard error. */
export function providePrograms<T>(
  name: string,
  recipe: GoRecipe,
  cacheName: string,
  locate: (folder: string) => T,
): Provided<T> {
  const key = keyOf([JSON.stringify(recipe), process.platform, process.arch]);
  const folder = join(testCache, cacheName, `${recipe.name}-${key}`);
  try {
    if (!isKept(folder)) build(recipe, folder);
    return { name, programs: locate(folder), missing: undefined };
  } catch (err) {
    if (err instanceof LoadError) return { name, programs: undefined, missing: err.message };
    throw err;
  }
}

/** @throws LoadError if nothing can be built here, and another error if a download does not build. */
function build(recipe: GoRecipe, folder: string): void {
  // The output of a test shows only when it has ended.
  if (process.env['NODE_TEST_CONTEXT'] !== undefined) {
    throw new LoadError(`${recipe.name} is not built: \`./dev test FILE\` builds what FILE needs`);
  }
  const names = `${Object.keys(recipe.programs).join(', ')} (${recipe.name})`;
  process.stderr.write(`building ${names}; this takes minutes, once\n`);
  const startedMs = performance.now();
  keep(folder, (work) => {
    writeModule(recipe, work);
    for (const patch of recipe.patches ?? []) applyPatch(patch, work);
    const packages = Object.values(recipe.programs);
    const list = () => go(['list', '-C', work, '-mod=readonly', '-deps', ...packages]);
    // Hundreds of downloads; what has come is kept.
    let loaded = list();
    for (let left = 2; left > 0 && brokenDownload.test(loaded.stderr); left -= 1) loaded = list();
    if (loaded.status !== 0) throw new LoadError(`go cannot load modules: ${reasonOf(loaded)}`);
    const made = join(work, 'programs');
    mkdirSync(made);
    const stamps = (recipe.stamps ?? []).map((stamp) => `-X ${stamp}`);
    const flags = ['-trimpath', '-buildvcs=false', `-ldflags=${['-s', '-w', ...stamps].join(' ')}`];
    for (const [name, path] of Object.entries(recipe.programs)) {
      const words = ['-C', work, '-mod=readonly', ...flags, '-o', join(made, name), path];
      const run = go(['build', ...words], buildTimeoutMs);
      if (run.status !== 0) throw new Error(`go cannot build ${path}: ${reasonOf(run)}`);
    }
    return made;
  });
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  process.stderr.write(`built ${names} in ${seconds} s\n`);
}

/** A module that requires the recipe's one and, in the same versions, all that this one requires. */
function writeModule({ module, siblings }: GoRecipe, work: string): void {
  const [main] = load(module, [`${module.path}@${module.version}`]);
  if (main?.Sum !== module.sum) throw new Error(`${module.path} is ${main?.Sum ?? 'nothing'}`);
  const read = (file: string) => readFileSync(join(main.Dir, file), 'utf8');
  let goMod = read('go.mod').replace(/^module .*$/m, 'module entra-pod-identity/test-programs');
  let goSum = read('go.sum') + sumLines([main]);
  if (siblings !== undefined) {
    const { version, sha256 } = siblings;
    const names = [...goMod.matchAll(/^\t(\S+) v0\.0\.0$/gm)].map(([, name = '']) => name);
    const lines = sumLines(
      load(
        module,
        names.map((name) => `${name}@${version}`),
      ),
    );
    const found = createHash('sha256').update(lines).digest('hex');
    if (found !== sha256) throw new Error(`the siblings of ${module.path} are ${found}`);
    goMod = goMod
      .replaceAll(/ v0\.0\.0$/gm, ` ${version}`)
      .replaceAll(/\.\/staging\/src\/(\S+)/g, `$1 ${version}`);
    // What only the siblings need.
    goSum += read('go.work.sum') + lines;
  }
  writeFileSync(join(work, 'go.mod'), `${goMod}\nrequire ${module.path} ${module.version}\n`);
  writeFileSync(join(work, 'go.sum'), goSum);
}

function load({ path }: GoModule, names: readonly string[]): readonly Downloaded[] {
  const { modules, missing } = download(names);
  if (missing !== undefined) throw new LoadError(`${path}: ${missing}`);
  return modules;
}

function sumLines(modules: readonly Downloaded[]): string {
  return modules
    .map(
      ({ Path, Version, Sum, GoModSum }) =>
        `${Path} ${Version} ${Sum}\n${Path} ${Version}/go.mod ${GoModSum}\n`,
    )
    .join('');
}

/**
 * Go takes a module from a folder only if `go.mod` says so, and does not overlay files of its module
 * cache (Go 1.26): a copy of the module.
 */
function applyPatch({ module, file, before, after }: GoPatch, work: string): void {
  // On a new machine, nothing has downloaded it yet.
  const loaded = go(['mod', 'download', '-C', work, module]);
  if (loaded.status !== 0) throw new LoadError(`go cannot load ${module}: ${reasonOf(loaded)}`);
  const from = go(['list', '-C', work, '-m', '-f', '{{.Dir}}', module]);
  if (from.status !== 0) throw new Error(`go does not have ${module}: ${reasonOf(from)}`);
  const copy = join(work, 'patched', module);
  cpSync(from.stdout.trim(), copy, { recursive: true, mode: 0 });
  const parts = readFileSync(join(copy, file), 'utf8').split(before);
  if (parts.length !== 2) throw new Error(`the patch of ${module}/${file} does not fit`);
  // The module cache is read-only.
  rmSync(join(copy, file), { force: true });
  writeFileSync(join(copy, file), parts.join(after));
  writeFileSync(join(work, 'go.mod'), `\nreplace ${module} => ${copy}\n`, { flag: 'a' });
}

const brokenDownload = /timeout|connection reset|unexpected EOF/;

/** With the lowest priority: all cores are busy for minutes. */
function go(args: readonly string[], timeout = loadTimeoutMs): SpawnSyncReturns<string> {
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
