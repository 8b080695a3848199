/**
 * The image of the commit that is checked out, made without Docker: the OCI archive, a bill of materials
 * for each processor, and the provenance.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { buildStamp, makeExecutable, repositoryRoot } from '../build.ts';
import { nativeProducts } from '../native.ts';
import { bundledPackages, linkedArchives } from '../notices.ts';
import { prepareBuilder, processors, type Architecture, type Builder } from './builder.ts';
import { release, type DebianOrigin } from './debian-tree.ts';
import { writeArchive, type Descriptor, type PlatformImage } from './oci.ts';
import { renderProvenance, type Material } from './provenance.ts';
import {
  componentOfStanza,
  debianComponent,
  debianPurl,
  isNpmLock,
  npmComponent,
  renderSbom,
  type Component,
  type NpmLock,
} from './sbom.ts';

export const dist = join(repositoryRoot, 'dist');
/** Of the image, and of the chart. */
export const name = 'entra-pod-identity';
export const changed = '+changes';
const lockFiles = ['package-lock.json', 'toolchain/package-lock.json'];

/** An image whose programs do not start must not be built. */
const startedPrograms: readonly (readonly [program: string, ...args: readonly string[]])[] = [
  ['nmi', '--version'],
  ['ip', '-V'],
  ['sleep', '0'],
  ['iptables-nft-save', '--version'],
  ['iptables-legacy-save', '--version'],
];

export interface Commit {
  /** With {@link changed} at its end if files differ from it. */
  readonly id: string;
  readonly epoch: number;
}

export interface ImageRequest {
  /** An empty folder. */
  readonly results: string;
  readonly work: string;
  readonly architectures: readonly Architecture[];
  readonly debian: DebianOrigin;
  readonly commit: Commit;
}

export interface BuiltImage {
  readonly archive: string;
  readonly index: Descriptor;
  readonly builders: readonly Builder[];
}

/** Writes the archive, and a bill of materials for each processor. */
export async function buildImage(request: ImageRequest): Promise<BuiltImage> {
  const { results, work, commit } = request;
  const { version, date: created } = buildStamp(String(commit.epoch));
  const images: PlatformImage[] = [];
  const builders: Builder[] = [];
  for (const architecture of request.architectures) {
    say(`preparing Debian ${release} for ${architecture}`);
    const builder = prepareBuilder(architecture, request.debian);
    say(`building for ${architecture}`);
    const { root, modules } = await fillRoot(join(work, architecture), builder, commit);
    images.push({ architecture, root });
    builders.push(builder);
    const components = componentsOf(root, modules, builder);
    const bill = renderSbom({ version, created, architecture }, components);
    writeFileSync(join(results, `${name}-${version}-${architecture}.cdx.json`), bill);
  }
  say('packing');
  const archive = `${name}-${version}.oci.tar`;
  const index = writeArchive(join(work, 'layout'), join(results, archive), images, {
    epoch: commit.epoch,
    version,
    name: `localhost/${name}:${version}`,
    labels: labelsOf(commit),
  });
  return { archive, index, builders };
}

export function labelsOf(commit: Commit): Readonly<Record<string, string>> {
  const { version, date } = buildStamp(String(commit.epoch));
  return {
    'org.opencontainers.image.title': name,
    'org.opencontainers.image.version': version,
    'org.opencontainers.image.revision': commit.id,
    'org.opencontainers.image.created': date,
  };
}

/** Of the image, of other artifacts by their digests, and of all files in the folder so far. */
export function writeProvenance(
  { results, architectures, commit }: ImageRequest,
  { builders }: BuiltImage,
  artifacts: Readonly<Record<string, string>>,
): void {
  const provenance = renderProvenance({
    subjects: [
      ...Object.entries(artifacts).map(([artifact, digest]) => ({
        name: artifact,
        digest: { sha256: digest.replace('sha256:', '') },
      })),
      ...readdirSync(results)
        .toSorted()
        .map((file) => fileMaterial(join(results, file), file)),
    ],
    architectures,
    materials: [
      { name: 'source', digest: { gitCommit: commit.id } },
      ...lockFiles.map((file) => fileMaterial(join(repositoryRoot, file), file)),
      ...onlyOnce(builders.flatMap(debianMaterials)),
    ],
  });
  const { version } = buildStamp();
  writeFileSync(join(results, `${name}-${version}.provenance.json`), provenance);
}

/** Fills another folder that takes the place of `out` when it is complete. */
export async function replaceFolder(
  out: string,
  fill: (results: string, work: string) => Promise<void>,
): Promise<void> {
  mkdirSync(dist, { recursive: true });
  const work = mkdtempSync(join(dist, '.image-'));
  try {
    const results = join(work, 'results');
    mkdirSync(results);
    await fill(results, work);
    rmSync(out, { recursive: true, force: true });
    mkdirSync(join(out, '..'), { recursive: true });
    renameSync(results, out);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Creates the image's files below a folder; returns the modules in its executable. */
async function fillRoot(
  folder: string,
  builder: Builder,
  { epoch }: Commit,
): Promise<{ readonly root: string; readonly modules: readonly string[] }> {
  const [made, root] = [join(folder, 'dist'), join(folder, 'root')];
  mkdirSync(join(made, 'native'), { recursive: true });
  mkdirSync(root);
  const modules = await makeExecutable(made, builder, buildStamp(String(epoch)));
  for (const file of nativeProducts) {
    copyFileSync(join(builder.native, file), join(made, 'native', file));
  }
  run(join(repositoryRoot, 'deploy/image-root.sh'), root, made, builder.runtime.folder);
  for (const program of startedPrograms) builder.mustStart(root, ...program);
  return { root, modules };
}

function componentsOf(
  root: string,
  modules: readonly string[],
  { architecture, tools, system, node }: Builder,
): readonly Component[] {
  const [lock, toolchain] = [
    readLock('package-lock.json'),
    readLock('toolchain/package-lock.json'),
  ];
  const status = join(root, 'var/lib/dpkg/status.d');
  const linked = linkedArchives({ system, node }).flatMap(({ debianPackage }) =>
    tools.packages.filter((each) => each.name === debianPackage && each.architecture !== 'all'),
  );
  return [
    npmComponent(toolchain, `node_modules/${processors[architecture].node}`),
    ...[...bundledPackages(modules), join(repositoryRoot, 'node_modules/rolldown')].map((folder) =>
      npmComponent(lock, relative(repositoryRoot, folder)),
    ),
    ...linked.map((each) => debianComponent(each.name, each.version, each.architecture, release)),
    ...readdirSync(status).map((file) =>
      componentOfStanza(readFileSync(join(status, file), 'utf8'), release),
    ),
  ];
}

function debianMaterials({ tools, runtime }: Builder): readonly Material[] {
  return [...tools.packages, ...runtime.packages].map((each) => ({
    name: debianPurl(each.name, each.version, each.architecture, release),
    digest: { sha256: each.sha256 },
  }));
}

function onlyOnce(materials: readonly Material[]): readonly Material[] {
  const known = new Map(materials.map((material) => [material.name, material]));
  return [...known.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function fileMaterial(path: string, file: string): Material {
  return {
    name: file,
    digest: { sha256: createHash('sha256').update(readFileSync(path)).digest('hex') },
  };
}

/** An image contains its commit ID, so a clone is required. */
export function commitHere(): Commit {
  const [id = '', epoch = ''] = run('git', 'log', '-1', '--format=%H %ct').trim().split(' ');
  const changes = run('git', 'status', '--porcelain');
  return { id: changes === '' ? id : `${id}${changed}`, epoch: Number(epoch) };
}

function readLock(file: string): NpmLock {
  const lock: unknown = JSON.parse(readFileSync(join(repositoryRoot, file), 'utf8'));
  if (!isNpmLock(lock)) throw new Error(`${file} is no lock file of npm`);
  return lock;
}

export function run(tool: string, ...args: readonly string[]): string {
  const made = spawnSync(tool, args, { cwd: repositoryRoot, encoding: 'utf8' });
  if (made.status === 0) return made.stdout;
  throw new Error(
    `${tool} failed: ${made.error?.message ?? `${made.stdout}${made.stderr}`.trim()}`,
  );
}

export function say(text: string): void {
  process.stderr.write(`image: ${text}\n`);
}
