import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runCli } from '../../src/cli/cli.ts';
import { environmentName, hasFlag, options } from '../../src/nmi/config/options.ts';

const cli = (...args: string[]) => cliIn({}, ...args);

async function cliIn(environment: Readonly<Record<string, string>>, ...args: string[]) {
  let stdout = '';
  let stderr = '';
  const code = await runCli(args, {
    // No process listens there: a demo that starts must not reach the metadata service of this
    // machine.
    environment: { AZURE_POD_IDENTITY_AUTHORITY_HOST: 'http://127.0.0.1:1', ...environment },
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
    for (const args of [['--version'], ['version'], ['run', '--version']]) {
      const { code, stdout } = await cli(...args);
      assert.equal(code, 0);
      assert.match(stdout, /^MIC Version: .* - NMI Version: .* - Commit: .* - Date: .*\n$/);
    }
  });

  it('prints its verbs when it is given nothing at all, which is wrong usage', async () => {
    const { code, stdout, stderr } = await cli();
    assert.deepEqual([code, stderr], [2, '']);
    assert.match(stdout, /^Verbs:$/m);
  });

  it('runs the agent without args where the environment names the node', async () => {
    const variables = { NMI_NODE: 'n', NMI_NMI_PORT: 'abc' };
    const { code, stderr } = await cliIn(variables);
    assert.equal(code, 2);
    assert.match(stderr, /NMI_NMI_PORT has the value "abc"/);
  });

  it('has help for itself, for each verb and for each action, in two spellings', async () => {
    const { stdout } = await cli('--help');
    assert.equal((await cli('help')).stdout, stdout);
    assert.ok(stdout.split('\n').length < 30, 'short');
    for (const verb of ['run', 'redirect', 'conditions', 'demo', 'explain', 'version']) {
      assert.match(stdout, new RegExp(`^  ${verb} `, 'm'));
      const help = await cli(verb, '--help');
      assert.equal(help.code, 0);
      assert.match(help.stdout, /^Examples:\n  nmi /m);
      assert.deepEqual(await cli('help', verb), help);
    }
    const action = await cli('help', 'redirect', 'verify');
    assert.match(action.stdout, /^Read the redirect back and report drift/);
    assert.deepEqual(await cli('redirect', 'verify', '--help'), action);
    const unknown = await cli('help', 'explian');
    assert.deepEqual([unknown.code, unknown.stdout], [2, '']);
    assert.match(unknown.stderr, /did you mean "explain"\?/);
  });

  it('suggests a similar name', async () => {
    for (const [args, hint] of [
      [['redirct'], 'did you mean "redirect"?'],
      [['explain', '--resouce=x'], 'did you mean --resource?'],
      [['--nod=n'], '--node'],
    ] as const) {
      const { code, stderr } = await cli(...args);
      assert.equal(code, 2);
      assert.ok(stderr.includes(hint), stderr);
    }
  });

  it('shows for the redirect every flag that changes what is installed', async () => {
    const { stdout } = await cli('redirect', '--help');
    for (const option of options.filter(({ isOfRedirect }) => isOfRedirect === true)) {
      const shown = hasFlag(option) ? `--${option.name}` : environmentName(option);
      assert.match(stdout, new RegExp(`^ +${shown} `, 'm'));
    }
    for (const option of options.filter((row) => row.isOfRedirect !== true && !hasFlag(row))) {
      assert.ok(!stdout.includes(environmentName(option)));
    }
  });

  it('refuses input on which yargs fails as wrong usage', async () => {
    assert.equal((await cli('--constructor=y')).code, 2);
    const { code, stderr } = await cli('--forceNamespaced', 'false');
    assert.equal(code, 2);
    assert.match(stderr, /write --flag=value/);
  });

  it('refuses stray args', async () => {
    assert.equal((await cli('rnu')).code, 2);
    assert.match((await cli('lab')).stderr, /^nmi: unknown verb or word "lab"; see nmi --help\n$/);
    assert.equal((await cli('redirect')).code, 2);
    assert.match((await cli('redirect', 'explode')).stderr, /unknown action "explode"; known are /);
    assert.equal((await cli('redirect', 'verify', 'now')).code, 2);
    assert.equal((await cli('explain', 'default/app')).code, 2);
    assert.equal((await cli('demo', '--nope')).code, 2);
  });

  it('refuses a flag that takes a value and has none', async () => {
    for (const args of [
      ['--node'],
      ['--node', '--v=2'],
      ['-v', '--node=n'],
      ['--node', '--'],
      ['redirect', 'verify', '--kubeconfig'],
      ['demo', '--clientid', '--once'],
    ]) {
      const { code, stderr } = await cli(...args);
      assert.equal(code, 2, args.join(' '));
      assert.match(stderr, /^nmi: --?\w+ has no value; write --?\w+=VALUE; see nmi [a-z -]+\n$/);
    }
  });

  it('refuses an empty value where one is required, and names the flag', async () => {
    for (const [args, flag] of [
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
      const { code, stderr } = await cli(...args);
      assert.equal(code, 2, args.join(' '));
      assert.ok(stderr.includes(`${flag} has the value ""; allowed: `), stderr);
    }
  });

  it('lists in its help the variables that have no flag', async () => {
    const { stdout } = await cli('run', '--help');
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
