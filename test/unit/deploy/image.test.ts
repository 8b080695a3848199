/** Checks of the image that need no build tool. */
import assert from 'node:assert/strict';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const root = join(import.meta.dirname, '../../..');
const executable = join(root, 'dist/nmi');
const dockerfile = await readFile(join(root, 'deploy/Dockerfile'), 'utf8');

function output(tool: string, ...args: readonly string[]): string {
  const run = spawnSync(tool, args, { encoding: 'utf8', timeout: 30_000 });
  assert.equal(run.status, 0, `${tool} ${args.join(' ')}: ${run.error?.message ?? run.stderr}`);
  return run.stdout;
}

/** Why the packages of this machine differ from those of the image. */
function whyNoDebian(): string | false {
  if (spawnSync('dpkg-query', ['--version']).error !== undefined) return 'not a Debian system';
  return existsSync(executable) ? false : 'dist/nmi is not built';
}

/** Fails for a package that is not installed, for example an alternative that was not chosen. */
function dpkg(...args: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync('dpkg-query', args, { encoding: 'utf8', timeout: 30_000 });
}

/** The packages and their dependencies, from dpkg. libc6 is needed by all and in every Debian. */
function closureOf(names: readonly string[]): ReadonlySet<string> {
  const known = new Set<string>(['libc6']);
  const open = [...names];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (known.has(name)) continue;
    known.add(name);
    const { stdout: needs } = dpkg('-W', '-f', '${Depends}', name);
    open.push(...needs.split(/[,|]/).flatMap((need) => /^\s*([a-z0-9.+-]+)/.exec(need)?.[1] ?? []));
  }
  return known;
}

describe('the Dockerfile', () => {
  it('copies only files that exist in the clone', () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(
      ([, paths = '']) => paths.split(' '),
    );
    const setUp = ['dev', 'package.json', 'package-lock.json', '.npmrc', 'toolchain'];
    assert.deepEqual(copied, ['deploy/with-build-ca.sh', ...setUp, '.', 'deploy/image-root.sh']);
    for (const path of copied) assert.ok(existsSync(join(root, path)), path);
    assert.match(dockerfile, /^COPY --from=build \/src\/dist \/dist$/m);
  });

  it('takes packages from the snapshot of its base on request', () => {
    const [, script = ''] = /sed -Ei '(.+)' \S+debian\.sources/.exec(dockerfile) ?? [];
    const input =
      'Types: deb\n# http://old.example/archive/debian/20260102T000000Z\n' +
      'URIs: http://new.example/debian\nSuites: trixie trixie-updates\n';
    const sed = spawnSync('sed', ['-E', script], { encoding: 'utf8', input });
    assert.equal(
      sed.stdout,
      'Types: deb\nURIs: http://old.example/archive/debian/20260102T000000Z\nSuites: trixie trixie-updates\n',
    );
  });

  it('starts each program of the image before the image is made', async () => {
    const script = await readFile(join(root, 'deploy/image-root.sh'), 'utf8');
    const started = [...dockerfile.matchAll(/^RUN \["([\w-]+)"/gm)].map(([, name = '']) => name);
    assert.ok(started.includes('nmi'));
    for (const name of started) assert.match(script, new RegExp(`\\b${name}\\b`));
  });

  it('installs every library that the executable loads', { skip: whyNoDebian() }, () => {
    const [, list = ''] =
      /FROM debian AS root\n[\s\S]*?--no-install-recommends ([^\n]+)/.exec(dockerfile) ?? [];
    const installed = list
      .split(' ')
      .filter((name) => spawnSync('dpkg', ['-s', name]).status === 0);
    const packages = closureOf(installed);
    const libraries = [...output('ldd', executable).matchAll(/=> (\/\S+)/g)];
    assert.ok(libraries.length > 3);
    for (const [, path = ''] of libraries) {
      // The loader reports /lib, dpkg the target of that link, or the other way round.
      const names = [path, realpathSync(path), path.replace(/^\/lib/, '/usr/lib')];
      const owner = names.map((name) => dpkg('-S', name).stdout).find((found) => found !== '');
      const [name = ''] = owner?.split(':') ?? [];
      assert.ok(packages.has(name), `${path} of ${name} is not in the image`);
    }
  });
});
