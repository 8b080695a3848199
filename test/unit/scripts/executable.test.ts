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
import { freshExecutable, repositoryRoot, v8Flags } from '../../../scripts/build.ts';

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

  it('prints versions in the form of the agent that it replaces, and help, on standard output', () => {
    for (const [flag, says] of [
      [
        '--version',
        /^MIC Version: \S+ - NMI Version: \d+\.\d+\.\d+\S* - Commit: \S+ - Date: \d{4}-\d\d-\d\dT[\d:]+Z\n$/,
      ],
      ['--help', /\bnmi\b/],
    ] as const) {
      const { status, stdout, stderr } = run([flag]);
      assert.match(stdout, says);
      // Its entry reports compiled code that V8 rejects, as the test of the code cache shows.
      assert.deepEqual([status, stderr], [0, '']);
    }
  });

  /** What a module that is loaded first reports at the end of `--version`. */
  function reportOf(report: string, flags: readonly string[] = []): unknown {
    const [file, found] = [join(folder, 'probe.cjs'), join(folder, 'found.json')];
    writeFileSync(
      file,
      `process.on('exit', () => { ${report} require('node:fs').writeFileSync(${JSON.stringify(found)}, JSON.stringify(found)); });`,
    );
    // A pipe as standard output would itself load the network modules; a file does not.
    const output = openSync(join(folder, 'output'), 'w');
    // The script in the executable, which takes no options of Node.
    const args = [...flags, '--require', file, join(repositoryRoot, 'dist/nmi.cjs'), '--version'];
    const stdio = ['ignore', output, output] as const;
    const { status } = spawnSync(process.execPath, args, { env: {}, stdio: [...stdio] });
    closeSync(output);
    assert.equal(status, 0);
    return JSON.parse(readFileSync(found, 'utf8'));
  }

  it('loads none of the expensive modules to print its version', () => {
    const modules = reportOf('const found = process.moduleLoadList;') as readonly string[];
    assert.ok(modules.includes('NativeModule fs'), 'the probe must have seen some module');
    for (const name of expensiveBuiltins)
      assert.ok(!modules.includes(`NativeModule ${name}`), name);
  });

  it('loads Node’s own modules with the code that Node has compiled', () => {
    const report = `
      require('node:http'); require('node:tls'); require('node:zlib');
      const { internalBinding } = require('internal/test/binding');
      const { compiledWithCache, compiledWithoutCache } = internalBinding('builtins').getCacheUsage();
      const found = { kept: [...compiledWithCache], refused: [...compiledWithoutCache] };`;
    const { kept, refused } = reportOf(report, [...v8Flags, '--expose-internals']) as {
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
