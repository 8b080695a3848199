import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundWorld, play } from '../support/recorded-kubectl.ts';

describe('the namespace of a verb', () => {
  it('is that of the kubectl context unless -n names one', async () => {
    const world = { ...boundWorld(), currentNamespace: 'elsewhere' };
    assert.match(
      (await play(['explain', 'pod', 'web'], world)).stderr,
      /namespace elsewhere does not exist/,
    );
    assert.equal((await play(['explain', 'pod', 'web', '-n', 'shop'], world)).code, 0);
  });

  it('that a user may not look at is not called unknown', async () => {
    const world = { ...boundWorld(), forbidden: { namespaces: 'everywhere' } as const };
    assert.match(
      (await play(['explain', 'pod', 'x', '-n', 'secret'], world)).stderr,
      /namespace secret has no pod x/,
    );
  });
});
