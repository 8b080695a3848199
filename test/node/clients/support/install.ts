/**
 * The clients, installed from their locked versions into the tests' cache when a test first needs
 * them. Without a package manager or its registry they are missing, which is not a failure.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isKept, keep, keyOf, testCache } from '../../../support/test-cache.ts';
import type { Kit } from './client-matrix.ts';

const clients = join(import.meta.dirname, '..');
const cache = join(testCache, 'clients');
const timeoutMs = 240_000;

/** By default, npm retries an unreachable registry for more than a minute. */
const briefly = ['--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=4000'];

export type Installed =
  { readonly folder: string; readonly missing?: undefined } | { readonly missing: string };

/** The contents of a kit are described at its installer. */
export function installKit(kit: Kit): Installed {
  switch (kit) {
    case 'npm':
      return installNpmClients();
    case 'python':
      return installPython(kit, 'requirements.txt', () => []);
    case 'azure-cli':
    case 'azure-cli-2.64':
      return installAzureCli(kit);
    case 'go':
      return installGoClient();
    case 'curl':
      return findCurl();
  }
}

/** A folder with `node_modules`: `package.json` has the version of every package, also of those below others. */
function installNpmClients(): Installed {
  const source = join(clients, 'npm/package.json');
  const quietly = ['--loglevel=error', '--no-audit', '--no-fund', '--no-update-notifier'];
  return install('npm', [source], process.version, (folder) => {
    cpSync(source, join(folder, 'package.json'));
    const words = ['install', '--no-package-lock', '--ignore-scripts', ...quietly, ...briefly];
    return [['npm', ...words, '--prefix', folder]];
  });
}

/**
 * A virtual environment with `azure.cli`, and `seed`, a settings folder with an index of its
 * commands: an old version takes 10s to build that index.
 */
function installAzureCli(kit: 'azure-cli' | 'azure-cli-2.64'): Installed {
  return installPython(kit, `${kit}.txt`, (folder) => [
    [
      ...['env', `HOME=${folder}`, `AZURE_CONFIG_DIR=${join(folder, 'seed')}`],
      ...['AZURE_CORE_COLLECT_TELEMETRY=no', join(folder, 'bin/python')],
      ...['-m', 'azure.cli', 'account', 'list'],
    ],
  ]);
}

/** A virtual environment; its interpreter is `bin/python`. */
function installPython(
  kit: string,
  file: string,
  after: (folder: string) => readonly (readonly string[])[],
): Installed {
  const requirements = join(clients, 'python', file);
  // An environment is unusable without its interpreter.
  const { stdout } = spawnSync('python3', ['-c', 'import sys; print(sys.executable, sys.version)']);
  return install(kit, [requirements], String(stdout), (folder) => [
    ['python3', '-m', 'venv', folder],
    [
      ...[join(folder, 'bin/python'), '-m', 'pip', 'install', '--quiet', '--retries=2'],
      ...[
        '--disable-pip-version-check',
        '--no-compile',
        '--no-deps',
        '--requirement',
        requirements,
      ],
    ],
    ...after(folder),
  ]);
}

/** The Go client as a binary, `client`. */
function installGoClient(): Installed {
  const source = join(clients, 'go');
  const sources = ['go.mod', 'go.sum', 'main.go'].map((file) => join(source, file));
  return install('go', sources, '', (folder) => [
    [
      ...['go', 'build', '-C', source, '-mod=readonly', '-trimpath', '-buildvcs=false'],
      ...['-o', join(folder, 'client')],
    ],
  ]);
}

function findCurl(): Installed {
  const { status } = spawnSync('curl', ['--version'], { stdio: 'ignore' });
  return status === 0 ? { folder: '' } : { missing: 'curl is not installed' };
}

/** Built in a temporary folder and renamed, so that an existing folder is always complete. */
export function install(
  kind: string,
  sources: readonly string[],
  toolVersion: string,
  plan: (folder: string) => readonly (readonly string[])[],
): Installed {
  const inputs = sources.map((source) => readFileSync(source, 'utf8'));
  const key = keyOf([...inputs, process.platform, process.arch, toolVersion]);
  const folder = join(cache, `${kind}-${key}`);
  if (isKept(folder)) return { folder };
  try {
    keep(folder, (work) => {
      const made = join(work, kind);
      mkdirSync(made);
      for (const command of plan(made)) runStep(kind, command);
      return made;
    });
    return { folder };
  } catch (err) {
    if (err instanceof StepError) return { missing: err.message };
    throw err;
  }
}

class StepError extends Error {}

function runStep(kind: string, [program = '', ...args]: readonly string[]): void {
  const run = spawnSync(program, args, { encoding: 'utf8', timeout: timeoutMs });
  if (run.status === 0) return;
  const said = (run.error?.message ?? run.stderr).trim().split('\n');
  const why = said.find((line) => /^(?:npm )?error/i.test(line)) ?? said.at(-1) ?? '';
  throw new StepError(`${basename(program)} could not install ${kind}: ${why}`);
}
