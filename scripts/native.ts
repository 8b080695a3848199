/**
 * Makes `dist/native`: the addon and the BPF programs, by the Makefile beside their sources.
 * `node scripts/native.ts`
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { digestOfFiles } from './freshness.ts';

const root = join(import.meta.dirname, '..');
const sources = join(root, 'src/redirect/native');
const dist = join(root, 'dist');

/** Where the products lie; sources that run unbundled find them here. */
export const nativeFolder = join(dist, 'native');

/** The names of the products, in the folder and as assets of the executable. */
export const nativeProducts = ['nmi.node', 'nmi.bpf.o'] as const;

const inputs = ['src/redirect/native/*', 'scripts/native.ts'];
const digestFile = join(nativeFolder, '.inputs');

/**
 * Builds the products if they are missing or older than their sources.
 * @throws Error with what the compilers said.
 */
export function freshNative(): void {
  const digest = digestOfFiles(root, inputs);
  const isThere = [...nativeProducts, '.inputs'].every((name) =>
    existsSync(join(nativeFolder, name)),
  );
  if (!isThere || readFileSync(digestFile, 'utf8') !== digest) build(digest);
}

/** Made aside and renamed file by file: a process that has the old addon open keeps it whole. */
function build(digest: string): void {
  const startedMs = performance.now();
  mkdirSync(nativeFolder, { recursive: true });
  const work = mkdtempSync(join(dist, '.native-'));
  try {
    const made = spawnSync(
      'make',
      ['--no-print-directory', '-C', sources, `OUT=${work}`, `NODE_INCLUDE=${nodeHeaders()}`],
      { encoding: 'utf8' },
    );
    if (made.error !== undefined) throw new Error(`make does not start: ${made.error.message}`);
    if (made.status !== 0) throw new Error(`make failed:\n${made.stdout}${made.stderr}`);
    mustLoad(join(work, 'nmi.node'));
    for (const name of nativeProducts) renameSync(join(work, name), join(nativeFolder, name));
    writeFileSync(digestFile, digest);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  process.stderr.write(`built dist/native in ${seconds} s\n`);
}

/** The linker lets names pass that Node might have; only loading it shows that it has them. */
function mustLoad(addon: string): void {
  const script = 'process.dlopen({ exports: {} }, process.argv[1], os.constants.dlopen.RTLD_NOW)';
  const loaded = spawnSync(process.execPath, ['-e', script, addon], { encoding: 'utf8' });
  if (loaded.status !== 0) throw new Error(`the addon cannot be loaded: ${loaded.stderr}`);
}

/** The headers of the very Node that will load the addon. */
function nodeHeaders(): string {
  const folder = join(root, `node_modules/node-linux-${process.arch}/include/node`);
  if (!existsSync(folder)) throw new Error(`the headers of Node are not in ${folder}`);
  return folder;
}

if (import.meta.main) {
  rmSync(digestFile, { force: true });
  try {
    freshNative();
  } catch (err) {
    process.stderr.write(`build failed: ${err instanceof Error ? err.message : 'unknown'}\n`);
    process.exitCode = 1;
  }
}
