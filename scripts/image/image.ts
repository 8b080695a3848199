/**
 * Makes the image without Docker, from the commit that is checked out:
 * `./dev image [--out FOLDER] [--sources FILE] [amd64] [arm64]`. By default for this machine's processor,
 * into `dist/image`: the OCI archive, a bill of materials for each processor, and the provenance.
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
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { buildStamp, makeExecutable, repositoryRoot } from '../build.ts';
import { nativeProducts } from '../native.ts';
import { bundledPackages, linkedArchives } from '../notices.ts';
import {
  ownArchitecture,
  prepareBuilder,
  processors,
  type Architecture,
  type Builder,
} from './builder.ts';
import { release } from './debian-tree.ts';
import { writeArchive, type PlatformImage } from './oci.ts';
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

const dist = join(repositoryRoot, 'dist');
const name = 'entra-pod-identity';
const lockFiles = ['package-lock.json', 'toolchain/package-lock.json'];

/** An image whose programs do not start must not be built. */
const startedPrograms: readonly (readonly [program: string, ...args: readonly string[]])[] = [
  ['nmi', '--version'],
  ['ip', '-V'],
  ['sleep', '0'],
  ['iptables-nft-save', '--version'],
  ['iptables-legacy-save', '--version'],
];

interface Commit {
  readonly id: string;
  readonly epoch: number;
}

async function makeImage(
  out: string,
  architectures: readonly Architecture[],
  sources: readonly string[] | undefined,
): Promise<void> {
  const commit = commitHere();
  mkdirSync(dist, { recursive: true });
  const work = mkdtempSync(join(dist, '.image-'));
  try {
    const { version, date: created } = buildStamp(String(commit.epoch));
    const results = join(work, 'results');
    mkdirSync(results);
    const images: PlatformImage[] = [];
    const materials: Material[] = [];
    for (const architecture of architectures) {
      say(`preparing Debian ${release} for ${architecture}`);
      const builder = prepareBuilder(architecture, sources);
      say(`building for ${architecture}`);
      const { root, modules } = await fillRoot(join(work, architecture), builder, commit);
      images.push({ architecture, root });
      materials.push(...debianMaterials(builder));
      const bill = renderSbom(
        { version, created, architecture },
        componentsOf(root, modules, builder),
      );
      writeFileSync(join(results, `${name}-${version}-${architecture}.cdx.json`), bill);
    }
    say('packing');
    const archive = join(results, `${name}-${version}.oci.tar`);
    const index = writeArchive(join(work, 'layout'), archive, images, {
      epoch: commit.epoch,
      version,
      name: `localhost/${name}:${version}`,
      labels: {
        'org.opencontainers.image.title': name,
        'org.opencontainers.image.version': version,
        'org.opencontainers.image.revision': commit.id,
        'org.opencontainers.image.created': created,
      },
    });
    const files = readdirSync(results).toSorted();
    const provenance = renderProvenance({
      subjects: [
        { name, digest: { sha256: index.digest.replace('sha256:', '') } },
        ...files.map((file) => fileMaterial(join(results, file), file)),
      ],
      architectures,
      materials: [
        { name: 'source', digest: { gitCommit: commit.id } },
        ...lockFiles.map((file) => fileMaterial(join(repositoryRoot, file), file)),
        ...onlyOnce(materials),
      ],
    });
    writeFileSync(join(results, `${name}-${version}.provenance.json`), provenance);
    rmSync(out, { recursive: true, force: true });
    mkdirSync(join(out, '..'), { recursive: true });
    renameSync(results, out);
    const megabytes = (statSync(join(out, `${name}-${version}.oci.tar`)).size / 1e6).toFixed(1);
    say(`${relative(process.cwd(), out)}/${name}-${version}.oci.tar, ${megabytes} MB`);
    process.stdout.write(`${index.digest}\n`);
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

/** An image contains its commit ID, so a clone is required; `+changes` if files differ from it. */
function commitHere(): Commit {
  const [id = '', epoch = ''] = run('git', 'log', '-1', '--format=%H %ct').trim().split(' ');
  const changes = run('git', 'status', '--porcelain');
  if (changes !== '') say('files differ from the commit; the image will say so');
  return { id: changes === '' ? id : `${id}+changes`, epoch: Number(epoch) };
}

function readLock(file: string): NpmLock {
  const lock: unknown = JSON.parse(readFileSync(join(repositoryRoot, file), 'utf8'));
  if (!isNpmLock(lock)) throw new Error(`${file} is no lock file of npm`);
  return lock;
}

function run(tool: string, ...args: readonly string[]): string {
  const made = spawnSync(tool, args, { cwd: repositoryRoot, encoding: 'utf8' });
  if (made.status === 0) return made.stdout;
  throw new Error(
    `${tool} failed: ${made.error?.message ?? `${made.stdout}${made.stderr}`.trim()}`,
  );
}

function say(text: string): void {
  process.stderr.write(`image: ${text}\n`);
}

function isArchitecture(word: string): word is Architecture {
  return Object.hasOwn(processors, word);
}

// Some unpacked and copied files keep their mode.
process.umask(0o022);
try {
  const { values, positionals } = parseArgs({
    options: { out: { type: 'string' }, sources: { type: 'string' } },
    allowPositionals: true,
  });
  const wrong = positionals.find((word) => !isArchitecture(word));
  if (wrong !== undefined) throw new Error(`not a processor: ${wrong}; amd64 and arm64 are`);
  const wanted = new Set(positionals.filter(isArchitecture));
  const sources = values.sources === undefined ? undefined : readFileSync(values.sources, 'utf8');
  await makeImage(
    values.out ?? join(dist, 'image'),
    wanted.size === 0 ? [ownArchitecture] : [...wanted].toSorted(),
    sources?.split('\n'),
  );
} catch (err) {
  process.stderr.write(`image: ${err instanceof Error ? err.message : 'failed'}\n`);
  process.exitCode = 1;
}
