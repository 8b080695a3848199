/**
 * Debian packages of one release, unpacked into a folder: contents and build tools of an image.
 * None of their programs is run, so they may be for another processor, and root is not needed. apt
 * selects the packages, checks them against Debian's signatures and reports their digests.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { aptOptions, snapshotSources, sourcesOf } from './apt-settings.ts';
import { findUnpinned, readIndexes, type DebianPin } from './debian-pin.ts';

/** The image's Debian. */
export const release = 'trixie';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
}

export interface DebianTree {
  readonly folder: string;
  readonly packages: readonly DebianPackage[];
}

/** Where packages come from: by default, this machine's sources. */
export interface DebianOrigin {
  /** Lines of sources.list. */
  readonly sources?: readonly string[] | undefined;
  /** From the archive of snapshots, unless `sources` has that Debian too. */
  readonly pin?: DebianPin | undefined;
}

export interface DebianTreeOptions extends DebianOrigin {
  /** Rebuilt only if the packages have changed. */
  readonly folder: string;
  /** Debian's names; the first applies to packages without an architecture in their name. */
  readonly architectures: readonly string[];
  /** Unpacked with their dependencies. */
  readonly packages: readonly string[];
}

/** @throws Error with the error of apt or dpkg. */
export function unpackDebian(options: DebianTreeOptions): DebianTree {
  const { folder } = options;
  const apt = prepareApt(options);
  const install = ['install', '--yes', '-qq', ...options.packages];
  apt('update', '-qq');
  if (options.pin !== undefined) mustBePinned(folder, options.pin);
  // apt omits packages that it already has, so this uses a folder without any.
  const nothing = `Dir::Cache::archives=${folder}.apt/nothing`;
  const uris = parseUris(apt(...install, '--print-uris', '-o', nothing));
  if (uris.length === 0) throw new Error('apt-get names no packages');
  const wanted = uris.toSorted((a, b) => (a.file < b.file ? -1 : 1));
  const list = JSON.stringify(wanted, undefined, 1);
  const stamp = join(folder, '.packages.json');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== list) {
    apt(...install, '--download-only');
    rmSync(folder, { recursive: true, force: true });
    const unpacked = `${folder}.new`;
    rmSync(unpacked, { recursive: true, force: true });
    unpack(
      wanted.map(({ file }) => join(`${folder}.apt`, 'archives', file)),
      unpacked,
    );
    writeFileSync(join(unpacked, '.packages.json'), list);
    renameSync(unpacked, folder);
  }
  return { folder, packages: wanted.map(describePackage) };
}

function mustBePinned(folder: string, pin: DebianPin): void {
  const other = findUnpinned(pin, readIndexes(`${folder}.apt/lists`));
  if (other === undefined) return;
  throw new Error(
    `${other} is not the Debian of ${pin.snapshot} that is pinned; name its sources with --sources FILE, or pin a newer one with ./dev release pin`,
  );
}

/** What there is now, to be pinned: from the archive of snapshots, or from other sources. */
export function lookUpPin(
  folder: string,
  snapshot: string,
  sources: readonly string[] | undefined,
): DebianPin {
  const pin = { snapshot, indexes: {} };
  prepareApt({ folder, architectures: ['amd64'], sources, pin })('update', '-qq');
  return { snapshot, indexes: readIndexes(`${folder}.apt/lists`) };
}

/** apt with separate lists, packages and status, as if nothing were installed. */
function prepareApt(
  options: Omit<DebianTreeOptions, 'packages'>,
): (...args: readonly string[]) => string {
  const state = `${options.folder}.apt`;
  for (const folder of ['lists/partial', 'archives/partial', 'nothing/partial']) {
    mkdirSync(join(state, folder), { recursive: true });
  }
  const sources = options.sources ?? ownSources(options.pin);
  if (sources.length === 0) {
    throw new Error('this machine has no mirror of Debian; name one with --sources FILE');
  }
  writeFileSync(join(state, 'sources.list'), `${sources.join('\n')}\n`);
  writeFileSync(join(state, 'status'), '');
  const [main = ''] = options.architectures;
  const lines = [
    `APT::Architecture "${main}";`,
    ...options.architectures.map((each) => `APT::Architectures:: "${each}";`),
    'APT::Install-Recommends "false";',
    // Lists of last time are no success.
    'APT::Update::Error-Mode "any";',
    // apt's own user may have no access to the folder.
    'APT::Sandbox::User "root";',
    `Dir::State::lists "${state}/lists";`,
    `Dir::State::status "${state}/status";`,
    `Dir::State::extended_states "${state}/extended";`,
    `Dir::Cache "${state}";`,
    `Dir::Cache::archives "${state}/archives";`,
    `Dir::Etc::sourcelist "${state}/sources.list";`,
    'Dir::Etc::sourceparts "/dev/null";',
    'Dir::Etc::preferencesparts "/dev/null";',
    'Dir::Etc::parts "/dev/null";',
    'Acquire::Languages "none";',
    'Acquire::ForceHash "sha256";',
    ...aptOptions(),
  ];
  const config = join(state, 'apt.conf');
  writeFileSync(config, `${lines.join('\n')}\n`);
  return (...args) => run('apt-get', args, { ...process.env, APT_CONFIG: config });
}

function ownSources(pin: DebianPin | undefined): readonly string[] {
  const lines = pin === undefined ? sourcesOf(release) : snapshotSources(release, pin.snapshot);
  const options = [
    // For systems with an apt that has no keys for all sources.
    ...(existsSync(keyring) ? [`signed-by=${keyring}`] : []),
    // The digests say which one is meant.
    ...(pin === undefined ? [] : ['check-valid-until=no']),
  ];
  if (options.length === 0) return lines;
  return lines.map((line) => line.replace(/^deb /, `deb [${options.join(' ')}] `));
}

interface Download {
  readonly file: string;
  readonly sha256: string;
}

/** Lines are `'URI' FILE SIZE SHA256:DIGEST`. */
function parseUris(text: string): readonly Download[] {
  return [...text.matchAll(/^'\S+' (\S+\.deb) \d+ (\S+)$/gm)].map(([, file = '', hash = '']) => {
    const [kind, sha256 = ''] = hash.split(':');
    if (kind !== 'SHA256') throw new Error(`apt knows no SHA-256 of ${file}`);
    return { file, sha256 };
  });
}

/** File names are NAME_VERSION_ARCHITECTURE.deb, with %3a for an epoch's colon. */
function describePackage({ file, sha256 }: Download): DebianPackage {
  const [name = '', version = '', architecture = ''] = file.replace(/\.deb$/, '').split('_');
  return { name, version: decodeURIComponent(version), architecture, sha256 };
}

/** Also writes dpkg's database: `dpkg-query --admindir` finds the package of each file. */
function unpack(archives: readonly string[], folder: string): void {
  const info = join(folder, 'var/lib/dpkg/info');
  mkdirSync(info, { recursive: true });
  // base-files comes first, since it has the links from /bin and /lib into /usr.
  const first = archives.find((path) => path.includes('/base-files_'));
  const ordered = first === undefined ? archives : [first, ...archives];
  const stanzas: string[] = [];
  for (const archive of new Set(ordered)) {
    run('dpkg-deb', ['--extract', archive, folder]);
    const control = run('dpkg-deb', ['--field', archive]);
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(control)?.[1];
    const shared = field('Multi-Arch') === 'same' ? `:${field('Architecture') ?? ''}` : '';
    const paths = run('sh', ['-c', 'dpkg-deb --fsys-tarfile "$1" | tar --list', 'sh', archive]);
    const list = paths.replaceAll(/^\.(.*?)\/?$/gm, (_, path: string) => path || '/.');
    writeFileSync(join(info, `${field('Package') ?? ''}${shared}.list`), `${list.trim()}\n`);
    stanzas.push(control.replace(/^Package: .*$/m, '$&\nStatus: install ok installed').trim());
  }
  writeFileSync(join(info, 'format'), '1\n');
  writeFileSync(join(folder, 'var/lib/dpkg/status'), `${stanzas.join('\n\n')}\n`);
}

function run(tool: string, args: readonly string[], env = process.env): string {
  const { status, error, stdout, stderr } = spawnSync(tool, args, {
    encoding: 'utf8',
    env: { ...env, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 64 << 20,
  });
  if (status !== 0) {
    throw new Error(`${tool} ${args.slice(0, 2).join(' ')}: ${error?.message ?? stderr.trim()}`);
  }
  return stdout;
}
