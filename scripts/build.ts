/**
 * Makes `dist/nmi`, one executable file: this Node with the bundled program inside, and
 * `dist/kubectl-nmi`, a script for the user's own Node.
 * `node scripts/build.ts [--if-stale]`
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { bundlePlugin, bundleProgram, type BuildStamp } from './bundle.ts';
import { makeCodeCache, renderEntry, wrapBundle, type Command } from './code-cache.ts';
import { digestOfInputs } from './freshness.ts';
import { freshNative, nativeAssets, nativeFolder } from './native.ts';
import { noticesFile, renderNotices } from './notices.ts';
import { oldestNode, renderPluginScript } from './plugin-script.ts';

/** Root folder of the repository. */
export const repositoryRoot = join(import.meta.dirname, '..');

const dist = join(repositoryRoot, 'dist');
const executable = join(dist, 'nmi');
/**
 * Each half of V8's young generation may grow to 2 MB instead of 16: the garbage of a request is
 * short-lived. Under load with 30,000 objects: 127 MB resident instead of 175, 68 private instead
 * of 115, at the same CPU per request (Node 26.10, November 2026).
 */
const youngGeneration = '--max-semi-space-size=2';
/**
 * No other flag of V8: with one, it refuses the compiled code of Node's own modules, and a start takes 27 ms more
 * (only the sizes of heaps do not count, and of these not the one at the start).
 */
export const v8Flags = [youngGeneration];
/** Threads for compilation and collection, instead of 4: each keeps 3 MB of C library memory. */
const oneWorker = '--v8-pool-size=1';
/** Keeps SIGUSR1 from opening a debugger: any process on the node's network could connect to it. */
const noDebugger = '--disable-sigusr1';
const bundleAsset = 'bundle';
const cacheAsset = 'code-cache';
/** Where `key-file-opener.ts` looks for it. */
const workerAsset = 'key-file-worker.cjs';
const digestFile = join(dist, '.inputs');

/** The path of an executable of the current sources; builds it only if necessary. */
export async function freshExecutable(): Promise<string> {
  // Programs that run from their sources need these products too.
  freshNative();
  const digest = digestOfInputs(repositoryRoot);
  if (!existsSync(executable) || readIfThere(digestFile) !== digest) await build(digest);
  return executable;
}

/**
 * Everything is built in another folder and renamed: a running `dist/nmi` is not disturbed, and two
 * concurrent builds leave one complete result.
 */
async function build(digest: string): Promise<void> {
  const startedMs = performance.now();
  mkdirSync(dist, { recursive: true });
  const work = mkdtempSync(join(dist, '.build-'));
  try {
    const stamp = buildStamp();
    const modules = await makeExecutable(work, ownMachine, stamp);
    const pluginModules = await makePlugin(work, stamp);
    writeFileSync(
      join(work, noticesFile),
      renderNotices(repositoryRoot, [...modules, ...pluginModules], ownMachine),
    );
    for (const name of pluginFiles) renameSync(join(work, name), join(dist, name));
    renameSync(join(work, noticesFile), join(dist, noticesFile));
    renameSync(join(work, 'nmi.cjs'), join(dist, 'nmi.cjs'));
    renameSync(join(work, 'nmi'), executable);
    writeFileSync(digestFile, digest);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  process.stderr.write(`built dist/nmi in ${seconds} s\n`);
}

/** Target platform and tools of an executable. */
export interface BuildTarget {
  /** Node's executable, which becomes the product's. */
  readonly node: string;
  /** Command that runs it on this machine. */
  readonly runNode: Command;
  /** Folder of the native products. */
  readonly native: string;
  /** The root of the system that provides the libraries to link; empty for this one. */
  readonly system: string;
}

export const ownMachine: BuildTarget = {
  node: process.execPath,
  runNode: [process.execPath],
  native: nativeFolder,
  system: '',
};

/** Fills a folder with `nmi`, its script and the notices; returns the bundled modules. */
export async function makeExecutable(
  folder: string,
  target: BuildTarget,
  stamp: BuildStamp,
): Promise<readonly string[]> {
  const { script, worker, loader, modules } = await bundleProgram(repositoryRoot, stamp);
  const wrapped = wrapBundle(script);
  writeFileSync(join(folder, 'nmi.cjs'), script);
  writeFileSync(join(folder, bundleAsset), wrapped);
  writeFileSync(join(folder, workerAsset), worker);
  writeFileSync(join(folder, cacheAsset), makeCodeCache(wrapped, target.runNode, v8Flags));
  writeFileSync(join(folder, 'entry.cjs'), renderEntry(loader, bundleAsset, cacheAsset));
  writeFileSync(join(folder, noticesFile), renderNotices(repositoryRoot, modules, target));
  embed(folder, target);
  return modules;
}

const pluginFiles = ['kubectl-nmi', 'kubectl_complete-nmi', 'package.json'] as const;

/**
 * The plugin as a package: `dist/package.json` also declares that a script without an extension is
 * CommonJS, whatever the parent folder declares. kubectl looks for the completion program by its
 * name. Returns the bundled modules.
 */
export async function makePlugin(folder: string, stamp: BuildStamp): Promise<readonly string[]> {
  const { script, modules } = await bundlePlugin(repositoryRoot, stamp);
  writeFileSync(join(folder, 'kubectl-nmi'), renderPluginScript(script), { mode: 0o755 });
  writeFileSync(
    join(folder, 'kubectl_complete-nmi'),
    '#!/bin/sh\nexec kubectl-nmi __complete "$@"\n',
    { mode: 0o755 },
  );
  const manifest = {
    name: 'kubectl-nmi',
    version: stamp.version,
    description: 'kubectl plugin of Entra Pod Identity: explains, checks, assigns and migrates',
    license: 'Apache-2.0',
    type: 'commonjs',
    engines: { node: `>=${oldestNode}` },
    bin: { 'kubectl-nmi': 'kubectl-nmi', 'kubectl_complete-nmi': 'kubectl_complete-nmi' },
    files: ['kubectl-nmi', 'kubectl_complete-nmi', noticesFile],
  };
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
  return modules;
}

/**
 * A program without its symbols and debug information, 33 MB of Node: what is behind the last segment is never
 * mapped. It needs no tool that knows the processor, unlike `strip`.
 * @param elf a 64-bit ELF file, little-endian.
 */
export function withoutSymbols(elf: Buffer): Buffer {
  const [headersAt, headerBytes] = [Number(elf.readBigUInt64LE(32)), elf.readUInt16LE(54)];
  const ends = Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const at = headersAt + index * headerBytes;
    return Number(elf.readBigUInt64LE(at + 8) + elf.readBigUInt64LE(at + 32));
  });
  const stripped = Buffer.from(elf.subarray(0, Math.max(...ends)));
  // No table of sections: its place, their number, and the one with their names.
  stripped.fill(0, 40, 48).fill(0, 60, 64);
  return stripped;
}

/** Relative names, so that no path of the building machine shows in stack traces. */
function embed(work: string, target: BuildTarget): void {
  const config = {
    main: 'entry.cjs',
    output: 'nmi.made',
    executable: 'node.stripped',
    disableExperimentalSEAWarning: true,
    execArgv: [...v8Flags, oneWorker, noDebugger],
    // NODE_OPTIONS has no effect: no environment variable loads code into the agent.
    execArgvExtension: 'none',
    assets: {
      [bundleAsset]: bundleAsset,
      [cacheAsset]: cacheAsset,
      [workerAsset]: workerAsset,
      ...Object.fromEntries(
        nativeAssets.map((name) => [name, relative(work, join(target.native, name))]),
      ),
    },
  };
  writeFileSync(join(work, config.executable), withoutSymbols(readFileSync(target.node)), {
    mode: 0o755,
  });
  writeFileSync(join(work, 'sea.json'), JSON.stringify(config));
  const made = spawnSync(process.execPath, ['--build-sea', 'sea.json'], {
    cwd: work,
    encoding: 'utf8',
  });
  if (made.status !== 0) throw new Error(`node --build-sea failed: ${made.stdout}${made.stderr}`);
  // Linux maps a file's pages in the pieces in which they were written. Node writes this file as
  // one piece: 31 MB more of it would be resident than of a copy, or of a file in an image's layer.
  copyFileSync(join(work, 'nmi.made'), join(work, 'nmi'));
}

/** @param epoch seconds since 1970; default: now. */
export function buildStamp(epoch = process.env['SOURCE_DATE_EPOCH']): BuildStamp {
  const date = epoch === undefined ? new Date() : new Date(Number(epoch) * 1000);
  if (Number.isNaN(date.getTime())) {
    throw new Error(`SOURCE_DATE_EPOCH must be seconds since 1970, not ${JSON.stringify(epoch)}`);
  }
  return {
    version: packageVersion(),
    commit: commitId(),
    date: date.toISOString().replace(/\.\d+Z$/, 'Z'),
  };
}

function packageVersion(): string {
  const text = readFileSync(join(repositoryRoot, 'package.json'), 'utf8');
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed === 'object' && parsed !== null && 'version' in parsed) {
    if (typeof parsed.version === 'string') return parsed.version;
  }
  throw new Error('package.json has no version');
}

/** `unknown` outside a clone; `+changes` when the sources differ from the commit. */
function commitId(): string {
  const commit = git('rev-parse', '--short=12', 'HEAD');
  if (commit === undefined) return 'unknown';
  const changes = git(
    'status',
    '--porcelain',
    '--',
    'src',
    'scripts',
    'package-lock.json',
    'toolchain',
  );
  return changes === '' ? commit : `${commit}+changes`;
}

function git(...args: readonly string[]): string | undefined {
  const run = spawnSync('git', args, { cwd: repositoryRoot, encoding: 'utf8' });
  return run.status === 0 ? run.stdout.trim() : undefined;
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

if (import.meta.main) {
  if (!process.argv.includes('--if-stale')) rmSync(digestFile, { force: true });
  try {
    await freshExecutable();
  } catch (err) {
    process.stderr.write(`build failed: ${err instanceof Error ? err.message : 'unknown'}\n`);
    process.exitCode = 1;
  }
}
