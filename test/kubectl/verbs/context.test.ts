import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refuseUnknownNamespace, type VerbContext } from '../../../src/kubectl/verbs/context.ts';
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
      (await play(['explain', 'pod', 'x', '-n', 'secret'], testBed)).stderr,
      /namespace secret has no pod x/,
    );
  });
});
