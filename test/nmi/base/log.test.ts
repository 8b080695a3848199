import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { renderGlogLine } from '../../../src/nmi/base/glog-text.ts';
import { loggableResource, redactClientId } from '../../../src/nmi/base/log.ts';
import { createLogger } from '../../../src/nmi/base/logger.ts';

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
      ...{ level: 'info', time: '2026-11-25T01:02:03.456Z', msg: 'token request' },
      ...{ status: 200, durationMs: 1.5, method: 'GET', path: '/p', podIp: '10.0.0.1' },
    });
    assert.match(
      renderGlogLine(line, 1),
      /\] status \(200\) took 1500000 ns for req\.method=GET reg\.path=\/p req\.remote=10\.0\.0\.1 /,
    );
  });

  it('quote what would break the line apart', () => {
    const line = '{"level":"info","time":"2026-11-25T01:02:03.456Z","msg":"m","a":"x\\ny z"}';
    assert.ok(renderGlogLine(line, 1).endsWith('m a="x\\ny z"\n'));
    assert.equal(renderGlogLine('not json\n', 1), 'not json\n');
  });

  it('that are prepared are those that the logger writes, byte for byte', () => {
    for (const format of ['json', 'text'] as const) {
      for (const level of ['info', 'warn'] as const) {
        const lines: string[] = [];
        const log = createLogger({ format, level, write: (line) => lines.push(line) });
        const fields = { pod: 'a"b', gone: undefined, status: 200, nested: { x: [1] } };
        const child = log.child({ component: 'c' });
        child.prepare(fields, 'token request')(1.25, 'id');
        child.child(fields).info({ durationMs: 1.25, requestId: 'id' }, 'token request');
        const [prepared, written] = lines.map((line) => line.replace(/\d\d\.\d{3,6}/, ''));
        assert.equal(lines.length, level === 'info' ? 2 : 0);
        assert.equal(prepared, written);
      }
    }
  });

  it('come from the logger in either format, below its level not at all', () => {
    for (const format of ['json', 'text'] as const) {
      const lines: string[] = [];
      const log = createLogger({ format, level: 'info', write: (line) => lines.push(line) });
      log.debug({}, 'unseen');
      log.child({ component: 'c' }).warn({ x: 1 }, 'seen');
      assert.equal(lines.length, 1);
      assert.ok(lines[0]?.includes('seen') && lines[0].endsWith('\n'));
      assert.equal(lines[0]?.startsWith('W'), format === 'text');
    }
  });
});

describe('what a log line may show of a caller', () => {
  it('is a resource that looks like one, and a shortened client id', () => {
    for (const resource of [
      'https://vault.azure.net',
      'api://0000-x/.default',
      '00000003-0000-0000-c000-000000000000',
    ]) {
      assert.equal(loggableResource(resource), resource);
    }
    for (const odd of [
      'eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2ln',
      'https://x?sig=secret',
      'https://user:pa%20ss@x',
      `https://${'x'.repeat(300)}`,
    ]) {
      assert.equal(loggableResource(odd), '[unusual]');
    }
    assert.equal(redactClientId('12345678-1234'), '1234##### REDACTED #####1234');
    assert.equal(redactClientId('1234567'), '1234567');
  });
});
