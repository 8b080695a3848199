import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type VerbContext, refuseUnknownNamespace } from '../../../src/kubectl/verbs/context.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import {
  type Recorded,
  boundTestBed,
  createPod,
  failed,
  play,
} from '../../kubectl/support/recorded-kubectl.ts';

describe('the command line of kubectl nmi', () => {
  it('requires a verb, and suggests one', async () => {
    const none = await play([]);
    assert.equal(none.code, 2);
    assert.match(none.stderr, /No verb is given/);
    const slip = await play('explian');
    assert.equal(slip.code, 2);
    assert.match(slip.stderr, /unknown verb explian; did you mean explain\?/);
  });

  it('refuses its own flags without a value', async () => {
    for (const flag of ['--namespace', '--agent-namespace', '--output']) {
      const { code, stderr } = await play(['explain', 'pod', 'web', flag], boundTestBed());
      assert.equal(code, 2, flag);
      assert.match(stderr, /^error: --\S+ has no value\n/);
    }
  });

  it('takes a flag of kubectl that is negated or has a dot in it for what it is', async () => {
    for (const flag of ['--no-color', '--as.user']) {
      const { code, stderr } = await play(['explain', 'pod', 'web', flag], boundTestBed());
      assert.equal(code, 2);
      assert.match(stderr, new RegExp(flag.replace('.', '[.]')));
    }
  });

  it('has a help that names exit codes, and a completion', async () => {
    const { stdout } = await play('--help');
    assert.match(stdout, /kubectl nmi explain <what> \[name\]/);
    assert.match(stdout, /Exit codes: 0 fine/);
    assert.doesNotMatch(stdout, /completion/, 'that script is for one-word programs');
    const { stdout: words } = await play('__complete exp');
    assert.match(words, /^explain$/m);
    assert.match(words, /^:4$/m);
  });

  it('reports its version by a verb, and has no flag of yargs for it', async () => {
    assert.doesNotMatch((await play('--help')).stdout, /--version/);
    const flag = await play('--version');
    assert.deepEqual([flag.code, flag.stdout], [2, '']);
    assert.equal((await play('version', boundTestBed())).code, 0);
  });

  it('reads manifests from standard input for a dash, as kubectl does', async () => {
    const identity = 'kind: AzureIdentity\nmetadata: { name: piped }\n';
    const input = { files: { '-': identity, 'a.yaml': 'kind: Pod\nmetadata: { name: filed }\n' } };
    const both = await play('analyze -f a.yaml -f -', input);
    assert.match(both.stdout, / of 1 pods/);
    for (const words of [['-f', '-'], ['--filename', '-'], ['-f=-']]) {
      const { code, stdout, stderr } = await play(['analyze', ...words], input);
      assert.equal(code, 1, stderr);
      assert.match(stdout, /AzureIdentity default\/piped: identity_unbound/);
    }
    const dash = await play('test --pod web -', boundTestBed());
    assert.match(dash.stderr, /the word - has no meaning here/);
  });

  it('is in English whatever the language of the user', async (t) => {
    const own = { ...process.env };
    t.after(() => (process.env = own));
    process.env = { ...own, LC_ALL: 'de_DE.UTF-8' };
    assert.match((await play('--help')).stdout, /^Verbs:|^Options:/m);
    assert.match((await play('explain --help')).stdout, /^Options:/m);
  });

  it('blames nobody when the user interrupts it', async () => {
    const recorded: Recorded = { other: () => failed('signal: interrupt'), isInterrupted: true };
    const { code, stdout, stderr } = await play('doctor', recorded);
    assert.deepEqual([code, stdout, stderr], [1, '', 'error: interrupted\n']);
  });

  it('does not report a fault of its own as an error of the user', async () => {
    const fault = new TypeError('a fault');
    const recorded = { ...boundTestBed(), other: () => Promise.reject(fault) };
    await assert.rejects(play('test --pod web --image x', recorded), fault);
  });

  it('prints errors on one line, whatever a server sends', async () => {
    const { stderr } = await play(['explain', 'pod', 'x\u001b[2J\ny'], boundTestBed());
    assert.equal(stderr.includes('\u001b'), false);
    assert.equal(stderr.split('\n').length, 3);
  });
});

type Case = readonly [words: string, problem: string, nextStep: string];

function unknownFlag(verb: string, flag: string, value = ''): Case {
  const [name = ''] = /^[a-z -]+?(?= x$| --|$)/.exec(verb) ?? [];
  return [`${verb} ${flag}${value}`, `unknown flag ${flag}`, `See kubectl nmi ${name} --help`];
}

const cases: readonly Case[] = [
  [
    'explain pod web --namspace shop',
    'unknown flag --namspace; did you mean --namespace?',
    'See kubectl nmi explain --help',
  ],
  ['doctor --prE', 'unknown flag --prE; did you mean --pre?', 'See kubectl nmi doctor --help'],
  ['doctor --xyzzy=1', 'unknown flag --xyzzy', 'See kubectl nmi doctor --help'],
  ['doctor -x', 'unknown flag -x', 'See kubectl nmi doctor --help'],
  [
    'identity assign orders --selctor=a',
    'unknown flag --selctor; did you mean --selector?',
    'See kubectl nmi identity assign --help',
  ],
  ['doctor shop', 'the word shop has no meaning here', 'See kubectl nmi doctor --help'],
  ['explain', 'explain needs <what>', 'See kubectl nmi explain --help'],
  ['identity assign', 'identity assign needs <name>', 'See kubectl nmi identity assign --help'],
  [
    'doctor -o xml',
    '--output is "xml", and takes text, json or yaml',
    'See kubectl nmi doctor --help',
  ],
  [
    'analyze --threshold errors',
    '--threshold is "errors", and takes error, warning or info; did you mean error?',
    'See kubectl nmi analyze --help',
  ],
  ['test', 'test needs --pod', 'See kubectl nmi test --help'],
  ['test --timeout', '--timeout has no value', 'See kubectl nmi test --help'],
  ['doctor -n', '-n has no value', 'Give one, or leave it out.'],
  ['identity', 'No verb is given after identity.', 'See kubectl nmi identity --help'],
  ['explian', 'unknown verb explian; did you mean explain?', 'See kubectl nmi --help'],
  ['xyzzyplugh', 'unknown verb xyzzyplugh', 'See kubectl nmi --help'],
  ...[
    ...['identity add x', 'identity assign x', 'identity federate x', 'identity revoke x'],
    ...['migrate to-federation', 'migrate to-workload-identity', 'test --pod x'],
  ].flatMap((verb) => [unknownFlag(verb, '-A'), unknownFlag(verb, '--all-namespaces')]),
  ...['grants', 'sysdump', 'migrate export-addon'].map((verb) => unknownFlag(verb, '-o', ' json')),
  ['identity adp x', 'unknown verb adp; did you mean add?', 'See kubectl nmi identity --help'],
];

describe('an error of arguments', () => {
  for (const [words, problem, nextStep] of cases) {
    it(`is in our own words: ${words}`, async () => {
      const { code, stdout, stderr } = await play(words.split(' '), boundTestBed());
      assert.deepEqual([code, stdout], [2, '']);
      assert.equal(stderr, `error: ${problem}\n${nextStep}\n`);
    });
  }

  it('comes before anything is read', async () => {
    const { calls } = await play('identity delete orders --aply', boundTestBed());
    assert.deepEqual(calls, []);
  });
});

const namespaceOf = (name: string) => ({ kind: 'Namespace', metadata: { name } });

const completionBed: Recorded = {
  ...boundTestBed({
    namespaces: ['shop', 'stock', 'other'].map(namespaceOf),
    pods: [createPod('web-1'), createPod('web-2'), createPod('far', { namespace: 'other' })],
  }),
};

async function complete(...words: readonly string[]): Promise<readonly string[]> {
  const { code, stdout, stderr } = await play(['__complete', ...words], completionBed);
  assert.deepEqual([code, stderr], [0, '']);
  const lines = stdout.trimEnd().split('\n');
  assert.match(lines.at(-1) ?? '', /^:[04]$/);
  return lines.slice(0, -1);
}

describe('completion', () => {
  it('knows verbs, and verbs of verbs', async () => {
    assert.deepEqual(await complete('expl'), ['explain']);
    assert.ok((await complete('')).includes('doctor'));
    assert.deepEqual(await complete('identity', 'fe'), ['federate']);
    assert.deepEqual(await complete('identity', 'a'), ['add', 'assign']);
    assert.ok((await complete('help', 'ex')).includes('explain'));
  });

  it('knows flags of the verb, and those of every verb', async () => {
    assert.deepEqual(await complete('doctor', '--pr'), ['--pre']);
    assert.deepEqual(await complete('identity', 'assign', 'orders', '--sel'), ['--selector']);
    assert.deepEqual(await complete('explain', 'pod', 'web', '--name'), ['--namespace']);
    assert.deepEqual(await complete('explain', 'pod', '--res'), ['--resource']);
    const all = await complete('doctor', '--');
    for (const flag of ['--pre', '--context', '--output']) assert.ok(all.includes(flag), flag);
    assert.ok(!all.includes('--selector'));
    assert.deepEqual(await complete('identity', 'list', '--all'), ['--all-namespaces']);
    assert.deepEqual(await complete('test', '--pod', 'web', '--all'), [], 'of one namespace');
    assert.deepEqual(await complete('grants', '--out'), [], 'YAML alone');
  });

  it('knows the choices of flags and arguments', async () => {
    assert.deepEqual(await complete('doctor', '-o', 'y'), ['yaml']);
    assert.deepEqual(await complete('doctor', '--output', ''), ['text', 'json', 'yaml']);
    assert.deepEqual(await complete('analyze', '--threshold', 'e'), ['error']);
    assert.deepEqual(await complete('analyze', '--threshold=e'), ['error']);
    assert.deepEqual(await complete('explain', ''), ['pod', 'ip']);
    assert.deepEqual(await complete('reasons', 'binding_m'), ['binding_missing']);
  });

  it('knows namespaces and contexts', async () => {
    assert.deepEqual(await complete('explain', '-n', 'sh'), ['shop']);
    assert.deepEqual(await complete('doctor', '--namespace', 's'), ['shop', 'stock']);
    assert.deepEqual(await complete('doctor', '--namespace=st'), ['stock']);
    assert.deepEqual(await complete('doctor', '--context', 'p'), ['prod']);
  });

  it('knows the names of pods and of our objects, in the namespace that is typed', async () => {
    assert.deepEqual(await complete('explain', 'pod', ''), ['web-1', 'web-2']);
    assert.deepEqual(await complete('explain', '-n', 'other', 'pod', ''), ['far']);
    assert.deepEqual(await complete('explain', '--namespace=other', 'pod', 'f'), ['far']);
    assert.deepEqual(await complete('test', '--pod=web'), ['web-1', 'web-2']);
    assert.deepEqual(await complete('test', '-n', 'other', '--pod=f'), ['far']);
    assert.deepEqual(await complete('test', '--pod', 'web'), ['web-1', 'web-2']);
    assert.deepEqual(await complete('identity', 'assign', 'or'), ['orders']);
    assert.deepEqual(await complete('identity', 'add', ''), [], 'a new name');
    assert.deepEqual(await complete('identity', 'assign', 'orders', ''), [], 'one name');
  });

  it('leaves files to the shell', async () => {
    const { stdout } = await play('__complete analyze -f a', completionBed);
    assert.equal(stdout, ':0\n');
  });

  it('is silent and quick where the server does not answer', async () => {
    const calls: (readonly string[])[] = [];
    const { code, stdout, stderr } = await play(['__complete', 'doctor', '-n', ''], {
      forbidden: { namespaces: 'everywhere' },
      other: (_program, args) => {
        calls.push(args);
        return failed('error: x');
      },
    });
    assert.deepEqual([code, stdout, stderr], [0, ':4\n', '']);
  });
});

/** The process of `kubectl nmi`, with a program in place of kubectl. */

const main = join(repositoryRoot, 'src/kubectl/main.ts');

describe('the process of kubectl nmi', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-plugin-'));
    await writeFile(join(folder, 'kubectl'), `#!/bin/sh\necho '{"items":[]}'\n`, { mode: 0o755 });
  });
  after(() => rm(folder, { recursive: true }));

  function run(words: readonly string[], input = '') {
    const env = { PATH: process.env['PATH'], KUBECTL: join(folder, 'kubectl') };
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], {
      cwd: folder,
      encoding: 'utf8',
      env,
      input,
    });
    return { status, stdout, stderr };
  }

  it('takes its own arguments, and exits with the code of the verb', () => {
    const help = run(['--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /kubectl nmi explain/);
    const usage = run(['bogus']);
    assert.equal(usage.status, 2);
    assert.equal(usage.stdout, '');
    assert.match(usage.stderr, /^error: unknown verb/);
  });

  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`exits with ${expected} after ${signal}`, async () => {
      const [slow, begun] = [join(folder, `slow-${signal}`), join(folder, `begun-${signal}`)];
      await writeFile(slow, '#!/bin/sh\n: >"$BEGUN"\nexec sleep 60\n', { mode: 0o755 });
      const child = spawn(process.execPath, [main, 'doctor'], {
        env: { PATH: process.env['PATH'], KUBECTL: slow, BEGUN: begun },
      });
      const exited = once(child, 'exit');
      while (!existsSync(begun)) await delay(20);
      child.kill(signal);
      assert.deepEqual(await exited, [expected, null]);
    });
  }

  it('ends quietly when its reader has closed the pipe', async () => {
    await writeFile(
      join(folder, 'unbound.yaml'),
      'kind: AzureIdentity\nmetadata: { name: orders }\n',
    );
    // The shell prints the exit code that its pipe hides.
    const script = `(${process.execPath} ${main} analyze -f unbound.yaml --exit-code; echo $? >&2) | true`;
    const env = { PATH: process.env['PATH'], KUBECTL: join(folder, 'kubectl') };
    const { stderr } = spawnSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8', env });
    assert.equal(stderr, '74\n', 'no error on the terminal, and no success');
  });

  it('does not succeed if its output is lost', () => {
    const script = `${process.execPath} ${main} reasons > /dev/full; echo $?`;
    const { stdout, stderr } = spawnSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8' });
    assert.equal(stdout, '74\n');
    assert.match(stderr, /^error: the output cannot be written: ENOSPC: no space left on device/);
  });

  it('has colors on a terminal, and none elsewhere or with NO_COLOR', () => {
    const words = `${process.execPath} ${main} explian`;
    const onTerminal = (env: NodeJS.ProcessEnv) =>
      spawnSync('script', ['-qec', words, '/dev/null'], {
        cwd: folder,
        encoding: 'utf8',
        env: { PATH: process.env['PATH'], TERM: 'xterm-256color', ...env },
      }).stdout.replaceAll('\u001b', 'ESC');
    assert.match(onTerminal({}), /ESC\[31merror:ESC\[39m unknown verb/);
    assert.match(onTerminal({ NO_COLOR: '1' }), /^error: unknown verb/);
    assert.match(onTerminal({ TERM: 'dumb' }), /^error: unknown verb/);
    assert.match(run(['explian']).stderr, /^error: unknown verb/);
  });

  it('shows what a login plugin of kubectl asks, and passes the answer on', async () => {
    // As kubectl with an exec plugin: a prompt, the answer from the terminal, then the output.
    await writeFile(
      join(folder, 'asking'),
      `#!/bin/sh\necho 'To sign in, enter the code ABC' >&2\nsleep 2\necho 'Error from server (Forbidden): no' >&2\nexit 1\n`,
      { mode: 0o755 },
    );
    const env = { PATH: process.env['PATH'], KUBECTL: join(folder, 'asking') };
    const { status, stderr } = spawnSync(process.execPath, [main, 'doctor'], {
      encoding: 'utf8',
      env,
    });
    assert.equal(status, 1);
    const lines = stderr.split('\n');
    assert.equal(lines[0], 'To sign in, enter the code ABC');
    assert.equal(lines.filter((line) => line.startsWith('To sign in')).length, 1, 'and once');
    assert.doesNotMatch(stderr, /^Error from server/m, 'that is kubectl’s own');
    assert.match(stderr, /^error: cannot reach/m);
  });

  it('reads a manifest from its input, or from a file that exists', () => {
    const manifest = 'kind: AzureIdentity\nmetadata: { name: orders, namespace: shop }\n';
    const { status, stdout } = run(['analyze', '-f', '-'], manifest);
    assert.equal(status, 1);
    assert.match(stdout, /AzureIdentity shop\/orders/);
    const missing = run(['analyze', '-f', 'none.yaml']);
    assert.equal(missing.status, 2);
    assert.match(missing.stderr, /none\.yaml/);
  });
});

describe('the namespace of a verb', () => {
  it('is that of the kubectl context unless -n names one', async () => {
    const testBed = { ...boundTestBed(), currentNamespace: 'elsewhere' };
    assert.match(
      (await play('explain pod web', testBed)).stderr,
      /namespace elsewhere does not exist/,
    );
    assert.equal((await play('explain pod web -n shop', testBed)).code, 0);
  });

  it('is not reported as unknown when the server does not answer', async () => {
    const failure = { kind: 'unreachable', detail: 'no route to host' } as const;
    const kubectl = { get: () => Promise.resolve({ ok: false, failure }) };
    await assert.rejects(
      refuseUnknownNamespace({ kubectl } as unknown as VerbContext, 'shop'),
      /get namespace shop.*no route to host/s,
    );
  });

  it('that a user may not read is not reported as unknown', async () => {
    const testBed = { ...boundTestBed(), forbidden: { namespaces: 'everywhere' } as const };
    assert.match(
      (await play('explain pod x -n secret', testBed)).stderr,
      /namespace secret has no pod x/,
    );
  });
});

/** A flag whose value is lost would change another cluster, namespace or user than the one typed. */

const assign = ['identity', 'assign', 'orders', '--apply'];

async function refusalOf(words: readonly string[]): Promise<string> {
  const { code, stderr, stdout, calls } = await play(words, boundTestBed());
  assert.equal(code, 2, `${words.join(' ')}: ${stdout}${stderr}`);
  assert.deepEqual([stdout, calls], ['', []]);
  return stderr;
}

describe('the value of a flag', () => {
  it('is given once, whichever way the flag is written', async () => {
    const connection = ['context', 'cluster', 'user', 'kubeconfig', 'as', 'request-timeout'];
    for (const name of [...connection, 'namespace', 'agent-namespace']) {
      const said = await refusalOf([...assign, `--${name}=a`, `--${name}`, 'b']);
      assert.equal(said, `error: --${name} is given 2 times, and has one value\nGive it once.\n`);
    }
    assert.match(await refusalOf([...assign, '-n', 'a', '-n', 'b']), /^error: -n is given 2 times/);
    assert.match(await refusalOf([...assign, '-n', 'a', '--namespace=b']), /is given 2 times/);
    assert.match(
      await refusalOf(['doctor', '-o', 'json', '-o', 'yaml']),
      /^error: -o is given 2 times/,
    );
    assert.match(await refusalOf(['-n', 'a', ...assign, '-n', 'a']), /is given 2 times/);
    const selector = ['identity', 'assign', 'orders', '--selector', 'a', '--selector', 'b'];
    assert.match(await refusalOf(selector), /^error: --selector is given 2 times/);
    const account = ['identity', 'assign', 'orders', '--service-account=a', '--service-account=b'];
    assert.match(await refusalOf(account), /^error: --service-account is given 2 times/);
    const timeout = ['test', '--pod', 'web', '--timeout', '1', '--timeout', '2'];
    assert.match(await refusalOf(timeout), /--timeout/);
  });

  it('is not empty, and not left out', async () => {
    for (const name of ['context', 'as', 'namespace']) {
      const said = new RegExp(`^error: --${name} has no value\nGive one, or leave it out\\.\n$`);
      assert.match(await refusalOf([...assign, `--${name}=`]), said);
      assert.match(await refusalOf([...assign, `--${name}`]), said);
      assert.match(await refusalOf([...assign, `--${name}`, '']), said);
    }
    assert.match(await refusalOf([...assign, '-n']), /^error: -n has no value/);
    assert.match(await refusalOf([...assign, '-n', '--context', 'a']), /^error: -n has no value/);
    assert.match(await refusalOf([...assign, '-n=']), /^error: the word = has no meaning here/);
    for (const flag of ['-o', '--agent-namespace']) {
      assert.match(await refusalOf(['doctor', flag]), /^error: --?\S+ has no value/);
    }
    assert.match(await refusalOf(['doctor', '--agent-namespace=']), /has no value/);
    for (const flag of ['--service-account', '--service-account=', '--selector=']) {
      assert.match(await refusalOf(['identity', 'assign', 'orders', flag]), /has no value/);
    }
    assert.match(await refusalOf(['analyze', '-f']), /has no value/);
    assert.match(await refusalOf(['doctor', '--pre=']), /^error: --pre has no value/);
  });

  it('cannot be taken away by another spelling of the flag', async () => {
    for (const flag of ['--no-context', '--no-as', '--context.a=b', '--as.a=b']) {
      assert.match(await refusalOf([...assign, flag]), /unknown flag/);
    }
  });

  it('may be given again where a flag takes several', async () => {
    const federate = [
      'identity',
      'federate',
      'orders',
      '--service-account=a',
      '--service-account=b',
    ];
    assert.doesNotMatch((await play(federate, boundTestBed())).stderr, /times/);
    const analyze = ['analyze', '-f', 'a.yaml', '-f', 'b.yaml'];
    const pod = 'kind: Pod\nmetadata: { name: web }';
    const files = { 'a.yaml': pod, 'b.yaml': pod };
    assert.equal((await play(analyze, { files })).code, 0);
  });
});

describe('each verb and sub-verb', () => {
  it('has a help with examples of its own command line', async () => {
    const helpOf = async (words: readonly string[]) => (await play([...words, '--help'])).stdout;
    /** Words of the verbs below it; none for a verb that takes names itself. */
    const below = (help: string, above: readonly string[]) => {
      const [, commands = ''] = /^Commands:\n((?: .*\n)+)/m.exec(help) ?? [];
      const start = ['kubectl nmi', ...above].join(' ');
      const named = commands.matchAll(new RegExp(`^ {2}${start} ([a-z-]+)`, 'gm'));
      return [...named].map(([, name = '']) => [...above, name]);
    };
    const lacking: string[] = [];
    const visited: string[] = [];
    const visit = async (words: readonly string[]): Promise<void> => {
      const help = await helpOf(words);
      const verbs = below(help, words);
      for (const each of verbs) await visit(each);
      if (verbs.length > 0) return;
      visited.push(words.join(' '));
      const example = /^Examples:\n {2}kubectl nmi (.+)/m.exec(help)?.[1] ?? '';
      // yargs puts the name of the program into commands, and not into explanations of them.
      const isCommand = example.startsWith(words.join(' ')) && !help.includes('$0');
      if (!isCommand) lacking.push(words.join(' '));
    };
    await visit([]);
    assert.deepEqual(lacking, []);
    for (const words of ['explain', 'identity federate', 'migrate export-addon', 'sysdump']) {
      assert.ok(visited.includes(words), `${words} of ${visited.join(', ')}`);
    }
    assert.ok(visited.length >= 12, visited.join(', '));
  });
});
