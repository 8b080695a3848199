/**
 * The plugin as krew installs it: an archive and a manifest in `dist/krew`. `node scripts/krew.ts
 * https://HOST/PATH`: the folder on the server from which krew fetches the archive.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildStamp, freshExecutable, repositoryRoot } from './build.ts';

export interface KrewRelease {
  readonly manifest: string;
  readonly archive: string;
}

/** @param place an https URL without a trailing slash. @throws Error for any other text. */
export async function makeKrewRelease(place: string): Promise<KrewRelease> {
  if (!/^https:\/\/[^\s?#]+[^/\s?#]$/.test(place)) {
    throw new Error(`${place} is no https URL of a folder without a slash at its end`);
  }
  await freshExecutable();
  const version = `v${buildStamp().version}`;
  const folder = join(repositoryRoot, 'dist/krew');
  mkdirSync(folder, { recursive: true });
  const archive = join(folder, `kubectl-nmi-${version}.tar.gz`);
  const bytes = pack();
  writeFileSync(archive, bytes);
  const template = readFileSync(join(repositoryRoot, 'deploy/krew/nmi.yaml'), 'utf8');
  const manifest = join(folder, 'nmi.yaml');
  const text = template
    .replace(/^#.*\n/, '')
    .replace('version: VERSION', `version: ${version}`)
    .replace('uri: URI', `uri: ${place}/kubectl-nmi-${version}.tar.gz`)
    .replace('sha256: SHA256', `sha256: ${createHash('sha256').update(bytes).digest('hex')}`);
  writeFileSync(manifest, text);
  return { manifest, archive };
}

/** Same bytes for the same files: no times and no owners. */
function pack(): Buffer {
  const work = mkdtempSync(join(tmpdir(), 'nmi-krew-'));
  try {
    copyFileSync(join(repositoryRoot, 'dist/kubectl-nmi'), join(work, 'kubectl-nmi'));
    copyFileSync(join(repositoryRoot, 'LICENSE'), join(work, 'LICENSE'));
    const flags = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner'];
    const made = spawnSync('tar', ['-C', work, ...flags, '-I', 'gzip -n', '-cf', '-', '.'], {
      maxBuffer: 1e8,
    });
    if (made.status !== 0) throw new Error(`tar failed: ${made.stderr.toString()}`);
    return made.stdout;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const { manifest, archive } = await makeKrewRelease(process.argv[2] ?? '');
  process.stdout.write(`${manifest}\n${archive}\n`);
}
