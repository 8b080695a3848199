import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lab } from '../../../lab/command.ts';
import { scenarios } from '../../../lab/scenarios/all.ts';

async function run(...words: readonly string[]) {
  let stdout = '';
  let stderr = '';
  const code = await lab(words, {
    environment: {},
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

describe('the command line of the lab', () => {
  it('has help with every flag, and lists the scenarios', async () => {
    for (const flag of ['--help', '-h']) {
      const { code, stdout, stderr } = await run(flag);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^Usage: \.\/dev lab \[flags\]$/m);
      for (const name of ['scenario', 'redirect', 'times', 'output', 'keep', 'list', 'loopback']) {
        assert.match(stdout, new RegExp(`^ +--${name} `, 'm'));
      }
    }
    const { code, stdout } = await run('--list');
    assert.equal(code, 0);
    const listed = stdout.trimEnd().split('\n');
    const names = scenarios.map(({ name }) => name);
    assert.deepEqual(
      listed.map((line) => line.split(' ')[0]),
      names,
    );
  });

  const refused: readonly (readonly [words: readonly string[], problem: RegExp])[] = [
    [['--bogus'], /Unknown argument: bogus/],
    [['stray'], /Unknown argument: stray/],
    [['--constructor=y'], /Unknown argument: constructor/],
    [
      ['--redirect=x'],
      /Argument: redirect, Given: "x", Choices: "auto", "ebpf", "iptables", "none"/,
    ],
    [['--output', 'xml'], /Argument: output, Given: "xml", Choices: "text", "json"/],
    [['--scenario=nothing'], /--scenario has the value "nothing"; allowed: tour, kernel, all, /],
    [['--scenario'], /Not enough arguments following: scenario/],
    [['--times=0'], /--times has the value "0"; allowed: a whole number from 1 to 1000/],
    [['--times=1001'], /--times has the value "1001"/],
  ];
  for (const [words, problem] of refused) {
    it(`refuses ${words.join(' ')} in one line`, async () => {
      const { code, stdout, stderr } = await run(...words);
      assert.equal(code, 2);
      assert.equal(stdout, '');
      assert.match(stderr, problem);
      assert.match(stderr, /^lab: .*; see \.\/dev lab --help\n$/);
    });
  }
});
