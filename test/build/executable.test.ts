import { after, before, describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freshExecutable, repositoryRoot, v8Flags } from '../../scripts/build.ts';

/**
 * Modules that a start that only prints does not need: any that could use a network or decompress.
 */
const expensiveBuiltins = ['dgram', 'http', 'http2', 'https', 'inspector', 'tls', 'zlib'];

describe('the executable, alone in another folder', () => {
  let folder = '';
  let nmi = '';

  before(async () => {
    const built = await freshExecutable();
    folder = mkdtempSync(join(tmpdir(), 'nmi-executable-'));
    nmi = join(folder, 'nmi');
    copyFileSync(built, nmi);
  });

  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  /** Its environment has only the given variables; there is no other file to find. */
  function run(args: readonly string[], env: NodeJS.ProcessEnv = {}): SpawnSyncReturns<string> {
    return spawnSync(nmi, args, { cwd: folder, env, encoding: 'utf8', timeout: 30_000 });
  }

  it('has no symbols and no debug information, which are a fifth of Node', () => {
    const sections = spawnSync('readelf', ['--wide', '--sections', nmi], { encoding: 'utf8' });
    assert.doesNotMatch(sections.stdout, /\.symtab|\.debug_/);
    assert.ok(statSync(nmi).size < 130e6, `${statSync(nmi).size} bytes`);
  });

  it('prints its versions in the form of the agent that it replaces', () => {
    const { status, stdout, stderr } = run(['--version']);
    assert.match(
      stdout,
      /^MIC Version: \S+ - NMI Version: \d+\.\d+\.\d+\S* - Commit: \S+ - Date: \d{4}-\d\d-\d\dT[\d:]+Z\n$/,
    );
    assert.equal(stderr, '');
    assert.equal(status, 0);
  });

  it('prints help on standard output', () => {
    const { status, stdout, stderr } = run(['--help']);
    assert.match(stdout, /\bnmi\b/);
    assert.equal(stderr, '');
    assert.equal(status, 0);
  });

  it('loads none of the expensive modules to print its version', () => {
    const probe = join(folder, 'probe.cjs');
    const loaded = join(folder, 'loaded.json');
    writeFileSync(
      probe,
      `process.on('exit', () => require('node:fs').writeFileSync(${JSON.stringify(loaded)},
        JSON.stringify(process.moduleLoadList)));`,
    );
    // A pipe as standard output would itself load the network modules; a file does not.
    const output = openSync(join(folder, 'output'), 'w');
    // The script in the executable, which takes no options of Node.
    const args = ['--require', probe, join(repositoryRoot, 'dist/nmi.cjs'), '--version'];
    const { status } = spawnSync(process.execPath, args, {
      env: {},
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    assert.equal(status, 0);
    const modules = JSON.parse(readFileSync(loaded, 'utf8')) as readonly string[];
    assert.ok(modules.includes('NativeModule fs'), 'the probe must have seen some module');
    assert.deepEqual(
      expensiveBuiltins.filter((name) => modules.includes(`NativeModule ${name}`)),
      [],
    );
  });

  it('starts with code that was compiled when it was built', () => {
    // The entry reports code that V8 rejects; test/build/code-cache.test.ts asserts that it does.
    assert.equal(run(['--version']).stderr, '');
  });

  it('loads Node’s own modules with the code that Node has compiled', () => {
    const probe = join(folder, 'cache-probe.cjs');
    const found = join(folder, 'cache.json');
    writeFileSync(
      probe,
      `process.on('exit', () => {
        require('node:http'); require('node:tls'); require('node:zlib');
        const { internalBinding } = require('internal/test/binding');
        const { compiledWithCache, compiledWithoutCache } = internalBinding('builtins').getCacheUsage();
        require('node:fs').writeFileSync(${JSON.stringify(found)},
          JSON.stringify({ kept: [...compiledWithCache], refused: [...compiledWithoutCache] }));
      });`,
    );
    const flags = [...v8Flags, '--expose-internals', '--require', probe];
    const args = [...flags, join(repositoryRoot, 'dist/nmi.cjs'), '--version'];
    assert.equal(spawnSync(process.execPath, args, { env: {} }).status, 0);
    const { kept, refused } = JSON.parse(readFileSync(found, 'utf8')) as {
      readonly kept: readonly string[];
      readonly refused: readonly string[];
    };
    assert.ok(kept.includes('_tls_wrap') || kept.includes('tls'), kept.join(' '));
    assert.deepEqual(refused, []);
  });

  it('loads nothing that an environment variable names, and opens no debugger', () => {
    const probe = join(folder, 'option-probe.cjs');
    const loaded = join(folder, 'option-loaded');
    writeFileSync(probe, `require('node:fs').writeFileSync(${JSON.stringify(loaded)}, '');`);
    for (const option of [`--require ${probe}`, '--inspect=127.0.0.1:0', '--no-such-option']) {
      const { status, stderr, stdout } = run(['--version'], { NODE_OPTIONS: option });
      assert.equal(status, 0, option);
      assert.equal(stderr, '', option);
      assert.match(stdout, /^MIC Version/, option);
    }
    assert.ok(!existsSync(loaded));
  });
});
