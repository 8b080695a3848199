import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runCli } from '../../src/cli/cli.ts';
import { hasFlag, options } from '../../src/nmi/config/options.ts';

async function cli(...words: string[]) {
  let stdout = '';
  let stderr = '';
  const code = await runCli(words, {
    // Where nobody listens: a demo that starts must not ask the metadata service of this machine.
    environment: { AZURE_POD_IDENTITY_AUTHORITY_HOST: 'http://127.0.0.1:1' },
    stdout: (text) => {
      stdout += text;
    },
    stderr: (text) => {
      stderr += text;
    },
    stop: AbortSignal.abort(),
  });
  return { code, stdout, stderr };
}

describe('the command line', () => {
  it('reports all problems of an old-style start together and exits 2', async () => {
    const { code, stdout, stderr } = await cli(
      ...['--operation-mode=standard', '--forceNamespaced', '--nmi-port', 'abc', '-bogus'],
      ...['--http-probe-port=-1', '-v=2'],
    );
    assert.equal(code, 2);
    assert.equal(stdout, '');
    const lines = stderr.trim().split('\n');
    assert.equal(lines.length, 5);
    for (const flag of [
      '--operation-mode',
      '--nmi-port',
      'unknown flag --bogus;',
      '--http-probe-port',
      '--node',
    ]) {
      assert.ok(
        lines.some((line) => line.startsWith(`nmi: ${flag} `)),
        flag,
      );
    }
  });

  it('prints the version in the old shape, as a flag and as a verb', async () => {
    for (const words of [['--version'], ['version'], ['run', '--version']]) {
      const { code, stdout } = await cli(...words);
      assert.equal(code, 0);
      assert.match(stdout, /^MIC Version: .* - NMI Version: .* - Commit: .* - Date: .*\n$/);
    }
  });

  it('has help for itself and for each verb', async () => {
    const { stdout } = await cli('--help');
    for (const verb of ['run', 'redirect', 'demo', 'explain', 'grants', 'version']) {
      assert.match(stdout, new RegExp(`^  ${verb} `, 'm'));
      assert.equal((await cli(verb, '--help')).code, 0);
    }
    assert.ok(!stdout.includes('self-dial'));
    for (const flag of [
      '--node',
      '--force-namespaced',
      '--metadata-guard',
      'Also --forceNamespaced',
    ]) {
      assert.ok(stdout.includes(flag), flag);
    }
  });

  it('shows with the redirect alone whatever changes what is installed', async () => {
    const { stdout } = await cli('redirect', '--help');
    for (const { name } of options.filter(({ isOfRedirect }) => isOfRedirect === true)) {
      assert.match(stdout, new RegExp(`^ +--${name} `, 'm'));
    }
  });

  it('refuses what yargs stumbles over as wrong usage', async () => {
    assert.equal((await cli('--constructor=y')).code, 2);
    const { code, stderr } = await cli('--forceNamespaced', 'false');
    assert.equal(code, 2);
    assert.match(stderr, /write --flag=value/);
  });

  it('refuses stray words', async () => {
    assert.equal((await cli('rnu')).code, 2);
    assert.match((await cli('lab')).stderr, /^nmi: unknown verb or word "lab"; see nmi --help\n$/);
    assert.equal((await cli('redirect')).code, 2);
    assert.equal((await cli('redirect', 'explode')).code, 2);
    assert.equal((await cli('demo', '--nope')).code, 2);
  });

  it('refuses a flag that takes a value and has none', async () => {
    for (const words of [
      ['--node'],
      ['--node', '--v=2'],
      ['-v', '--node=n'],
      ['--node', '--'],
      ['redirect', 'verify', '--output'],
      ['redirect', 'verify', '--kubeconfig'],
      ['demo', '--clientid', '--once'],
    ]) {
      const { code, stderr } = await cli(...words);
      assert.equal(code, 2, words.join(' '));
      assert.match(stderr, /^nmi: --?\w+ has no value; write --?\w+=VALUE; see nmi --help\n$/);
    }
  });

  it('refuses an empty value where there has to be one, naming the flag', async () => {
    for (const [words, flag] of [
      [['--node='], '--node'],
      [['--node', ''], '--node'],
      [['--node=n', '--http-probe-port='], '--http-probe-port'],
      [['--node=n', '--cloud='], '--cloud'],
      [['--node=n', '--fast-path='], '--fast-path'],
      [['--node=n', '--kubelet-config='], '--kubelet-config'],
      [['redirect', 'verify', '--redirect='], '--redirect'],
      [['demo', '--period='], '--period'],
      [['demo', '--resource-name='], '--resource-name'],
    ] as const) {
      const { code, stderr } = await cli(...words);
      assert.equal(code, 2, words.join(' '));
      assert.ok(stderr.includes(`${flag} has the value ""; allowed: `), stderr);
    }
  });

  it('lists in its help the variables that have no flag', async () => {
    const { stdout } = await cli('--help');
    for (const { name } of options.filter((row) => !hasFlag(row))) {
      assert.match(stdout, new RegExp(`^  NMI_${name.replaceAll('-', '_').toUpperCase()} `, 'm'));
      assert.ok(!stdout.includes(`--${name}`));
      const { code, stderr } = await cli('--node=n', `--${name}=/x/y`);
      assert.equal(code, 2);
      assert.match(stderr, new RegExp(`^nmi: unknown flag --${name};`));
    }
    assert.match(stdout, /^Advanced:\n +--iptables-backend /m);
  });
});
