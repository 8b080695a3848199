/**
 * Kernels of Debian's packages, unpacked into the tests' cache but not installed. apt fetches them
 * with its own lists and state there; this machine's are not touched. A kernel in the cache is used
 * as it is: to get a newer one, delete its folder.
 */
import { execFileSync, spawnSync, type ExecFileSyncOptions } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ownArchitecture, type Architecture } from '../../../../scripts/image/builder.ts';
import { isKept, keep, keyOf, testCache } from '../../../support/test-cache.ts';
import { extractKernel } from './vmlinux.ts';

/** In order of age. Each suite's newest build for clouds: no drivers, and everything that a node of Kubernetes needs. */
export const kernelSources = [
  { name: '5.10', suite: 'bullseye-security' },
  { name: '6.1', suite: 'bookworm-security' },
  { name: '6.12', suite: 'trixie' },
  { name: 'newest', suite: 'trixie-backports' },
] as const;

/** Of the programs in the initramfs. */
const toolSuite = 'trixie';

export type KernelName = (typeof kernelSources)[number]['name'];

export interface Kernel {
  /** As `uname -r` prints it. */
  readonly version: string;
  readonly architecture: Architecture;
  /** Uncompressed, for QEMU to start without its own decompressor. */
  readonly image: string;
  readonly modules: string;
}

export interface GuestTools {
  /** Linked statically. */
  readonly busybox: string;
  readonly kmod: string;
}

/** @throws Error if the suite is not available. */
export function prepareKernel(wanted: KernelName, architecture: Architecture): Kernel {
  const suite = kernelSources.find(({ name }) => name === wanted)?.suite ?? '';
  const folder = folderOf(wanted, suite, architecture);
  if (!isKept(folder)) keep(folder, (work) => fetchKernel(suite, architecture, work));
  const [version = ''] = readdirSync(join(folder, 'modules'));
  const modules = join(folder, 'modules', version);
  return { version, architecture, image: join(folder, 'vmlinux'), modules };
}

/** @throws Error if their packages are not available. */
export function prepareTools(architecture: Architecture): GuestTools {
  const folder = folderOf('tools', toolSuite, architecture);
  if (!isKept(folder)) keep(folder, (work) => fetchTools(architecture, work));
  return { busybox: join(folder, 'bin/busybox'), kmod: join(folder, 'bin/kmod') };
}

function folderOf(what: string, suite: string, architecture: Architecture): string {
  return join(testCache, 'kernels', `${what}-${architecture}-${keyOf([suite, architecture])}`);
}

function fetchTools(architecture: Architecture, work: string): string {
  const names = ['busybox-static', 'kmod'];
  const root = join(work, 'root');
  if (architecture !== ownArchitecture) {
    const apt = privateApt(work, toolSuite, architecture);
    apt('apt-get', '-qq', 'update');
    apt('apt-get', '-qq', 'download', ...names);
    unpackAll(work, root);
    // Since Debian 13 packages have everything below /usr.
    if (!existsSync(join(root, 'bin'))) symlinkSync('usr/bin', join(root, 'bin'));
    return root;
  }
  const download = () => spawnSync('apt-get', ['-qq', 'download', ...names], { cwd: work });
  if (download().status !== 0) {
    run('apt-get', ['-qq', 'update']);
    if (download().status !== 0) throw new Error(`apt-get download ${names.join(' ')} failed`);
  }
  unpackAll(work, root);
  // The name it is called by selects one of its programs.
  symlinkSync('kmod', join(root, 'bin/depmod'));
  return root;
}

function fetchKernel(suite: string, architecture: Architecture, work: string): string {
  const { kmod } = prepareTools(ownArchitecture);
  const apt = privateApt(work, suite, architecture);
  apt('apt-get', '-qq', 'update');
  const newest = `linux-image-cloud-${architecture}`;
  const image = dependencies(apt, newest, /^linux-image-\d/)[0];
  if (image === undefined) throw new Error(`${suite} has no ${newest}`);
  // Newer kernels consist of several packages.
  const parts = dependencies(apt, image, /^linux-(?:base|binary|modules)-\d/);
  apt('apt-get', '-qq', 'download', image, ...parts);
  const root = join(work, 'root');
  unpackAll(work, root);
  const lib = existsSync(join(root, 'lib/modules')) ? 'lib' : 'usr/lib';
  const [version = ''] = readdirSync(join(root, lib, 'modules'));
  if (lib === 'usr/lib') symlinkSync('usr/lib', join(root, 'lib'));
  run(join(kmod, '../depmod'), ['-b', root, version]);
  const images = [
    join(root, 'boot', `vmlinuz-${version}`),
    join(root, lib, 'modules', version, 'vmlinuz'),
  ];
  const compressed = images.find((path) => existsSync(path));
  if (compressed === undefined) throw new Error(`${image} has no vmlinuz`);
  const made = join(work, 'made');
  mkdirSync(made);
  writeFileSync(join(made, 'vmlinux'), extractKernel(readFileSync(compressed), architecture));
  renameSync(join(root, lib, 'modules'), join(made, 'modules'));
  return made;
}

type Apt = (tool: string, ...args: readonly string[]) => string;

/** apt with one suite and no installed packages; it uses this machine's proxy settings. */
function privateApt(work: string, suite: string, architecture: Architecture): Apt {
  for (const folder of ['lists/partial', 'cache/archives/partial', 'etc/preferences.d']) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  writeFileSync(join(work, 'status'), '');
  const keys = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const sources = join(work, 'etc/sources.list');
  writeFileSync(sources, `deb [signed-by=${keys}] ${archiveOf(suite)} ${suite} main\n`);
  const settings = {
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'Dir::State': work,
    'Dir::State::status': join(work, 'status'),
    'Dir::State::lists': join(work, 'lists'),
    'Dir::Cache': join(work, 'cache'),
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '-',
    'Dir::Etc::preferencesparts': join(work, 'etc/preferences.d'),
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
  };
  const config = join(work, 'apt.conf');
  const lines = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`);
  writeFileSync(config, lines.join(''));
  return (tool, ...args) =>
    run(tool, args, { cwd: work, env: { ...process.env, APT_CONFIG: config } });
}

/** The package sources of this machine. */
function archiveOf(suite: string): string {
  const found = run('apt-get', ['update', '--print-uris']).matchAll(/^'(.+?)\/dists\/([^/]+)\//gm);
  const isSecurity = (name: string) => name.endsWith('-security');
  for (const [, archive = '', release = ''] of found) {
    if (isSecurity(suite) ? isSecurity(release) : !release.includes('-')) return archive;
  }
  throw new Error(`this machine has no Debian archive to take ${suite} from`);
}

function dependencies(apt: Apt, name: string, wanted: RegExp): readonly string[] {
  const lines = apt('apt-cache', 'depends', name).matchAll(/^ *Depends: (\S+)$/gm);
  return [...lines].map(([, other = '']) => other).filter((other) => wanted.test(other));
}

function unpackAll(folder: string, root: string): void {
  const packages = readdirSync(folder).filter((name) => name.endsWith('.deb'));
  for (const name of packages) run('dpkg', ['-x', join(folder, name), root]);
}

function run(tool: string, args: readonly string[], options: ExecFileSyncOptions = {}): string {
  return execFileSync(tool, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...options,
    encoding: 'utf8',
  });
}
