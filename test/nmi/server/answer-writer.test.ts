import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PassThrough } from 'node:stream';
import type { ServerResponse } from 'node:http';
import { refuse } from '../../../src/nmi/base/answers.ts';
import {
  serverHeader,
  writeAnswer,
  writeRawAnswer,
} from '../../../src/nmi/server/answer-writer.ts';
import { HandClock } from '../../support/hand-clock.ts';

const common = (length: number) => [
  'Content-Type',
  'application/json; charset=utf-8',
  'Content-Length',
  String(length),
  'Server',
  serverHeader,
  'x-ms-request-id',
  'id',
];

describe('an answer to a request', () => {
  function write(...args: readonly [answer: Parameters<typeof writeAnswer>[1], isLast?: boolean]) {
    const written: unknown[] = [];
    const response = {
      writeHead: (status: number, headers: readonly string[]) => written.push(status, headers),
      end: (body: string) => written.push(body),
    } as unknown as ServerResponse;
    writeAnswer(response, args[0], 'id', args[1] ?? false);
    return written;
  }

  it('has its length in bytes, and the headers for its reason', () => {
    const answer = refuse('not_found', 'né');
    assert.deepEqual(write(answer), [404, common(Buffer.byteLength(answer.body)), answer.body]);
    const waiting = refuse('upstream_throttled', 'x');
    assert.deepEqual(write(waiting)[1], [...common(waiting.body.length), 'Retry-After', '5']);
    const method = refuse('method_not_allowed', 'x', { allow: 'GET' });
    assert.deepEqual(write(method)[1], [...common(method.body.length), 'Allow', 'GET']);
  });

  it('ends its connection when it is the last one, or requires that itself', () => {
    const answer = refuse('not_found', 'x');
    const ended = [...common(answer.body.length), 'Connection', 'close'];
    assert.deepEqual(write(answer, true)[1], ended);
    assert.deepEqual(write(refuse('not_found', 'x', { close: true }))[1], ended);
    assert.ok(serverHeader.startsWith('IMDS/'));
  });
});

describe('an answer to an invalid request', () => {
  it('is written as bytes and ends the connection', () => {
    const socket = new PassThrough();
    const clock = new HandClock(Date.UTC(2026, 0, 1));
    const answer = refuse('request_timeout', 'late');
    writeRawAnswer(socket, answer, 'id', clock);
    const text = String(socket.read());
    const lines = [
      'HTTP/1.1 408 Request Timeout',
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${answer.body.length}`,
      `Server: ${serverHeader}`,
      'x-ms-request-id: id',
      'Connection: close',
      'Date: Thu, 01 Jan 2026 00:00:00 GMT',
    ];
    assert.equal(text, `${lines.join('\r\n')}\r\n\r\n${answer.body}`);
    assert.ok(socket.writableEnded);
  });

  it('drops a peer that does not read for a second, and leaves no timer for one that does', () => {
    const clock = new HandClock();
    const stuck = new PassThrough();
    writeRawAnswer(stuck, refuse('not_found', 'x'), 'id', clock);
    clock.advance(999);
    assert.ok(!stuck.destroyed);
    clock.advance(1);
    assert.ok(stuck.destroyed);
    const gone = new PassThrough();
    writeRawAnswer(gone, refuse('not_found', 'x'), 'id', clock);
    gone.emit('close');
    assert.deepEqual(clock.armed, []);
  });
});
