import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { renderGlogLine } from '../../../src/base/lines/glog-text.ts';

describe('log lines as text', () => {
  it('have the header that grep ^E relies on', () => {
    const line =
      '{"level":"error","time":"2026-11-25T01:02:03.456Z","component":"kube","code":"GONE","msg":"watch failed"}\n';
    assert.equal(
      renderGlogLine(line, 42),
      'E1125 01:02:03.456000      42 kube:1] watch failed code=GONE\n',
    );
  });

  it('begin a token decision with the access line of the replaced system', () => {
    const line = JSON.stringify({
      level: 'info',
      time: '2026-11-25T01:02:03.456Z',
      msg: 'token request',
      status: 200,
      durationMs: 1.5,
      method: 'GET',
      path: '/p',
      podIp: '10.0.0.1',
    });
    assert.match(
      renderGlogLine(line, 1),
      /\] status \(200\) took 1500000 ns for req\.method=GET reg\.path=\/p req\.remote=10\.0\.0\.1 /,
    );
  });

  it('quote text that would break the line', () => {
    const line = '{"level":"info","time":"2026-11-25T01:02:03.456Z","msg":"m","a":"x\\ny z"}';
    assert.ok(renderGlogLine(line, 1).endsWith('m a="x\\ny z"\n'));
    assert.equal(renderGlogLine('not json\n', 1), 'not json\n');
  });

  it('have a letter for their level, and that of information for any other', () => {
    const levels = ['fatal', 'error', 'warn', 'info', 'debug', 'unknown'];
    const letters = levels.map((level) => {
      const time = '2026-01-02T03:04:05.678Z';
      return renderGlogLine(JSON.stringify({ level, time, msg: 'm' }), 1).slice(0, 21);
    });
    assert.deepEqual(
      letters,
      ['F', 'E', 'W', 'I', 'I', 'I'].map((letter) => `${letter}0102 03:04:05.678000`),
    );
  });

  it('have the letter of an error for a refused request, as in the replaced system', () => {
    const letterOf = (fields: object) => renderGlogLine(JSON.stringify(fields), 1)[0];
    assert.equal(letterOf({ level: 'warn', status: 403, msg: 'token request' }), 'E');
    assert.equal(letterOf({ level: 'info', status: 200, msg: 'token request' }), 'I');
    assert.equal(letterOf({ level: 'warn', msg: 'token fetch failed' }), 'W');
  });

  it('name the agent when no part is named, and print other values as JSON', () => {
    const line = JSON.stringify({ level: 'info', msg: 'm', a: 1, b: { c: [null] }, d: true });
    assert.match(renderGlogLine(line, 1), / nmi:1\] m a=1 b=\{"c":\[null\]\} d=true\n$/);
  });

  it('are not access lines without a status and a duration', () => {
    for (const fields of [{ status: 200 }, { durationMs: 1 }, { status: '200', durationMs: 1 }]) {
      const line = JSON.stringify({ level: 'info', msg: 'message', ...fields });
      assert.match(renderGlogLine(line, 1), /\] message /);
    }
  });

  it('print no control character and no line break that JSON leaves unescaped', () => {
    const line = JSON.stringify({ level: 'info', msg: 'm', a: 'x\x7f\x85\u2028\u2029y' });
    assert.match(renderGlogLine(line, 1), / a="?x\?\?\?\?y"?\n$/);
  });
});
