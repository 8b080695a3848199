import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { compiles } from './compiler.ts';
import { repositoryRoot } from '../conventions/tree.ts';

describe('a fault in a file', () => {
  it('is left to the tests if the file compiles with it', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-faults-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    mkdirSync(join(folder, 'src'));
    for (const name of ['node_modules', 'package.json', 'tsconfig.json']) {
      symlinkSync(join(repositoryRoot, name), join(folder, name));
    }
    const compilesWith = (line: string): boolean => {
      const text = `export function first(all: readonly string[]): string {
  const [one] = all;
  ${line}
  return one;
}
`;
      writeFileSync(join(folder, 'src/first.ts'), text);
      return compiles(folder, 'src/first.ts');
    };
    assert.deepEqual(
      [
        "if (one === undefined) throw new Error('none');",
        "if (one === undefined || one !== '') throw new Error('none');",
        "if (one !== undefined) throw new Error('none');",
        '{}',
      ].map(compilesWith),
      [true, true, false, false],
    );
  });
});
