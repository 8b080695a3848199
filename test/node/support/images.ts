/**
 * The images of a test node, as archives that containerd imports: ours from deploy/Dockerfile, the
 * pods' client, and the sandbox's process. No image registry is used: under the name of the
 * Dockerfile's base there is a Debian system that is built here.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { repositoryRoot } from '../../conventions/tree.ts';
import {
  copyRegistrySettings,
  makeDebianSystem,
  registryEnvironment,
  runTool,
} from '../../support/debian-system.ts';
import { nodeCache, provideCached } from './cached.ts';

/** Names that no registry serves. */
const registry = 'registry.test';
export const productImage = {
  repository: registry,
  name: `${registry}/entra-pod-identity:0.1.0`,
} as const;
export const clientImage = `${registry}/client:1`;
const pauseImage = `${registry}/pause:1`;

const release = 'trixie';
const dockerfile = 'deploy/Dockerfile';
/** The base image of {@link dockerfile}. */
const baseImage = 'docker.io/library/debian:trixie-slim';

/** Builds leave layers, 0.7 GB each; the first one makes 3 GB. */
const maxStorageGb = 12;
const storage = join(nodeCache, 'storage');
/** Each change of a source makes another archive of 0.2 GB. */
const productDays = 1;

/** Where the client's program is in its image. */
export const clientProgram = '/test/node/client/client.ts';
const clientSources = [
  'test/node/client/client.ts',
  'lab/fakes/token.ts',
  'lab/fakes/exchange-tokens.ts',
];

/** Paths of the archives. The first build takes some minutes; later only changes are built. */
export function provideImages(): readonly string[] {
  return [providePause(), provideClient(), provideProduct()];
}

/** One static program. */
function providePause(): string {
  const source = join(import.meta.dirname, '../system/pause.c');
  return provideArchive('pause', pauseImage, [readFileSync(source, 'utf8')], (root) => {
    runTool('gcc', '-static', '-Os', '-o', join(root, 'pause'), source);
    return ['ENTRYPOINT ["/pause"]'];
  });
}

/** Node with its libraries and nothing else. */
function provideClient(): string {
  const texts = clientSources.map((path) => readFileSync(join(repositoryRoot, path), 'utf8'));
  return provideArchive('client', clientImage, [process.version, ...texts], (root) => {
    const { stdout } = spawnSync('ldd', [process.execPath], { encoding: 'utf8' });
    const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = '']) => path);
    for (const path of libraries) place(path, join(root, path));
    place(process.execPath, join(root, 'bin/node'));
    for (const path of clientSources) place(join(repositoryRoot, path), join(root, path));
    writeFileSync(join(root, 'package.json'), '{"type":"module"}');
    return ['ENV PATH=/bin', `ENTRYPOINT ["node", "${clientProgram}"]`, 'CMD ["idle"]'];
  });
}

function place(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
}

/** An image of one folder, which `fill` fills; it returns the image's other instructions. */
function provideArchive(
  name: string,
  image: string,
  inputs: readonly string[],
  fill: (root: string) => readonly string[],
): string {
  return provideCached(`${name}.tar`, inputs, (archive) => {
    const folder = join(dirname(archive), 'context');
    mkdirSync(join(folder, 'root'), { recursive: true });
    const instructions = fill(join(folder, 'root'));
    const file = join(folder, 'Containerfile');
    writeFileSync(file, ['FROM scratch', 'COPY root /', ...instructions].join('\n'));
    const id = buildImage(folder, `--file=${file}`, `--tag=${image}`, folder);
    exportImage(id, image, archive);
  });
}

/** Built on every call; buildah reuses the layers with unchanged inputs. */
function provideProduct(): string {
  const id = buildSources(repositoryRoot, productImage.name);
  const makeArchive = (archive: string): void => {
    exportImage(id, productImage.name, archive);
  };
  return provideCached('product.tar', [id], makeArchive, productDays);
}

/** The image of other sources, as an archive. */
export function buildProduct(sources: string, image: string, archive: string): void {
  exportImage(buildSources(sources, image), image, archive);
}

/** The id of the image of the Dockerfile in a folder of sources. */
function buildSources(sources: string, image: string): string {
  provideBase();
  const work = mkdtempSync(join(nodeCache, `.work-${process.pid}-`));
  try {
    return buildImage(
      work,
      ...['--isolation=chroot', '--pull-never', '--layers', `--tag=${image}`],
      ...[`--file=${join(sources, dockerfile)}`, sources],
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The Dockerfile's base, which points apt and npm at this machine's package sources. */
function provideBase(): void {
  limitStorage();
  const variables = JSON.stringify(registryEnvironment());
  provideCached('base', [release, baseImage, variables], (stamp) => {
    const folder = join(dirname(stamp), 'context');
    const root = join(folder, 'root');
    mkdirSync(folder, { recursive: true });
    makeDebianSystem({ release, root, variant: 'minbase', packages: [] });
    copyRegistrySettings(root);
    // The image itself starts empty and has none of these.
    const lines = Object.entries(registryEnvironment()).map(
      ([name, value]) => `ENV ${name}=${JSON.stringify(value)}`,
    );
    const text = ['FROM scratch', 'COPY root /', ...lines].join('\n');
    writeFileSync(join(folder, 'Containerfile'), text);
    buildah(
      'bud',
      '--quiet',
      `--tag=${baseImage}`,
      `--file=${join(folder, 'Containerfile')}`,
      folder,
    );
    // The name now belongs to this base.
    forgetBases();
    writeFileSync(stamp, '');
  });
}

/** The id of an image of a folder on the base, with packages from this machine's sources. */
export function buildOnBase(folder: string, instructions: readonly string[], tag: string): string {
  provideBase();
  const file = join(folder, 'Containerfile');
  writeFileSync(file, [`FROM ${baseImage}`, ...instructions].join('\n'));
  return buildImage(
    folder,
    ...['--isolation=chroot', '--pull-never', `--tag=${tag}`, `--file=${file}`, folder],
  );
}

/**
 * A storage that is too large is made again: buildah cannot distinguish used layers from others.
 */
function limitStorage(): void {
  const { stdout } = spawnSync('du', ['--summarize', '--block-size=1G', storage], {
    encoding: 'utf8',
  });
  if (!(Number.parseInt(stdout, 10) > maxStorageGb)) return;
  rmSync(storage, { recursive: true, force: true });
  forgetBases();
}

function forgetBases(): void {
  for (const name of readdirSync(nodeCache)) {
    if (name.startsWith('base-')) rmSync(join(nodeCache, name));
  }
}

/** Returns its id: another clone may give the name to an image of its own. */
function buildImage(work: string, ...args: readonly string[]): string {
  const idFile = join(work, 'id');
  buildah('bud', '--quiet', `--iidfile=${idFile}`, ...args);
  return readFileSync(idFile, 'utf8').trim();
}

export function exportImage(id: string, image: string, archive: string): void {
  buildah('push', '--quiet', id, `docker-archive:${archive}:${image}`);
}

/**
 * With a separate storage, in a separate mount namespace, so that a killed build leaves no mount;
 * and with a new folder per boot for its state, which counts mounts.
 */
function buildah(...args: readonly string[]): void {
  const state = mkdtempSync(join(nodeCache, `.work-${process.pid}-`));
  try {
    runTool(
      ...(['env', `TMPDIR=${state}`, 'unshare', '--mount', '--', 'buildah'] as const),
      ...['--storage-driver=overlay', `--root=${storage}`],
      ...[`--runroot=${join(state, 'run')}`, ...args],
    );
  } finally {
    rmSync(state, { recursive: true, force: true });
  }
}
