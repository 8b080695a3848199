/**
 * An image in the layout of the Open Container Initiative, from folders with its contents. The same
 * files result in the same bytes: entries are sorted, and owners, times and gzip headers do not
 * depend on the builder or the time.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

export interface PlatformImage {
  readonly architecture: string;
  /** The folder that is its root. */
  readonly root: string;
}

export interface ImageFacts {
  /** Seconds since 1970, for every file and for the image. */
  readonly epoch: number;
  readonly version: string;
  /** Whole, with a registry. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: string; readonly os: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

const path = '/bin:/sbin:/usr/bin:/usr/sbin';
/** The image runs without privileges by default; the DaemonSet requests root explicitly. */
const user = '65532:65532';

const media = (kind: string): string => `application/vnd.oci.image.${kind}`;

/**
 * Fills an empty folder and packs it into `archive`; returns the index of the images. Its digest
 * identifies all of them.
 */
export function writeArchive(
  folder: string,
  archive: string,
  images: readonly PlatformImage[],
  facts: ImageFacts,
): Descriptor {
  mkdirSync(join(folder, 'blobs/sha256'), { recursive: true });
  const manifests = images.map((image) => writeImage(folder, image, facts));
  const list = { schemaVersion: 2, mediaType: media('index.v1+json'), manifests };
  const index = writeJson(folder, media('index.v1+json'), list);
  // One entry, so that a tool that copies the archive needs no selection.
  const annotations = {
    'org.opencontainers.image.ref.name': facts.version,
    // The name that `ctr image import` gives it.
    'io.containerd.image.name': facts.name,
  };
  const top = { schemaVersion: 2, manifests: [{ ...index, annotations }] };
  writeFileSync(join(folder, 'index.json'), JSON.stringify(top));
  writeFileSync(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  pack(folder, archive, facts.epoch);
  return index;
}

function writeImage(
  folder: string,
  { architecture, root }: PlatformImage,
  facts: ImageFacts,
): Descriptor {
  const created = new Date(facts.epoch * 1000).toISOString().replace('.000Z', 'Z');
  const tar = join(folder, 'layer.tar');
  pack(root, tar, facts.epoch);
  const diffId = digestOf(readFileSync(tar));
  const layer = addBlob(folder, media('layer.v1.tar+gzip'), compress(tar));
  rmSync(tar);
  const platform = {
    architecture,
    os: 'linux',
    ...(architecture === 'arm64' && { variant: 'v8' }),
  };
  const config = writeJson(folder, media('config.v1+json'), {
    created,
    ...platform,
    config: { User: user, Env: [`PATH=${path}`], Entrypoint: ['nmi'], Labels: facts.labels },
    rootfs: { type: 'layers', diff_ids: [diffId] },
    history: [{ created, created_by: './dev image' }],
  });
  const manifest = writeJson(folder, media('manifest.v1+json'), {
    schemaVersion: 2,
    mediaType: media('manifest.v1+json'),
    config,
    layers: [layer],
    annotations: facts.labels,
  });
  return { ...manifest, platform };
}

function writeJson(folder: string, mediaType: string, value: unknown): Descriptor {
  const file = join(folder, 'blob.json');
  writeFileSync(file, JSON.stringify(value));
  return addBlob(folder, mediaType, file);
}

/** Moves a file to the path of its digest. */
function addBlob(folder: string, mediaType: string, file: string): Descriptor {
  const content = readFileSync(file);
  const digest = digestOf(content);
  renameSync(file, join(folder, 'blobs', digest.replace(':', '/')));
  return { mediaType, digest, size: content.length };
}

function digestOf(content: Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

/** Uses GNU tar: its oldest format with long names has no fields for other data. */
function pack(folder: string, archive: string, epoch: number): void {
  const same = ['--format=ustar', '--sort=name', `--mtime=@${epoch}`, '--numeric-owner'];
  const entries = ['--owner=0', '--group=0', `--directory=${folder}`, '.'];
  run('tar', ['--create', `--file=${archive}`, ...same, ...entries], 'pipe');
}

/** Uses gzip: the output of zlib depends on the processor that it runs on. */
function compress(file: string): string {
  const compressed = `${file}.gz`;
  const output = openSync(compressed, 'w');
  try {
    run('gzip', ['--no-name', '--stdout', file], output);
  } finally {
    closeSync(output);
  }
  return compressed;
}

function run(tool: string, args: readonly string[], output: 'pipe' | number): void {
  const { status, error, stderr } = spawnSync(tool, args, {
    stdio: ['ignore', output, 'pipe'],
    env: { PATH: process.env['PATH'], LC_ALL: 'C' },
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${tool} failed: ${error?.message ?? stderr}`);
}
