/** Every case has a test, and every test that the table names exists. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { cases, type Proof } from './cases.ts';

const root = join(import.meta.dirname, '../..');
const caseCount = 78;
const suites = {
  wire: 'wire.test.ts',
  'test-bed': 'test-bed.test.ts',
  entra: 'entra.test.ts',
} as const;

function readSuite(kind: keyof typeof suites): string {
  return readFileSync(join(import.meta.dirname, suites[kind]), 'utf8');
}

/** The numbers of the cases in the test titles of a suite. */
function provenBy(kind: keyof typeof suites): ReadonlySet<number> {
  const titles = readSuite(kind).matchAll(/\bit\(\s*(?:`\$\{)?caseTitle\((\d+)\)/g);
  return new Set(Array.from(titles, ([, number]) => Number(number)));
}

function numbersWith(kind: Proof['kind']): readonly number[] {
  const some = cases.filter(({ proofs }) => proofs.some((proof) => proof.kind === kind));
  return some.map(({ number }) => number);
}

/** A test or a scenario whose title or name begins so. */
function isTestIn(file: string, beginning: string): boolean {
  const path = join(root, file);
  if (!existsSync(path)) return false;
  const literal = beginning.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  const opening = String.raw`(?:\b(?:it|test|describe)\(\s*|\bname:\s*)['"\`]`;
  return new RegExp(opening + literal).test(readFileSync(path, 'utf8'));
}

describe('the table of cases', () => {
  it(`has each number from 1 to ${caseCount} once, in order, with something that proves it`, () => {
    const numbers = cases.map(({ number }) => number);
    assert.deepEqual(
      numbers,
      Array.from({ length: caseCount }, (_, index) => index + 1),
    );
    for (const { number, title, proofs } of cases) {
      assert.ok(title.length > 10 && proofs.length > 0, `case ${number}`);
    }
    assert.equal(new Set(cases.map(({ title }) => title)).size, caseCount);
  });

  for (const kind of ['wire', 'test-bed', 'entra'] as const) {
    it(`is what ${suites[kind]} proves, no more and no less`, () => {
      assert.deepEqual(
        [...provenBy(kind)].toSorted((a, b) => a - b),
        numbersWith(kind),
      );
    });
  }

  it('names tests of other suites that are there', () => {
    for (const { number, proofs } of cases) {
      for (const proof of proofs) {
        if (proof.kind !== 'elsewhere') continue;
        assert.ok(
          isTestIn(proof.file, proof.test),
          `case ${number}: no test '${proof.test}' in ${proof.file}`,
        );
      }
    }
  });
});
