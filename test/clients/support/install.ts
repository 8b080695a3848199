/**
 * The clients, installed from their locked versions into `.cache/clients` when a test first wants
 * them. Without a package manager or its registry there are none, which is no failure.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { basename, join } from 'node:path';

const clients = join(import.meta.dirname, '..');
const cache = join(clients, '../../.cache/clients');
const timeoutMs = 240_000;

/** npm's own patience with a registry that is not there is more than a minute. */
const briefly = ['--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=4000'];

export type Installed =
  { readonly folder: string; readonly missing?: undefined } | { readonly missing: string };

/** A folder with `node_modules`. */
export function installNpmClients(): Installed {
  const files = ['package.json', 'package-lock.json', '.npmrc'];
  const sources = files.map((file) => join(clients, 'npm', file));
  return install('npm', sources, process.version, (folder) => {
    for (const [index, file] of files.entries()) cpSync(sources[index] ?? '', join(folder, file));
    return [['npm', 'ci', '--ignore-scripts', '--loglevel=error', ...briefly, '--prefix', folder]];
  });
}

/** A virtual environment; its interpreter is `bin/python`. */
export function installPythonClients(): Installed {
  const requirements = join(clients, 'python/requirements.txt');
  // An environment is of no use once its interpreter has gone.
  const { stdout } = spawnSync('python3', ['-c', 'import sys; print(sys.executable, sys.version)']);
  return install('python', [requirements], String(stdout), (folder) => [
    ['python3', '-m', 'venv', folder],
    [
      ...[join(folder, 'bin/python'), '-m', 'pip', 'install', '--quiet'],
      ...['--disable-pip-version-check', '--requirement', requirements],
    ],
  ]);
}

/** The Go client as a program, `client`. */
export function installGoClient(): Installed {
  const source = join(clients, 'go');
  const sources = ['go.mod', 'go.sum', 'main.go'].map((file) => join(source, file));
  return install('go', sources, '', (folder) => [
    ['go', 'build', '-C', source, '-mod=readonly', '-buildvcs=false', '-o', join(folder, 'client')],
  ]);
}

export function findCurl(): Installed {
  const { status } = spawnSync('curl', ['--version'], { stdio: 'ignore' });
  return status === 0 ? { folder: '' } : { missing: 'curl is not installed' };
}

/** Made aside and renamed, so that what is there is whole. */
function install(
  kind: string,
  sources: readonly string[],
  toolVersion: string,
  plan: (folder: string) => readonly (readonly string[])[],
): Installed {
  const hash = createHash('sha256');
  for (const source of sources) hash.update(readFileSync(source));
  hash.update(`${process.platform} ${process.arch} ${toolVersion}`);
  const folder = join(cache, `${kind}-${hash.digest('hex').slice(0, 12)}`);
  if (existsSync(folder)) return { folder };
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, `.${kind}-`));
  try {
    for (const [program = '', ...args] of plan(work)) {
      const run = spawnSync(program, args, { encoding: 'utf8', timeout: timeoutMs });
      if (run.status === 0) continue;
      const said = (run.error?.message ?? run.stderr).trim().split('\n');
      const why = said.find((line) => /error/i.test(line)) ?? said.at(-1) ?? '';
      return { missing: `${basename(program)} could not install the ${kind} clients: ${why}` };
    }
    renameSync(work, folder);
    return { folder };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
