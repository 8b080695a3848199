import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { paint } from '../../../src/kubectl/base/paint.ts';

const text = `pod shop/web: REFUSED, gets 400 binding_missing
  node        node-1

Findings:
error   Pod shop/web: binding_missing
        error in a text stays plain
warning Pod shop/web: client_id_twice
info    AzureIdentity shop/orders: identity_by_age
`;

describe('colors', () => {
  it('are those of severities, verdicts and titles', () => {
    const painted = paint(text);
    assert.match(painted, /pod shop\/web: \u001b\[31mREFUSED\u001b\[39m, gets/);
    assert.match(paint('pod a/b: GRANTED, gets x\n'), /\u001b\[32mGRANTED/);
    assert.match(paint('pod a/b: NOT READY: x\n'), /\u001b\[33mNOT READY\u001b/);
    assert.match(painted, /^\u001b\[1mFindings:\u001b\[22m$/m);
    assert.match(painted, /^\u001b\[31merror\u001b\[39m {3}Pod/m);
    assert.match(painted, /^\u001b\[33mwarning\u001b\[39m Pod/m);
    assert.match(painted, /^\u001b\[36minfo\u001b\[39m {4}AzureIdentity/m);
    assert.match(painted, /^ {8}error in a text stays plain$/m);
    assert.match(
      paint('error: no\nwarning: yes\n'),
      /^\u001b\[31merror:\u001b.*\n\u001b\[33mwarning:/,
    );
    assert.equal(stripVTControlCharacters(painted), text, 'nothing else changes');
  });

  it('are not in JSON and YAML', () => {
    for (const data of [
      '{\n  "error": "x"\n}\n',
      'findings:\n  - severity: error\nkind: Diagnosis\n',
    ]) {
      assert.equal(paint(data), data);
    }
  });
});
