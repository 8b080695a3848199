/**
 * Debian systems as folders, made by mmdebstrap. They use the package sources of this machine, so
 * its settings of apt and npm are copied into the folder at run time.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { aptOptions, sourcesOf } from '../../scripts/image/apt-settings.ts';

export interface DebianSystem {
  readonly release: string;
  readonly root: string;
  readonly variant: 'apt' | 'minbase';
  readonly packages: readonly string[];
}

const localCertificates = '/usr/local/share/ca-certificates';

/** The first of the programs that is not installed. */
export function findMissingTool(...tools: readonly string[]): string | undefined {
  return tools.find((tool) => spawnSync(tool, ['--version']).error !== undefined);
}

/** @throws with the output of the tool unless it succeeds. */
export function runTool(tool: string, ...args: readonly string[]): void {
  const { status, error, stdout, stderr } = spawnSync(tool, args, {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status === 0) return;
  const why = error?.message ?? `${stdout}${stderr}`.slice(-4000);
  throw new Error(`${tool} ${args.join(' ')}: ${why}`);
}

export function makeDebianSystem({ release, root, variant, packages }: DebianSystem): void {
  runTool(
    // Its mounts are removed when it ends, also after a crash.
    ...(['unshare', '--mount', '--', 'mmdebstrap', '--quiet', '--mode=root'] as const),
    `--variant=${variant}`,
    ...(packages.length === 0 ? [] : [`--include=${packages.join(',')}`]),
    ...aptOptions().map((option) => `--aptopt=${option}`),
    ...[release, root, ...sourcesOf(release)],
  );
}

/**
 * The settings with which apt and npm reach their registries: names, certificates, configuration.
 */
export function copyRegistrySettings(root: string): void {
  const npmConfig = (key: string): string => output('npm', 'config', 'get', key).trim();
  for (const [from, to] of [
    ['/etc/resolv.conf', '/etc/resolv.conf'],
    ['/etc/hosts', '/etc/hosts'],
    [localCertificates, localCertificates],
    [npmConfig('userconfig'), '/srv/.npmrc'],
    [npmConfig('globalconfig'), '/etc/npmrc'],
  ] as const) {
    if (existsSync(from)) cpSync(from, join(root, to), { recursive: true, dereference: true });
  }
}

/** The environment variables for the same registries. */
export function registryEnvironment(): Readonly<Record<string, string>> {
  const names = /^(?:npm_config_registry|(?:https?|no)_proxy|NODE_EXTRA_CA_CERTS|SSL_CERT_FILE)$/i;
  const found = Object.entries(process.env).flatMap(([name, value]) =>
    names.test(name) && value !== undefined ? [[name, value] as const] : [],
  );
  return Object.fromEntries(found);
}

/** The output of a tool; empty if the tool is not installed. */
function output(tool: string, ...args: readonly string[]): string {
  return spawnSync(tool, args, { encoding: 'utf8' }).stdout ?? '';
}
