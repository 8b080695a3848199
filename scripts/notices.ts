/**
 * The third-party code in the executable and its addon, and its licenses: this text must accompany
 * them. It is derived from the modules that were really included, so nothing is missing.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Beside the executable. */
export const noticesFile = 'THIRD-PARTY-NOTICES.txt';

interface Notice {
  readonly name: string;
  readonly version: string;
  readonly terms: string;
  /** The copyright notices and the licence. */
  readonly text: string;
}

/** The used fields of those that npm requires in a package.json. */
interface PackageManifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
}

interface Archive {
  readonly name: string;
  /** The Debian package with the archive and its copyright file. */
  readonly debianPackage: string;
  readonly terms: string;
  readonly source: string;
}

/** Archives that the addon may be linked with, by their names in its Makefile. */
export const archives: Readonly<Record<string, Archive>> = {
  'libbpf.a': {
    name: 'libbpf',
    debianPackage: 'libbpf-dev',
    terms: 'LGPL-2.1 or BSD-2-Clause; used under the latter',
    source: 'https://github.com/libbpf/libbpf',
  },
  'libelf.a': {
    name: 'libelf of elfutils',
    debianPackage: 'libelf-dev',
    terms: 'LGPL-3.0-or-later or GPL-2.0-or-later; used under the former',
    source: 'https://sourceware.org/elfutils/',
  },
  'libz.a': {
    name: 'zlib',
    debianPackage: 'zlib1g-dev',
    terms: 'Zlib',
    source: 'https://zlib.net/',
  },
  'libzstd.a': {
    name: 'Zstandard',
    debianPackage: 'libzstd-dev',
    terms: 'BSD-3-Clause or GPL-2.0; used under the former',
    source: 'https://facebook.github.io/zstd/',
  },
};

const aboutArchives = `The libraries named libbpf, libelf, zlib and Zstandard are linked statically into nmi.node, which is
also inside the executable. Who wants to link it with other versions of them, as the LGPL allows,
finds its source and Makefile in src/redirect/native of this program's source; \`./dev build\` makes
both anew.`;

/** Location of the licenses of code that is not in npm packages. */
export interface NoticeSources {
  /** Path of Node's executable; its license is in the same installation. */
  readonly node: string;
  /** The root of the Debian system with the linked archives; empty for this machine's. */
  readonly system: string;
}

const ownMachine: NoticeSources = { node: process.execPath, system: '' };

/**
 * The whole text.
 * @param modules the bundled modules.
 * @throws Error for a package without a license.
 */
export function renderNotices(
  root: string,
  modules: readonly string[],
  sources = ownMachine,
): string {
  const notices = [
    packageNotice(root),
    nodeNotice(sources),
    ...bundledPackages(modules).map((folder) => packageNotice(folder)),
    // Every bundle contains parts of rolldown.
    packageNotice(join(root, 'node_modules/rolldown')),
    ...linkedArchives(sources).map((archive) => archiveNotice(archive, sources)),
    ...['LGPL-3', 'GPL-3'].flatMap((name) => commonNotice(name, sources)),
  ];
  return [
    'What the executable `nmi` and its addon hold, and on what terms:',
    notices
      .map(({ name, version, terms }) => `- ${[name, version].join(' ').trim()}: ${terms}`)
      .join('\n'),
    aboutArchives,
    ...notices.map(({ name, version, text }) =>
      ['-'.repeat(80), `${name} ${version}`.trim(), text.trim()].join('\n\n'),
    ),
    '',
  ].join('\n\n');
}

/** The folders of the modules' packages, each once. */
export function bundledPackages(modules: readonly string[]): readonly string[] {
  const folders = modules.flatMap(
    (id) => /^(\/.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1] ?? [],
  );
  return [...new Set(folders)].toSorted();
}

/** For the Node in the executable; it has the same version as the Node that runs this script. */
function nodeNotice({ node }: NoticeSources): Notice {
  const text = readFileSync(join(node, '../../LICENSE'), 'utf8');
  return {
    name: 'Node.js',
    version: process.version.slice(1),
    terms: 'MIT, and those of its parts',
    text,
  };
}

function isManifest(value: unknown): value is PackageManifest {
  if (typeof value !== 'object' || value === null) return false;
  const fields: Readonly<Partial<Record<string, unknown>>> = { license: '', ...value };
  return ['name', 'version', 'license'].every((key) => typeof fields[key] === 'string');
}

function packageNotice(folder: string): Notice {
  const manifest: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  if (!isManifest(manifest)) throw new Error(`${folder}/package.json is not a package's manifest`);
  const { name, version, license } = manifest;
  const texts = readdirSync(folder)
    .filter((file) => /^(?:licen[cs]e|notice|copying|unlicense)(?:[.-]|$)/i.test(file))
    .map((file) => readFileSync(join(folder, file), 'utf8').trim());
  if (license === undefined || texts.length === 0) throw new Error(`${name} has no licence`);
  return { name, version, terms: license, text: texts.join('\n\n') };
}

/** libzstd only if libelf needs it; then its package is installed. */
export function linkedArchives(sources: NoticeSources): readonly Archive[] {
  return Object.values(archives).filter(
    (archive) =>
      archive.debianPackage !== 'libzstd-dev' || existsSync(copyrightOf(archive, sources)),
  );
}

function copyrightOf({ debianPackage }: Archive, { system }: NoticeSources): string {
  return `${system}/usr/share/doc/${debianPackage}/copyright`;
}

function archiveNotice(archive: Archive, sources: NoticeSources): Notice {
  const { name, terms, source } = archive;
  const path = copyrightOf(archive, sources);
  const text = existsSync(path) ? readFileSync(path, 'utf8') : 'Its terms are with its source.';
  return { name, version: '', terms, text: `Source: ${source}\n\n${text}` };
}

function commonNotice(name: string, { system }: NoticeSources): readonly Notice[] {
  const path = `${system}/usr/share/common-licenses/${name}`;
  if (!existsSync(path)) return [];
  return [{ name, version: '', terms: 'the text', text: readFileSync(path, 'utf8') }];
}
