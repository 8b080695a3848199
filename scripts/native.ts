/**
 * Builds all compiled products, each with the Makefile of its sources: the product's addon and BPF
 * programs in `dist/native`, and the lab's own ones, which are not in the executable, in
 * `dist/lab`. `node scripts/native.ts`
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
import { join, relative } from 'node:path';
import { digestOfFiles } from './freshness.ts';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');

/** Folder of the product's addon and programs; sources that run unbundled load them from here. */
export const nativeFolder = join(dist, 'native');

/** Names in the folder of those that are also assets of the executable. */
export const nativeAssets = ['nmi.node', 'nmi.bpf.o'] as const;
export const nativeProducts = [...nativeAssets, 'nmi-supervise'] as const;

interface NativePart {
  /** Folder of sources and Makefile, relative to the root. */
  readonly sources: string;
  /** Folder for the products. */
  readonly folder: string;
  /** Undefined for a part that is a program. */
  readonly addon?: string;
  readonly products: readonly string[];
}

const parts: readonly NativePart[] = [
  {
    sources: 'src/redirect/native',
    folder: nativeFolder,
    addon: 'nmi.node',
    products: nativeProducts,
  },
  {
    sources: 'lab/frames/native',
    folder: join(dist, 'lab'),
    addon: 'frames.node',
    products: ['frames.node'],
  },
  {
    sources: 'lab/fabric/native',
    folder: join(dist, 'lab/fabric'),
    products: ['without-bpf'],
  },
  {
    sources: 'lab/pods/native',
    folder: join(dist, 'lab/pods'),
    products: ['forward', 'connect-storm'],
  },
];

/**
 * Builds the products of every part if they are missing or older than their sources.
 * @throws Error with the output of the compilers.
 */
export function freshNative(): void {
  for (const part of parts) {
    const digest = digestOfFiles(root, [`${part.sources}/*`, 'scripts/native.ts']);
    const isThere = [...part.products, '.inputs'].every((name) =>
      existsSync(join(part.folder, name)),
    );
    if (!isThere || readFileSync(digestFile(part), 'utf8') !== digest) build(part, digest);
  }
}

function digestFile({ folder }: NativePart): string {
  return join(folder, '.inputs');
}

/** Builds in another folder and renames each file: a process with the old addon keeps it intact. */
function build(part: NativePart, digest: string): void {
  const { folder, addon, products } = part;
  const startedMs = performance.now();
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(dist, '.native-'));
  try {
    const sources = join(root, part.sources);
    const made = spawnSync(
      'make',
      ['--no-print-directory', '-C', sources, `OUT=${work}`, `NODE_INCLUDE=${nodeHeaders()}`],
      { encoding: 'utf8' },
    );
    if (made.error !== undefined) throw new Error(`make does not start: ${made.error.message}`);
    if (made.status !== 0) throw new Error(`make failed:\n${made.stdout}${made.stderr}`);
    if (addon !== undefined) mustLoad(join(work, addon));
    for (const name of products) renameSync(join(work, name), join(folder, name));
    writeFileSync(digestFile(part), digest);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  process.stderr.write(`built ${relative(root, folder)} in ${seconds} s\n`);
}

/** The linker accepts undefined symbols; only loading the addon shows that Node defines them. */
function mustLoad(addon: string): void {
  const script = 'process.dlopen({ exports: {} }, process.argv[1], os.constants.dlopen.RTLD_NOW)';
  const loaded = spawnSync(process.execPath, ['-e', script, addon], { encoding: 'utf8' });
  if (loaded.status !== 0) throw new Error(`the addon cannot be loaded: ${loaded.stderr}`);
}

/** The headers of the same Node that will load the addon. */
function nodeHeaders(): string {
  const folder = join(process.execPath, '../../include/node');
  if (!existsSync(folder)) throw new Error(`the headers of Node are not in ${folder}`);
  return folder;
}

if (import.meta.main) {
  for (const part of parts) rmSync(digestFile(part), { force: true });
  try {
    freshNative();
  } catch (err) {
    process.stderr.write(`build failed: ${err instanceof Error ? err.message : 'unknown'}\n`);
    process.exitCode = 1;
  }
}
