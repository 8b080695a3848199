import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { type AddressInfo, createServer as createNetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';
import { openFakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { runCli } from '../../../src/cli/cli.ts';
import { conditions } from '../../../src/cli/conditions.ts';
import { parseArgs } from '../../../src/cli/flags.ts';
import { renderHelp, renderOverview } from '../../../src/cli/help.ts';
import { getJson, httpGet, type MetadataReply } from '../../../src/cli/http-get.ts';
import { exitCodes, type Io, untilStopped } from '../../../src/cli/io.ts';
import { ready } from '../../../src/cli/ready.ts';
import { applyChoice, redirect, reportRemoval } from '../../../src/cli/redirect.ts';
import { run } from '../../../src/cli/run.ts';
import { type Verb, verbs } from '../../../src/cli/verbs.ts';
import type { Readiness } from '../../../src/nmi/base/readiness.ts';
import { environmentName, hasFlag, options } from '../../../src/nmi/config/options.ts';
import { openExplainServer } from '../../../src/nmi/explain/socket.ts';
import { noRedirect } from '../../../src/redirect/none.ts';
import type { Redirect, RedirectStatus } from '../../../src/redirect/redirect.ts';
import { startNmi } from '../process/agent-child.ts';
import { beside, linesOf, record } from './recorded-io.ts';

const cli = (...args: string[]) => cliIn({}, ...args);

/** No process listens there: a demo that starts must not reach the metadata service of this machine. */
const cliIn = (environment: Readonly<Record<string, string>>, ...args: string[]) =>
  record((io) => runCli(args, io), {
    AZURE_POD_IDENTITY_AUTHORITY_HOST: 'http://127.0.0.1:1',
    ...environment,
  });

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
    const flags = ['--operation-mode', '--nmi-port', '--http-probe-port', '--node'];
    for (const flag of [...flags, 'unknown flag --bogus;']) {
      assert.equal(lines.filter((line) => line.startsWith(`nmi: ${flag} `)).length, 1, flag);
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
    for (const [words, said] of [
      ['rnu', /^nmi: unknown verb or word "rnu"/],
      ['lab', /^nmi: unknown verb or word "lab"; see nmi --help\n$/],
      ['redirect', /^nmi/],
      ['redirect explode', /unknown action "explode"; known are /],
      ['redirect verify now', /^nmi/],
      ['explain default/app', /^nmi/],
      ['demo --nope', /^nmi/],
    ] as const) {
      const { code, stderr } = await cli(...words.split(' '));
      assert.equal(code, 2, words);
      assert.match(stderr, said);
    }
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

function verbOf(name: string): Verb {
  const verb = verbs[name];
  assert.ok(verb !== undefined);
  return verb;
}

describe('help', () => {
  it('of the program has the verbs, examples and further reading', () => {
    const text = renderOverview();
    for (const name of Object.keys(verbs)) assert.ok(text.includes(`\n  ${name} `), name);
    const [, rows = ''] = /^Verbs:\n((?: .*\n)+)/m.exec(text) ?? [];
    for (const row of rows.trimEnd().split('\n')) assert.match(row, /^.{13} [A-Z]/);
    assert.match(text, /docs\/flags\.md/);
    for (const name of ['run', 'explain', 'redirect']) {
      const [first = ''] = verbOf(name).examples;
      assert.ok(text.includes(`\n  ${first}\n`), name);
    }
  });

  it('of the agent has flags by group with their variables, and variables without a flag', async () => {
    const text = await renderHelp('run', verbOf('run'), undefined);
    for (const part of ['Kubernetes:', '--node', '[NMI_NODE]', 'Also --forceNamespaced']) {
      assert.ok(text.includes(part), part);
    }
    assert.match(text, /^ {2}NMI_CGROUP_ROOT /m);
    assert.ok(!text.includes('\n  NMI_NODE '), 'it has a flag');
    assert.match(text, /\[default: 169\.254\.25\.79\]/);
    assert.ok(!text.includes('Takes text'));
    const [, flags = ''] = text.split('Kubernetes:');
    const [rows = ''] = flags.split('Environment variables');
    const longest = Math.max(...rows.split('\n').map((line) => line.length));
    assert.ok(longest > 90 && longest <= 100, `without a terminal, ${longest}`);
    assert.ok(!/--version|--help/.test(text));
    assert.match(text, /^ {2}NMI_CGROUP_ROOT {6}\S/m);
  });

  it('of a verb with actions lists them, and of an action has its own examples', async () => {
    const verb = verbOf('redirect');
    const whole = await renderHelp('redirect', verb, undefined);
    assert.match(whole, /^Usage: nmi redirect ACTION \[FLAGS\]$/m);
    assert.match(whole, /^ {2}remove {6}Remove the redirect\. This opens the node/m);
    const verify = await renderHelp('redirect', verb, 'verify');
    assert.match(verify, /^Read the redirect back/);
    assert.match(verify, /^Usage: nmi redirect verify \[FLAGS\]$/m);
    assert.match(verify, /^Examples:\n {2}nmi redirect verify\n\n/m);
    assert.ok(!verify.includes('Actions:'));
  });

  it('of the redirect has the variables that its process reads, and no others', async () => {
    const variablesOf = async (name: string) => {
      const text = await renderHelp(name, verbOf(name), undefined);
      return [...text.matchAll(/^ {2}(NMI_\w+)/gm)].map(([, variable]) => variable);
    };
    const [agents, own] = [await variablesOf('run'), await variablesOf('redirect')];
    assert.ok(own.includes('NMI_SLOT_FOLDER') && !own.includes('NMI_EXPLAIN_SOCKET'), own.join());
    assert.ok(agents.includes('NMI_EXPLAIN_SOCKET') && own.every((each) => agents.includes(each)));
    assert.deepEqual(await variablesOf('demo'), []);
  });

  it('fits the terminal, and no line is longer than 120 characters', async () => {
    for (const [columns, longest] of [
      [70, 70],
      [500, 120],
    ] as const) {
      const text = await renderHelp('explain', verbOf('explain'), undefined, columns);
      const [, flags = ''] = text.split('Options:');
      const lengths = flags.split('\n').map((line) => line.length);
      assert.ok(Math.max(...lengths) <= longest, `${columns}: ${Math.max(...lengths)}`);
    }
  });
});

const isSwitch = { type: 'boolean' } as const;
const known = {
  ...{ node: {}, v: {}, output: { alias: 'o' } },
  ...{ forceNamespaced: isSwitch, once: isSwitch },
};
const parse = (...words: string[]) => parseArgs(words, known);

describe('the args of a command line', () => {
  it('do not let a bare boolean swallow the next word', () => {
    assert.deepEqual(parse('--forceNamespaced', '--node', 'true', '-once', 'word'), {
      flags: { forceNamespaced: 'true', node: 'true', once: 'true' },
      rest: ['word'],
    });
    assert.deepEqual(parse('--once=0', '--', '--node'), {
      flags: { once: '0' },
      rest: ['--node'],
    });
  });

  it('have the value of -v attached, as in glog', () => {
    for (const words of [['-v2'], ['-v=2'], ['-v', '2'], ['--v=2']]) {
      assert.deepEqual(parse(...words), { flags: { v: '2' }, rest: [] });
    }
  });

  it('are refused if a flag has no value at the end, or before another flag', () => {
    const refusal = '--node has no value; write --node=VALUE';
    for (const words of [['--node'], ['--node', '--v=2'], ['--node', '--'], ['-node']]) {
      assert.equal(parse(...words), refusal, words.join(' '));
    }
    assert.equal(parse('-o'), '-o has no value; write -o=VALUE');
    for (const value of ['-1', '-', '']) {
      assert.deepEqual(parse('--node', value), { flags: { node: value }, rest: [] });
    }
    assert.deepEqual(parse('--node='), { flags: { node: '' }, rest: [] });
  });

  it('are split into flags with their last text, and the rest', () => {
    assert.deepEqual(parse('redirect', '-o', 'json', '--output=text', '--odd', '3', '7'), {
      flags: { output: 'text', odd: '3' },
      rest: ['redirect', '7'],
    });
    assert.deepEqual(parse('explain', '007'), { flags: {}, rest: ['explain', '007'] });
    assert.deepEqual(parse('--odd.dot', '--no-node'), {
      flags: { 'odd.dot': 'true', 'no-node': 'true' },
      rest: [],
    });
  });

  it('keep the quotes of a value, which no shell has removed', () => {
    for (const [flag, name] of [
      ['--node', 'node'],
      ['-node', 'node'],
      ['-o', 'output'],
      ['--once', 'once'],
    ] as const) {
      for (const value of ['"true"', "'true'", '"']) {
        assert.deepEqual(parse(`${flag}=${value}`), { flags: { [name]: value }, rest: [] });
      }
    }
    assert.deepEqual(parse('--node', '"a"', "'b'"), { flags: { node: '"a"' }, rest: ["'b'"] });
  });

  it('may be names of JavaScript itself', () => {
    assert.deepEqual(parse('--constructor=y', '--toString'), {
      flags: { constructor: 'y', toString: 'true' },
      rest: [],
    });
  });
});

describe('the exit codes of the agent', () => {
  it('are 0, 1, and those of sysexits', () => {
    assert.deepEqual(Object.values(exitCodes), [0, 1, 2, 69, 70, 78]);
  });
});

describe('a signal to stop', () => {
  it('is waited for, and not lost if it arrives earlier', async () => {
    const stop = new AbortController();
    let isStopped = false;
    const stopped = untilStopped({ stop: stop.signal } as Io).then(() => (isStopped = true));
    await new Promise(setImmediate);
    assert.ok(!isStopped);
    stop.abort();
    await stopped;
    await untilStopped({ stop: stop.signal } as Io);
  });
});

describe('the table of verbs', () => {
  it('has a sentence and an example for each', () => {
    for (const [name, { summary, examples, actions = {} }] of Object.entries(verbs)) {
      for (const text of [summary, ...Object.values(actions)]) assert.match(text, /^[A-Z].*\.$/);
      assert.ok(examples.length > 0);
      for (const example of examples) assert.match(example, new RegExp(`^nmi (?:${name}\\b|--)`));
    }
  });

  it('gives each verb its words and flags', async () => {
    for (const [name, words, expected] of [
      ['run', [], /--output/],
      ['redirect', ['verify'], /--output/],
      ['conditions', [], /--output/],
      ['demo', [], /does not look like a pod/],
      ['explain', [], /--output has the value "nope"/],
    ] as const) {
      const { code, stderr } = await record(
        (io) => verbs[name]?.start({ flags: { output: 'nope' }, rest: words }, io) ?? 0,
      );
      assert.equal(code, 2, name);
      assert.match(stderr, expected);
    }
  });

  it('lists the flags without a value, including aliases and old spellings', () => {
    const isBoolean = (verb: string, flag: string) => verbs[verb]?.flags[flag]?.type === 'boolean';
    assert.deepEqual(
      ['forceNamespaced', 'force-namespaced', 'logtostderr', 'node', 'v', 'log_dir'].map((flag) =>
        isBoolean('run', flag),
      ),
      [true, true, true, false, false, false],
    );
    assert.deepEqual(
      ['once', 'outside-pod', 'period'].map((flag) => isBoolean('demo', flag)),
      [true, true, false],
    );
  });

  it('describes the value of a flag unless its type shows that', () => {
    const flagOf = (flag: string) => verbs['run']?.flags[flag];
    const takes = (flag: string) => / Takes /.test(String(flagOf(flag)?.describe));
    const shown = ['strict-identity', 'redirect', 'kubeconfig', 'nmi-port', 'node'];
    assert.deepEqual(shown.map(takes), [false, false, false, true, true]);
    assert.ok(String(flagOf('redirect')?.choices).startsWith('auto,'));
    assert.equal(flagOf('node')?.choices, undefined);
  });

  it('shows the flags that a process has', () => {
    const isHidden = (verb: string, flag: string) => verbs[verb]?.flags[flag]?.hidden;
    assert.deepEqual(
      [isHidden('conditions', 'identity-owners'), isHidden('conditions', 'nmi-port')],
      [false, true],
    );
  });

  it('hides the agent’s own flags from the help of the redirect, and old flags everywhere', () => {
    const isHidden = (verb: string, flag: string) => verbs[verb]?.flags[flag]?.hidden === true;
    assert.deepEqual(
      [isHidden('redirect', 'strict-identity'), isHidden('redirect', 'nmi-port')],
      [true, false],
    );
    assert.ok(isHidden('run', 'logtostderr') && !isHidden('run', 'strict-identity'));
  });
});

const ofNode = { node: 'n', redirect: 'none', 'http-probe-port': '0', 'prometheus-port': '0' };

async function start(flags: Readonly<Record<string, string>>, stop?: AbortSignal) {
  const off = { NMI_EXPLAIN_SOCKET: 'off' };
  const { stdout, ...rest } = await record((io) => run({ ...ofNode, ...flags }, io), off, stop);
  return { ...rest, lines: linesOf(stdout) };
}

/** An API server, and flags of an agent that uses it. */
async function openCluster() {
  await using opening = new AsyncDisposableStack();
  const kube = opening.use(await openFakeKube());
  const folder = await mkdtemp(join(tmpdir(), 'nmi-run-'));
  opening.defer(() => rm(folder, { recursive: true }));
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(kubeconfig, kube.kubeconfig());
  const [port, probePort] = (await twoFreePorts()).map(String) as [string, string];
  const flags = {
    kubeconfig,
    'kubelet-config': join(folder, 'nothing'),
    'nmi-listen-address': '127.0.0.1',
    'nmi-port': port,
    'http-probe-port': probePort,
    'prometheus-port': probePort,
  };
  const opened = opening.move();
  return { flags, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

describe('nmi run', () => {
  it('ends with 2 on wrong flags, each on a separate line', async () => {
    const { code, stderr, lines } = await start({ nope: '1', 'nmi-port': 'x' });
    assert.equal(code, 2);
    assert.equal(stderr.trim().split('\n').length, 2);
    assert.match(stderr, /^nmi: unknown flag --nope/m);
    assert.deepEqual(lines, []);
  });

  it('ends with 78 on a kubenet node, unless that is allowed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-run-'));
    try {
      const path = join(folder, 'kubelet');
      await writeFile(path, '--network-plugin=kubenet');
      const flags = { 'kubelet-config': path, kubeconfig: join(folder, 'nothing') };
      const refused = await start(flags);
      assert.equal(refused.code, 78);
      assert.match(
        refused.stderr,
        /^nmi: AAD Pod Identity is not supported for Kubenet: .*CVE-2021-1677/,
      );
      const allowed = await start({ ...flags, 'allow-network-plugin-kubenet': 'true' });
      assert.match(allowed.stderr, /^nmi: cannot start: no usable Kubernetes/, 'it got further');
      assert.ok(allowed.lines.length > 0);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('runs until it is stopped, and ends with 0', async () => {
    await using cluster = await openCluster();
    const stop = new AbortController();
    const ended = start(cluster.flags, stop.signal);
    const readyz = `http://127.0.0.1:${cluster.flags['http-probe-port']}/readyz`;
    await (await eventually(() => fetch(readyz))).text();
    stop.abort();
    const { code, lines } = await ended;
    assert.equal(code, 0);
    const messages = lines.map(({ msg }) => msg);
    assert.equal(messages.at(-1), 'stopped');
    assert.ok(messages.includes('shutting down, redirect stays installed'));
  });

  it('rejects with an unknown error of the start, which the process reports as a bug', async () => {
    await using cluster = await openCluster();
    const fault = new TypeError('a fault');
    const io = {
      environment: { NMI_EXPLAIN_SOCKET: 'off' },
      stdout: (text: string) => {
        if (text.includes('redirect chosen')) throw fault;
      },
      stderr: () => undefined,
      stop: new AbortController().signal,
    };
    await assert.rejects(run({ node: 'n', redirect: 'none', ...cluster.flags }, io), fault);
  });

  it('logs why it cannot start, and ends with 78 for a configuration error', async () => {
    const { code, lines, stderr } = await start({
      kubeconfig: '/nothing/here',
      'kubelet-config': '/nothing/here',
      enableProfile: 'true',
    });
    assert.equal(code, 78);
    assert.deepEqual(
      lines.map(({ msg }) => msg).filter((msg) => msg !== 'redirect chosen'),
      ['starting nmi process', 'setting ignored', 'agent cannot start'],
    );
    assert.equal(lines.at(-1)?.['code'], 'CONFIG');
    assert.match(stderr, /^nmi: cannot start: no usable Kubernetes configuration.* \(CONFIG\)\n$/);
  });
});

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-ready-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const runReady = (NMI_EXPLAIN_SOCKET: string) => record(ready, { NMI_EXPLAIN_SOCKET });

describe('nmi ready', () => {
  it('reports what the agent in the same container lacks, until nothing is missing', async () => {
    const path = join(folder, 'agent.sock');
    let state: Readiness = { ready: false, missing: { redirect: 'absent', watches: 'pods' } };
    const ignore = () => undefined;
    await using _server = await openExplainServer({
      path,
      explain: () => assert.fail('not asked'),
      ready: () => state,
      log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
    });
    const missing = 'nmi ready: redirect: absent; watches: pods\n';
    assert.deepEqual(await runReady(path), { code: 1, stdout: '', stderr: missing });
    state = { ready: true, missing: {} };
    assert.deepEqual(await runReady(path), { code: 0, stdout: 'ready\n', stderr: '' });
  });

  it('fails if no agent runs, or none can be reached', async () => {
    const nobody = await runReady(join(folder, 'none.sock'));
    assert.equal(nobody.code, 69);
    assert.match(nobody.stderr, /no agent answers at/);
    const off = await runReady('off');
    assert.deepEqual([off.code, off.stdout], [2, '']);
    assert.match(off.stderr, /NMI_EXPLAIN_SOCKET is off/);
  });
});

const runRedirect = (
  rest: readonly string[],
  flags: Readonly<Record<string, string>> = {},
  stop?: AbortSignal,
) => record((io) => redirect({ rest, flags: { redirect: 'none', ...flags } }, io), {}, stop);

describe('nmi redirect', () => {
  it('ends with 2 on wrong usage, and names what is allowed', async () => {
    const flags = await runRedirect(['verify'], { 'nmi-port': 'x', nope: '1' });
    assert.equal(flags.code, 2);
    assert.equal(flags.stderr.trim().split('\n').length, 2);
  });

  it('reports what is installed, with a mode that is off', async () => {
    for (const action of ['install', 'verify']) {
      const { code, stdout, stderr } = await runRedirect([action], { enableProfile: 'true' });
      assert.equal(code, 0);
      assert.match(stdout, /^none: off \(.*\)\n {2}why this one: chosen by --redirect\n/);
      assert.match(stderr, /^nmi redirect: warning: --enableProfile has no effect/);
    }
  });

  it('guards the boot of the host, takes the guard back, and names a folder that it cannot write to', async (t) => {
    const guardFolder = mkdtempSync(join(tmpdir(), 'nmi-guard-boot-'));
    t.after(() => rmSync(guardFolder, { recursive: true }));
    const flags = { 'boot-guard-folder': guardFolder };
    assert.equal((await runRedirect(['guard-boot'], flags)).code, 0);
    assert.ok(existsSync(join(guardFolder, 'nmi-guard.service')));
    assert.equal((await runRedirect(['unguard-boot'], flags)).code, 0);
    assert.ok(!existsSync(join(guardFolder, 'nmi-guard.service')));
    const refused = await runRedirect(['guard-boot'], {
      'boot-guard-folder': join(guardFolder, 'missing'),
    });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /write nmi-guard\.service in .*missing: ENOENT/);
    const unnamed = await runRedirect(['guard-boot']);
    assert.equal(unnamed.code, 2);
    assert.match(unnamed.stderr, /--boot-guard-folder is missing/);
  });

  it('prepares the kernel for an installation, and not to verify one', async () => {
    const calls: string[] = [];
    const status: RedirectStatus = { state: 'active', detail: 'x', problems: [] };
    const mode: Redirect = {
      ...noRedirect(),
      prepare: () => Promise.resolve(void calls.push('prepare')),
      install: () => Promise.resolve((calls.push('install'), status)),
      verify: () => Promise.resolve((calls.push('verify'), status)),
    };
    const choice = { redirect: mode, why: 'chosen by --redirect' };
    await record((io) => applyChoice(true, choice, io));
    assert.deepEqual(calls, ['prepare', 'install']);
    await record((io) => applyChoice(false, choice, io));
    assert.deepEqual(calls.slice(2), ['verify']);
  });

  it('does not remove the redirect that another container maintains', async () => {
    const { code, stdout, stderr } = await runRedirect(['remove'], { redirect: 'pinned' });
    assert.deepEqual([code, stdout], [69, '']);
    assert.match(stderr, /NOT_PERMITTED: pinned: `nmi redirect run` maintains it/);
  });

  it('fails to remove what an agent has pinned again, and names it', async () => {
    const report = (left: readonly string[]) => record((io) => reportRemoval(left, '/pins', io));
    const again = await report(['connect4', 'callers']);
    assert.deepEqual([again.code, again.stdout], [1, '']);
    assert.match(again.stderr, /still pinned: connect4, callers in \/pins; an agent that runs/);
    const removed = await report([]);
    assert.deepEqual([removed.code, removed.stderr], [0, '']);
    assert.match(removed.stdout, /^removed: /);
  });

  it('ends with the reason when it cannot maintain the redirect', async (t) => {
    const taken = createNetServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    t.after(() => taken.close());
    const { port } = taken.address() as AddressInfo;
    const flags = { 'http-probe-port': String(port) };
    const { code, stdout, stderr } = await runRedirect(['run'], flags);
    assert.equal(code, 69);
    assert.match(stdout, /redirect cannot be maintained/);
    assert.match(stderr, new RegExp(`${port}`));
  });

  it('maintains the redirect until it is stopped, and leaves it installed', async () => {
    const stop = new AbortController();
    let isOver = false;
    const ended = runRedirect(['run'], {}, stop.signal).finally(() => (isOver = true));
    await delay(100);
    assert.equal(isOver, false);
    stop.abort();
    const { code, stdout } = await ended;
    assert.equal(code, 0);
    assert.match(stdout, /shutting down, redirect stays installed/);
  });
});

async function startConditions(flags: Readonly<Record<string, string>>, stop?: AbortSignal) {
  const all = { 'http-probe-port': '0', 'prometheus-port': '0', ...flags };
  const { stdout, ...rest } = await record((io) => conditions(all, io), {}, stop);
  return { ...rest, lines: linesOf(stdout) };
}

describe('nmi conditions', () => {
  it('ends with 2 on wrong flags, each on a separate line', async () => {
    const { code, stderr, lines } = await startConditions({
      'max-watch-events-per-sec': '0',
      'agent-daemonset': 'a/b',
      'agent-namespace': '../x',
      'status-conditions': 'true',
    });
    assert.equal(code, 2);
    assert.equal(stderr.trim().split('\n').length, 4);
    assert.match(stderr, /^nmi conditions: unknown flag --status-conditions/m);
    assert.deepEqual(lines, []);
  });

  it('logs why it cannot start, and ends with 78 for a configuration error', async () => {
    const { code, lines, stderr } = await startConditions({ kubeconfig: '/nothing/here' });
    assert.equal(code, 78);
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      ['starting nmi conditions process', 'conditions cannot be written'],
    );
    assert.match(stderr, /^nmi: cannot start: no usable Kubernetes configuration.* \(CONFIG\)\n$/);
  });

  it('runs until it is stopped', async () => {
    await using kube = await openFakeKube();
    const configFolder = await mkdtemp(join(tmpdir(), 'nmi-conditions-'));
    try {
      const kubeconfig = join(configFolder, 'kubeconfig');
      await writeFile(kubeconfig, kube.kubeconfig());
      const stop = new AbortController();
      let isOver = false;
      const ended = startConditions({ kubeconfig, enableProfile: 'true' }, stop.signal).finally(
        () => {
          isOver = true;
        },
      );
      await eventually(() => assert.ok(kube.watches() > 0));
      assert.equal(isOver, false);
      stop.abort();
      const { code, lines } = await ended;
      assert.equal(code, 0);
      const messages = lines.map(({ msg }) => msg);
      assert.deepEqual(messages.slice(0, 2), [
        'starting nmi conditions process',
        'setting ignored',
      ]);
      assert.equal(messages.at(-1), 'shutting down');
    } finally {
      await rm(configFolder, { recursive: true });
    }
  });
});

const get = (answer: RequestListener, bounds: { timeoutMs?: number; maxBodyBytes?: number } = {}) =>
  beside(answer, (port) =>
    httpGet(
      { host: '127.0.0.1', port, path: '/x' },
      { timeoutMs: 5_000, maxBodyBytes: 10, ...bounds },
    ),
  );

describe('one GET with a short answer', () => {
  it('has status, headers and body', async () => {
    const reply = await get((request, response) => {
      response.writeHead(418, { 'X-Path': request.url, Connection: 'close' });
      response.end('0123456789');
    });
    assert.deepEqual(
      [reply.status, reply.headers['x-path'], reply.body],
      [418, '/x', '0123456789'],
    );
  });

  it('fails for a body that is too long, cut or late', async () => {
    const long = get((_request, response) => response.end('01234567890'));
    await assert.rejects(long, /the answer is too long/);
    const cut = get((_request, response) => {
      response.writeHead(200, { 'Content-Length': '9' });
      response.write('0123');
      setImmediate(() => response.destroy());
    });
    await assert.rejects(cut, { code: 'ECONNRESET' });
    await assert.rejects(
      get(() => undefined, { timeoutMs: 50 }),
      { name: 'AbortError' },
    );
  });
});

const ask = (answer: RequestListener): Promise<MetadataReply> =>
  beside(answer, (port) => getJson(`http://127.0.0.1:${port}/metadata/x?a=b`));

describe('a GET on the metadata service', () => {
  it('goes to the path with the header that the service requires', async () => {
    const reply = await ask((request, response) => {
      const { metadata } = request.headers;
      response.setHeader('Retry-After', '7');
      response.statusCode = 503;
      response.end(JSON.stringify({ url: request.url, metadata }));
    });
    assert.deepEqual(reply, {
      kind: 'answered',
      status: 503,
      body: { url: '/metadata/x?a=b', metadata: 'true' },
      retryAfterS: 7,
    });
  });

  it('has an empty body if the answer is not a JSON object', async () => {
    const reply = await ask((_request, response) => response.end('<html>'));
    assert.ok(reply.kind === 'answered');
    assert.deepEqual([reply.body, reply.retryAfterS], [{}, undefined]);
  });

  it('fails with a code, and never rejects', async () => {
    assert.deepEqual(await getJson('http://127.0.0.1:1/'), {
      kind: 'failed',
      code: 'ECONNREFUSED',
    });
    assert.deepEqual(await getJson('no URL'), { kind: 'failed', code: 'ERR_INVALID_URL' });
  });
});

describe('the process', () => {
  it('ends with 2 on an unknown verb, which it reports on its standard error', async () => {
    const child = startNmi(['serve', '--node=n']);
    assert.equal(await child.exited, 2);
    assert.equal(child.stdout(), '');
    assert.match(child.stderr(), /"serve"/);
  });

  it('ends with 0 after it has written all its output', async () => {
    const child = startNmi(['--help']);
    assert.equal(await child.exited, 0);
    assert.match(child.stdout(), /^Microsoft Entra tokens[^]*\n$/);
    assert.equal(child.stderr(), '');
  });
});
