/** The plugin as it is built: one script, one executable, and the files of a release. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { runInNewContext } from 'node:vm';
import { parse } from 'yaml';
import { freshExecutable, ownMachine, repositoryRoot } from '../../../scripts/build.ts';
import { bundlePlugin } from '../../../scripts/bundle.ts';
import { makePluginExecutable } from '../../../scripts/plugin-executable.ts';
import { renderPluginScript } from '../../../scripts/plugin-script.ts';
import { mustBePlace, packPlugin } from '../../../scripts/release/plugin.ts';

/** On a Node of a version: what it prints, its exit codes, and whether it goes on. */
function runOn(version: string) {
  const printed: string[] = [];
  const exits: number[] = [];
  let hasBegun = false;
  const script = renderPluginScript('begin();').replace(/^#!.*\n/, '');
  runInNewContext(script, {
    process: {
      version: `v${version}`,
      versions: { node: version },
      execPath: '/usr/bin/node',
      exit: (code: number) => exits.push(code),
    },
    console: { error: (line: string) => printed.push(line) },
    begin: () => (hasBegun = true),
  });
  return { printed, exits, hasBegun };
}

describe('the script of the plugin', () => {
  const script = join(repositoryRoot, 'dist/kubectl-nmi');
  let programs: readonly (readonly [program: string, ...words: readonly string[]])[] = [];
  before(async () => {
    await freshExecutable();
    programs = [[process.execPath, script], [await makePluginExecutable()]];
  });

  it('is one file without native code, packaged for npm', () => {
    const text = readFileSync(script, 'utf8');
    assert.match(text, /^#!\/usr\/bin\/env node\n\(function/, 'the check of the version of Node');
    assert.doesNotMatch(text, /\.node['"]|dlopen/);
    const manifest: unknown = JSON.parse(
      readFileSync(join(repositoryRoot, 'dist/package.json'), 'utf8'),
    );
    const { bin, version } = manifest as { readonly bin: object; readonly version: string };
    const names = ['kubectl-nmi', 'kubectl_complete-nmi'];
    assert.deepEqual(bin, Object.fromEntries(names.map((name) => [name, name])));
    assert.match(version, /^\d+\.\d+\.\d+/);
  });

  it('prints help, exits with 2 for a usage error, and gives one clear line without kubectl, also as an executable', () => {
    for (const [program, ...leading] of programs) {
      const run = (...words: readonly string[]) =>
        spawnSync(program, [...leading, ...words], {
          encoding: 'utf8',
          cwd: tmpdir(),
          env: { PATH: '/nowhere' },
          timeout: 30_000,
        });
      const help = run('explain', '--help');
      assert.equal(help.status, 0, help.stderr);
      assert.match(help.stdout, /^Examples:\n {2}kubectl nmi explain /m);
      const { status, stdout, stderr } = run('explain', 'pod', 'web', '-n', 'shop');
      assert.deepEqual([status, stdout], [69, '']);
      const says =
        /^error: cannot get pod shop\/web: the program kubectl is not on the PATH\n[^\n]+\n$/;
      assert.match(stderr, says);
      for (const words of ['', 'bogus', 'explain --bogus', 'explain pod x -o xml']) {
        const wrong = run(...words.split(' ').filter((word) => word !== ''));
        assert.equal(wrong.status, 2, words);
        assert.doesNotMatch(wrong.stderr, /\n\s+at /);
      }
    }
  });

  it('names the Node that it needs and the one that runs it, and goes on with any later one', () => {
    for (const version of ['18.20.8', '20.19.0', '21.9.9', '22.2.0']) {
      const line = `error: kubectl nmi needs Node.js 22.3 or later, and /usr/bin/node is v${version}; install the executable kubectl-nmi-linux-ARCH of the release or of ./dev build in its place, which needs none, or put a newer node first on the PATH`;
      const { printed, exits } = runOn(version);
      assert.deepEqual([printed, exits], [[line], [69]]);
    }
    for (const version of ['22.3.0', '22.12.0', '23.0.0', '26.10.0']) {
      assert.deepEqual(runOn(version), { printed: [], exits: [], hasBegun: true });
    }
  });

  it('can be parsed where it cannot run', async () => {
    const stamp = { version: '0.0.0', commit: 'x', date: 'x' };
    const { script: text } = await bundlePlugin(repositoryRoot, stamp);
    // Node 18 and before know no such flag of regular expressions, and would report only that.
    assert.doesNotMatch(text, /\/[dgimsuy]*v[dgimsuy]*\.(?:test|exec)\(/);
    assert.match(text, /new RegExp\([^\n]*"v"\)/);
  });
});

describe('the plugin of a release', () => {
  const place = 'https://example.com/releases';

  it('is an archive, and a manifest for krew that names its address and its hash, the same bytes each time', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-plugin-release-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const packInto = async (name: string): Promise<string> => {
      const [results, work] = [join(folder, name), join(folder, `${name}-work`)];
      for (const made of [results, work]) mkdirSync(made);
      await packPlugin({ results, work, epoch: 1_700_000_000, place }, ownMachine, []);
      return results;
    };
    const [results, again] = [await packInto('first'), await packInto('second')];
    const files = readdirSync(results).toSorted();
    for (const file of files) {
      assert.deepEqual(readFileSync(join(results, file)), readFileSync(join(again, file)), file);
    }
    const [manifest = '', archive = ''] = files;
    assert.match(archive, /^kubectl-nmi-v\d+\.\d+\.\d+\.tar\.gz$/);
    const { spec } = parse(readFileSync(join(results, manifest), 'utf8')) as {
      readonly spec: {
        readonly version: string;
        readonly shortDescription: string;
        readonly platforms: readonly { readonly uri: string; readonly sha256: string }[];
      };
    };
    assert.match(spec.version, /^v\d+\.\d+\.\d+/);
    assert.ok(spec.shortDescription.length <= 50, 'krew shows 50 characters');
    const [{ uri, sha256 } = assert.fail()] = spec.platforms;
    assert.equal(uri, `${place}/${archive}`);
    const bytes = readFileSync(join(results, archive));
    assert.equal(sha256, createHash('sha256').update(bytes).digest('hex'));
    const listed = spawnSync('tar', ['-tzf', join(results, archive)], { encoding: 'utf8' }).stdout;
    assert.deepEqual(listed.trim().split('\n').toSorted(), [
      ...['./', './LICENSE', './THIRD-PARTY-NOTICES.txt', './kubectl-nmi'],
      './kubectl_complete-nmi',
    ]);
  });

  it('has an address from which krew can fetch', () => {
    for (const wrong of ['', 'http://example.com/x', `${place}/`, 'https://example.com/?x']) {
      assert.throws(() => mustBePlace(wrong), /no https URL/);
    }
  });
});
