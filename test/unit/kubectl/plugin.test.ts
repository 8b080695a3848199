import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
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
  openKubectl,
  play,
} from './recorded-kubectl.ts';

describe('the command line of kubectl nmi', () => {
  it('has a help that names exit codes, in English whatever the language of the user', async (t) => {
    const own = { ...process.env };
    t.after(() => (process.env = own));
    process.env = { ...own, LC_ALL: 'de_DE.UTF-8' };
    const { stdout } = await play('--help');
    assert.match(stdout, /kubectl nmi explain <what> \[name\]/);
    assert.match(stdout, /^Verbs:|^Options:/m);
    assert.match(stdout, /Exit codes: 0 fine/);
    // The script of yargs is for one-word programs; the version is a verb.
    assert.doesNotMatch(stdout, /completion|--version/);
  });

  it('reads manifests from standard input for a dash, as kubectl does', async () => {
    const identity = 'kind: AzureIdentity\nmetadata: { name: piped }\n';
    const input = { files: { '-': identity, 'a.yaml': 'kind: Pod\nmetadata: { name: filed }\n' } };
    for (const [words, said] of [
      ['-f a.yaml -f -', / of 1 pods/],
      ['-f -', /AzureIdentity default\/piped: identity_unbound/],
      ['--filename -', /AzureIdentity default\/piped: identity_unbound/],
      ['-f=-', /AzureIdentity default\/piped: identity_unbound/],
    ] as const) {
      const { code, stdout } = await play(`analyze --files-only ${words}`, input);
      assert.equal(code, 1);
      assert.match(stdout, said);
    }
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

/** A flag whose value is lost would change another cluster, namespace or user than the one typed. */
const assign = 'identity assign orders --apply';
const helpOf = (verb: string) => `See kubectl nmi ${verb} --help`;
const twice = (flag: string) => [`${flag} is given 2 times, and has one value`, 'Give it once.'];
const empty = (flag: string) => [`${flag} has no value`, 'Give one, or leave it out.'];
const unknown = (flag: string, verb: string, like = '') => [
  `unknown flag ${flag}${like === '' ? '' : `; did you mean ${like}?`}`,
  helpOf(verb),
];

const refused: readonly (readonly [words: string, ...said: readonly string[]])[] = [
  ['explain pod web --namspace shop', ...unknown('--namspace', 'explain', '--namespace')],
  ['doctor --prE', ...unknown('--prE', 'doctor', '--pre')],
  ['doctor --xyzzy=1', ...unknown('--xyzzy', 'doctor')],
  ['doctor -x', ...unknown('-x', 'doctor')],
  [`${assign} --selctor=a`, ...unknown('--selctor', 'identity assign', '--selector')],
  // Another spelling takes no value away from a flag.
  ...[
    '--no-context --context',
    '--no-as',
    '--context.a --context',
    '--as.a --as',
    '--no-color',
  ].map((each) => {
    const [flag = '', like] = each.split(' ');
    return [`${assign} ${flag}=b`, ...unknown(flag, 'identity assign', like)] as const;
  }),
  ...[
    ...['identity add x', 'identity assign x', 'identity federate x', 'identity revoke x'],
    ...['migrate to-federation', 'migrate to-workload-identity', 'test --pod x'],
  ].flatMap((words) => {
    const verb = words.replace(/(?: --pod)? x$/, '');
    return ['-A', '--all-namespaces'].map(
      (flag) => [`${words} ${flag}`, ...unknown(flag, verb)] as const,
    );
  }),
  ...['grants', 'sysdump', 'migrate export-addon'].map(
    (verb) => [`${verb} -o json`, ...unknown('-o', verb)] as const,
  ),
  ['doctor shop', 'the word shop has no meaning here', helpOf('doctor')],
  ['test --pod web -', 'the word - has no meaning here', helpOf('test')],
  ['identity assign', 'identity assign needs <name>', helpOf('identity assign')],
  ['test', 'test needs --pod', helpOf('test')],
  ['', 'No verb is given.', 'See kubectl nmi --help'],
  ['identity', 'No verb is given after identity.', helpOf('identity')],
  ['migrate', 'No verb is given after migrate.', helpOf('migrate')],
  ['identity adp x', 'unknown verb adp; did you mean add?', helpOf('identity')],
  ['identity rename orders --aply', ...unknown('--aply', 'identity')],
  ['explian', 'unknown verb explian; did you mean explain?', 'See kubectl nmi --help'],
  ['xyzzyplugh', 'unknown verb xyzzyplugh', 'See kubectl nmi --help'],
  ['--version', 'No verb is given.', 'See kubectl nmi --help'],
  ['doctor -o xml', '--output is "xml", and takes text, json or yaml', helpOf('doctor')],
  [
    'analyze --threshold errors',
    '--threshold is "errors", and takes error, warning or info; did you mean error?',
    helpOf('analyze'),
  ],
  ['test --timeout', '--timeout has no value', helpOf('test')],
  ['analyze -f', ...empty('-f')],
  ['doctor --pre=', ...empty('--pre')],
  ...['--service-account', '--service-account=', '--selector='].map(
    (flag) => [`identity assign orders ${flag}`, ...empty(flag.replace('=', ''))] as const,
  ),
  ...['context', 'as', 'namespace'].flatMap((name) => [
    [`doctor --${name}=`, ...empty(`--${name}`)] as const,
    [`doctor --${name}`, ...empty(`--${name}`)] as const,
  ]),
  ...['--agent-namespace', '--output', '-o'].map(
    (flag) => [`doctor ${flag}`, `${flag} has no value`, helpOf('doctor')] as const,
  ),
  ['doctor --agent-namespace=', ...empty('--agent-namespace')],
  ['doctor -n', ...empty('-n')],
  [`${assign} -n --context a`, ...empty('-n')],
  [`${assign} -n=`, 'the word = has no meaning here', helpOf('identity assign')],
  ...[
    'context',
    'cluster',
    'user',
    'kubeconfig',
    'as',
    'request-timeout',
    'namespace',
    'agent-namespace',
  ].map((name) => [`${assign} --${name}=a --${name} b`, ...twice(`--${name}`)] as const),
  [`${assign} -n a -n b`, ...twice('-n')],
  [`${assign} -n a --namespace=b`, ...twice('-n')],
  [`-n a ${assign} -n a`, ...twice('-n')],
  ['doctor -o json -o yaml', ...twice('-o')],
  ['identity assign orders --selector a --selector b', ...twice('--selector')],
  ['identity assign orders --service-account=a --service-account=b', ...twice('--service-account')],
  ['test --pod web --timeout 1 --timeout 2', ...twice('--timeout')],
];

describe('an error of arguments', () => {
  for (const [words, ...said] of refused) {
    it(`is in our own words, before anything is read: ${words}`, async () => {
      const args = words.split(' ').filter((word) => word !== '');
      const { code, stdout, stderr, calls } = await play(args, boundTestBed());
      assert.deepEqual([code, stdout, calls], [2, '', []]);
      assert.equal(stderr, `error: ${said.join('\n')}\n`);
    });
  }

  it('is not the second value of a flag that takes several', async () => {
    const federate = 'identity federate orders --service-account=a --service-account=b';
    assert.equal((await play(federate, boundTestBed())).code, 0);
    const pod = 'kind: Pod\nmetadata: { name: web }';
    const files = { 'a.yaml': pod, 'b.yaml': pod };
    assert.equal((await play('analyze -f a.yaml -f b.yaml', { files })).code, 0);
  });
});

describe('completion', () => {
  const bed = boundTestBed({
    namespaces: ['shop', 'stock', 'other'].map((name) => ({ metadata: { name } })),
    pods: [createPod('web-1'), createPod('web-2'), createPod('far', { namespace: 'other' })],
  });

  for (const [words, expected] of [
    ['expl', 'explain'],
    ['identity fe', 'federate'],
    ['identity a', 'add assign'],
    ['help ex', 'explain exception'],
    // Flags of the verb, and those of every verb.
    ['doctor --pr', '--pre'],
    ['doctor --cont', '--context'],
    ['doctor --sel', ''],
    ['identity assign orders --sel', '--selector'],
    ['explain pod web --name', '--namespace'],
    ['explain pod --res', '--resource'],
    ['identity list --all', '--all-namespaces'],
    ['test --pod web --all', ''],
    ['grants --out', ''],
    // Choices of flags and arguments.
    ['doctor -o y', 'yaml'],
    ['doctor --output ', 'text json yaml'],
    ['analyze --threshold e', 'error'],
    ['analyze --threshold=e', 'error'],
    ['explain ', 'pod ip'],
    ['reasons binding_m', 'binding_missing'],
    // Namespaces, contexts, and objects of the namespace that is typed.
    ['explain -n sh', 'shop'],
    ['doctor --namespace s', 'shop stock'],
    ['doctor --namespace=st', 'stock'],
    ['doctor --context p', 'prod'],
    ['explain pod ', 'web-1 web-2'],
    ['explain -n other pod ', 'far'],
    ['explain --namespace=other pod f', 'far'],
    ['test --pod=web', 'web-1 web-2'],
    ['test --pod web', 'web-1 web-2'],
    ['test -n other --pod=f', 'far'],
    ['identity assign or', 'orders'],
    // A new name, and one name.
    ['identity add ', ''],
    ['identity assign orders ', ''],
  ] as const) {
    it(`of "${words}" is ${expected || 'nothing'}`, async () => {
      const { code, stdout, stderr } = await play(`__complete ${words}`, bed);
      assert.deepEqual([code, stderr], [0, '']);
      assert.equal(stdout, [...expected.split(' ').filter(Boolean), ':4', ''].join('\n'));
    });
  }

  it('leaves files to the shell, and is silent where the server does not answer', async () => {
    assert.equal((await play('__complete analyze -f a', bed)).stdout, ':0\n');
    const { code, stdout, stderr } = await play('__complete doctor -n ', {
      forbidden: { namespaces: 'everywhere' },
      other: () => failed('error: x'),
    });
    assert.deepEqual([code, stdout, stderr], [0, ':4\n', '']);
  });
});

describe('the process of kubectl nmi', () => {
  const main = join(repositoryRoot, 'src/kubectl/main.ts');
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-plugin-'));
    await script('kubectl', `echo '{"items":[]}'`);
  });
  after(() => rm(folder, { recursive: true }));

  /** In place of kubectl. */
  async function script(name: string, lines: string) {
    await writeFile(join(folder, name), `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
    return join(folder, name);
  }
  function run(program: string, words: readonly string[], env = {}, input = '') {
    return spawnSync(program, words, {
      cwd: folder,
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], KUBECTL: join(folder, 'kubectl'), ...env },
      input,
    });
  }
  const nmi = (words: string, env = {}, input = '') =>
    run(process.execPath, [main, ...words.split(' ')], env, input);

  it('takes its own arguments, its input and files, and exits with the code of the verb', () => {
    const manifest = 'kind: AzureIdentity\nmetadata: { name: orders, namespace: shop }\n';
    mkdirSync(join(folder, 'deploy/base'), { recursive: true });
    writeFileSync(join(folder, 'deploy/base/orders.yaml'), manifest);
    for (const [words, expected, said, error] of [
      ['--help', 0, /kubectl nmi explain/, /^$/],
      ['bogus', 2, /^$/, /^error: unknown verb/],
      ['analyze --files-only -f -', 1, /AzureIdentity shop\/orders/, /^$/],
      [`analyze --files-only -f ${join(folder, 'deploy')}`, 1, /AzureIdentity shop\/orders/, /^$/],
      ['analyze -f none.yaml', 2, /^$/, /none\.yaml/],
    ] as const) {
      const { status, stdout, stderr } = nmi(words, {}, manifest);
      assert.equal(status, expected, words);
      assert.match(stdout, said);
      assert.match(stderr, error);
    }
  });

  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`exits with ${expected} after ${signal}`, async () => {
      const slow = await script(`slow-${signal}`, ': >"$BEGUN"\nexec sleep 60');
      const begun = join(folder, `begun-${signal}`);
      const child = spawn(process.execPath, [main, 'doctor'], {
        env: { PATH: process.env['PATH'], KUBECTL: slow, BEGUN: begun },
      });
      const exited = once(child, 'exit');
      while (!existsSync(begun)) await delay(20);
      child.kill(signal);
      assert.deepEqual(await exited, [expected, null]);
    });
  }

  it('does not succeed if its output is lost, quietly if its reader has closed the pipe', () => {
    const start = `${process.execPath} ${main}`;
    const lost = run('sh', ['-c', `${start} reasons > /dev/full; echo $?`]);
    assert.equal(lost.stdout, '74\n');
    const noSpace = /^error: the output cannot be written: ENOSPC: no space left on device/;
    assert.match(lost.stderr, noSpace);
    // The shell prints the exit code that its pipe hides.
    const piped = `(${start} analyze --files-only -f -; echo $? >&2) | true`;
    const { stderr } = run('sh', ['-c', piped], {}, 'kind: AzureIdentity\nmetadata: { name: a }\n');
    assert.equal(stderr, '74\n', 'no error on the terminal, and no success');
  });

  it('has colors on a terminal, and none elsewhere or with NO_COLOR', () => {
    const words = ['-qec', `${process.execPath} ${main} explian`, '/dev/null'];
    const onTerminal = (env: NodeJS.ProcessEnv) =>
      run('script', words, { TERM: 'xterm-256color', ...env }).stdout.replaceAll('\u001b', 'ESC');
    assert.match(onTerminal({}), /ESC\[31merror:ESC\[39m unknown verb/);
    assert.match(onTerminal({ NO_COLOR: '1' }), /^error: unknown verb/);
    assert.match(onTerminal({ TERM: 'dumb' }), /^error: unknown verb/);
  });

  it('shows what a login plugin of kubectl asks, and passes the answer on', async () => {
    // As kubectl with an exec plugin: a prompt, the answer from the terminal, then the output.
    const asking = await script(
      'asking',
      `echo 'To sign in, enter the code ABC' >&2\nsleep 2\necho 'Error from server (Forbidden): no' >&2\nexit 1`,
    );
    const { status, stderr } = nmi('doctor', { KUBECTL: asking });
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^To sign in, enter the code ABC\n(?![^]*To sign in)[^]*^error: cannot reach/m,
    );
    assert.doesNotMatch(stderr, /^Error from server/m, 'that is kubectl’s own');
  });
});

describe('the namespace of a verb', () => {
  it('is that of the kubectl context unless -n names one', async () => {
    const bed = { ...boundTestBed(), currentNamespace: 'elsewhere' };
    const { stderr } = await play('explain pod web', bed);
    assert.match(stderr, /namespace elsewhere does not exist/);
    assert.equal((await play('explain pod web -n shop', bed)).code, 0);
  });

  it('is not reported as unknown if the server does not answer, or the user may not read it', async () => {
    const { kubectl } = openKubectl(failed('Unable to connect to the server: no route to host\n'));
    await assert.rejects(
      refuseUnknownNamespace({ kubectl } as unknown as VerbContext, 'shop'),
      /get namespace shop.*no route to host/s,
    );
    const bed = { ...boundTestBed(), forbidden: { namespaces: 'everywhere' } as const };
    const { stderr } = await play('explain pod x -n secret', bed);
    assert.match(stderr, /namespace secret has no pod x/);
  });
});

describe('each verb and sub-verb', () => {
  it('has a help with examples of its own command line', async () => {
    /** Words of the verbs below it; none for a verb that takes names itself. */
    const below = (help: string, above: readonly string[]) => {
      const [, commands = ''] = /^Commands:\n((?: .*\n)+)/m.exec(help) ?? [];
      const start = ['kubectl nmi', ...above].join(' ');
      const named = commands.matchAll(new RegExp(`^ {2}${start} ([a-z-]+)`, 'gm'));
      return [...named].map(([, name = '']) => [...above, name]);
    };
    const examples = new Map<string, string>();
    const visit = async (words: readonly string[]): Promise<void> => {
      const { stdout: help } = await play([...words, '--help']);
      const verbs = below(help, words);
      for (const each of verbs) await visit(each);
      if (verbs.length > 0) return;
      const [, listed = ''] = /^Examples:\n((?: .*\n?)+)/m.exec(help) ?? [];
      examples.set(words.join(' '), listed);
      // yargs puts the name of the program into commands, and not into explanations of them.
      assert.ok(listed.startsWith(`  kubectl nmi ${words.join(' ')}`), help);
      assert.ok(!help.includes('$0'), help);
    };
    await visit([]);
    assert.ok(examples.size >= 12, [...examples.keys()].join());
    for (const [verb, ...more] of [
      ['explain', 'pod web-7d4b9 -n shop', 'deploy/web -n shop'],
      ['identity add', 'orders --resource-id ', 'orders --type federated ', 'agent --type chain '],
      ['identity list', '-A'],
      ['identity assign', 'orders'],
      ['identity federate', 'orders'],
      ['migrate export-addon'],
      ['sysdump'],
    ] as const) {
      for (const each of more)
        assert.ok(examples.get(verb)?.includes(`\n  kubectl nmi ${verb} ${each}`.trim()), each);
      assert.ok(examples.has(verb), verb);
    }
  });
});
