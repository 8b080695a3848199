import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, play } from '../support/recorded-kubectl.ts';

describe('the namespace of a verb', () => {
  it('is that of the kubectl context unless -n names one', async () => {
    const testBed = { ...boundTestBed(), currentNamespace: 'elsewhere' };
    assert.match(
      (await play(['explain', 'pod', 'web'], testBed)).stderr,
      /namespace elsewhere does not exist/,
    );
    assert.equal((await play(['explain', 'pod', 'web', '-n', 'shop'], testBed)).code, 0);
  });

  it('that a user may not read is not reported as unknown', async () => {
    const testBed = { ...boundTestBed(), forbidden: { namespaces: 'everywhere' } as const };
    assert.match(
      (await play(['explain', 'pod', 'x', '-n', 'secret'], testBed)).stderr,
      /namespace secret has no pod x/,
    );
  });
});
