/** What a pod gets, in every voice: each situation of `corpus` through everything that reports it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { readSituations } from './situation.ts';
import { inFileForm, wordsOf } from './tellers.ts';

const situations = readSituations();

describe('every teller has the words of the situation', () => {
  for (const situation of situations) {
    const { output, ...expected } = situation.expected;
    it(situation.name, async () => {
      const words = await wordsOf(situation);
      assert.deepEqual(inFileForm(words), expected);
      if (output !== undefined) assert.equal(words.output, output);
    });
  }
});

it('the situations include the mistakes on the page about troubleshooting', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/troubleshooting.md'), 'utf8');
  const [, rows = ''] = /\| code \| mistake \|\n.*\n((?:\|.*\n)+)/.exec(page) ?? [];
  const codes = [...rows.matchAll(/^\| `(\w+)`/gm)].map(([, code = '']) => code);
  assert.equal(codes.length, 12);
  const found = JSON.stringify(situations.map(({ expected }) => expected));
  assert.deepEqual(
    codes.filter((code) => !found.includes(`: ${code}\\n`)),
    [],
  );
});
