import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, play } from './support/recorded-kubectl.ts';

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
    const { calls } = await play(['identity', 'delete', 'orders', '--aply'], boundTestBed());
    assert.deepEqual(calls, []);
  });
});
