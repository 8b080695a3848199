/** Archives with the same bytes for the same files, on every machine and at any time. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, renameSync, rmSync } from 'node:fs';

/** Modes do not depend on the umask of the clone. */
const plainModes = '--mode=u+rwX,go+rX,go-w';

/** Uses GNU tar: its oldest format with long names has no fields for other data. */
export function pack(folder: string, archive: string, epoch: number): void {
  packEntries(folder, archive, epoch, '.');
}

/** Packs one entry of a folder, and gzips it. */
export function packPlain(folder: string, entry: string, archive: string, epoch: number): void {
  const tar = `${archive}.tar`;
  packEntries(folder, tar, epoch, plainModes, entry);
  renameSync(compress(tar), archive);
  rmSync(tar);
}

function packEntries(
  folder: string,
  archive: string,
  epoch: number,
  ...more: readonly string[]
): void {
  const same = ['--format=ustar', '--sort=name', `--mtime=@${epoch}`, '--numeric-owner'];
  const owners = ['--owner=0', '--group=0', `--directory=${folder}`];
  run('tar', ['--create', `--file=${archive}`, ...same, ...owners, ...more], 'pipe');
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
