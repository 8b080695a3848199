import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { paint } from '../../../src/kubectl/base/paint.ts';

const show = (report: string) => paint(report).replaceAll('\u001b', 'ESC');

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
    const painted = show(text);
    assert.match(painted, /pod shop\/web: ESC\[31mREFUSEDESC\[39m, gets/);
    assert.match(show('pod a/b: GRANTED, gets x\n'), /ESC\[32mGRANTED/);
    assert.match(show('pod a/b: NOT READY: x\n'), /ESC\[33mNOT READYESC/);
    assert.match(painted, /^ESC\[1mFindings:ESC\[22m$/m);
    assert.match(painted, /^ESC\[31merrorESC\[39m {3}Pod/m);
    assert.match(painted, /^ESC\[33mwarningESC\[39m Pod/m);
    assert.match(painted, /^ESC\[36minfoESC\[39m {4}AzureIdentity/m);
    assert.match(painted, /^ {8}error in a text stays plain$/m);
    assert.match(show('error: no\nwarning: yes\n'), /^ESC\[31merror:ESC.*\nESC\[33mwarning:/);
    assert.equal(stripVTControlCharacters(paint(text)), text, 'nothing else changes');
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
