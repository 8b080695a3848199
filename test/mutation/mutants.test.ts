import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { apply, mutantsOf, operators } from './mutants.ts';
import { readSyntax } from '../conventions/syntax.ts';
import { repositoryFiles, repositoryRoot, typescriptIn } from '../conventions/tree.ts';

const file = 'src/a.ts';

/** What each fault makes of a text, by operator. */
function faultsOf(text: string): readonly (readonly [operator: string, text: string])[] {
  return mutantsOf(file, text).map((mutant) => [mutant.operator, apply(text, mutant)]);
}

describe('the faults that can be made in a file', () => {
  const examples = [
    ['a === b;', [['comparison negated', 'a !== b;']]],
    ['a !== b;', [['comparison negated', 'a === b;']]],
    [
      'a < b;',
      [
        ['comparison negated', 'a >= b;'],
        ['comparison shifted', 'a <= b;'],
      ],
    ],
    [
      'a /* < */ >= b;',
      [
        ['comparison negated', 'a /* < */ < b;'],
        ['comparison shifted', 'a /* < */ > b;'],
      ],
    ],
    ['a && b;', [['and/or exchanged', 'a || b;']]],
    ['a ?? b;', []],
    ['if (a) b = c;', [['condition negated', 'if (!(a)) b = c;']]],
    ['a ? b : c;', [['condition negated', '!(a) ? b : c;']]],
    [
      'for (;;) if (a) { continue; }',
      [
        ['early exit dropped', 'for (;;) {}'],
        ['condition negated', 'for (;;) if (!(a)) { continue; }'],
      ],
    ],
    ['if (a) throw b; else c = d;', [['condition negated', 'if (!(a)) throw b; else c = d;']]],
    [
      'await a();',
      [
        ['await dropped', 'void a();'],
        ['call removed', '{}'],
      ],
    ],
    ['const a = await b();', []],
    [
      'a(b, c);',
      [
        ['call removed', '{}'],
        ['arguments swapped', 'a(c, b);'],
      ],
    ],
    ['a = f(b, () => c);', []],
    ['a = f(b, b);', []],
    ['a = Math.min(b, c);', []],
    ['a = 0;', [['constant changed', 'a = 1;']]],
    ['a = 5_000;', [['constant changed', 'a = 0;']]],
    ['a = true;', [['constant changed', 'a = false;']]],
    ["a = 'text';", []],
    [
      'a ? -1 : 1;',
      [
        ['condition negated', '!(a) ? -1 : 1;'],
        ['constant changed', 'a ? -0 : 1;'],
      ],
    ],
    ['type A = 5 | true;', []],
    ['a = [0.1, 0.2];', []],
  ] as const;
  for (const [text, faults] of examples) {
    it(`are ${faults.length} in \`${text}\``, () => {
      assert.deepEqual(faultsOf(text), faults);
    });
  }

  it('are none in a line that a comment excludes, with its reason', () => {
    const text = ['// No mutation: both are equal here,', '// and stay so.', 'a = 5;', 'b = 5;'];
    assert.deepEqual(
      mutantsOf(file, text.join('\n')).map(({ line }) => line),
      [4],
    );
    assert.equal(mutantsOf(file, '// No mutation:\na = 5;').length, 1);
  });

  it('can be made everywhere in the product: each leaves a file that parses', () => {
    // Every operator has a place in this one, whichever the others are.
    const sure = 'src/nmi/tokens/broker.ts';
    const sources = typescriptIn(repositoryFiles(), 'src').filter(
      ({ path }, at) => at % 20 === 0 || path === sure,
    );
    const found = new Set<string>();
    for (const { path } of sources) {
      const text = readFileSync(join(repositoryRoot, path), 'utf8');
      for (const mutant of mutantsOf(path, text)) {
        found.add(mutant.operator);
        readSyntax({ path, text: apply(text, mutant) });
      }
    }
    assert.deepEqual(found, new Set(operators));
  });

  it('cannot be made in a text that does not parse', () => {
    assert.throws(() => mutantsOf(file, 'a = ;'), /src\/a\.ts: /);
  });
});
