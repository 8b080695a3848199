import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseExplainQuery } from '../../../src/nmi/explain/question.ts';

function parsed(search: string) {
  const result = parseExplainQuery(search);
  assert.ok(result.ok, search);
  return result.query;
}

function problemOf(search: string): string {
  const result = parseExplainQuery(search);
  assert.ok(!result.ok, search);
  return result.problem;
}

describe('the query of an explanation', () => {
  it('names a pod or none', () => {
    const rest = { selector: { kind: 'none' }, resource: undefined } as const;
    assert.deepEqual(parsed(''), { who: { kind: 'node' }, ...rest });
    assert.deepEqual(parsed('pod=a%2Fb'), {
      who: { kind: 'pod', namespace: 'a', name: 'b' },
      ...rest,
    });
  });

  it('has the rest of a request beside the pod', () => {
    const { selector, resource } = parsed('pod=a/b&resource=https%3A%2F%2Fr&client_id=ID');
    assert.deepEqual(selector, { kind: 'client_id', value: 'ID' });
    assert.equal(resource, 'https://r');
    assert.deepEqual(parsed('pod=a/b&client_id=').selector, { kind: 'none' });
  });

  it('is refused with the reason', () => {
    for (const pod of ['', 'a', 'a/', '/b', 'a/b/c']) {
      assert.match(problemOf(`pod=${pod}`), /NAMESPACE\/NAME/, pod);
    }
    assert.match(problemOf('ip=10.0.0.1'), /ip is not known/);
    assert.match(problemOf('resource=r'), /one pod/);
    assert.match(problemOf('client_id=r'), /one pod/);
    assert.match(problemOf('pod=a/b&pod=a/c'), /twice/);
    assert.match(problemOf('pod=a/b&object_id=x'), /object_id is not known/);
    assert.match(problemOf('pod=a/b&resource='), /resource/);
    assert.match(problemOf('pod=a/b&resource=a%0Ab'), /resource/);
    assert.match(problemOf(`pod=a/b&client_id=${'x'.repeat(2_000)}`), /client_id/);
  });

  it('is checked for any text, and its problem is printable', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (search) => {
        const result = parseExplainQuery(search);
        assert.ok(result.ok || /^[\x20-\x7e]+$/.test(result.problem));
      }),
    );
  });
});
