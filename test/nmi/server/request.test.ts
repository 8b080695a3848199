import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import { HttpExchange } from '../../../src/nmi/server/request.ts';

function open(request: Partial<IncomingMessage>, response: Partial<ServerResponse> = {}) {
  const caller = new CallerConnection({ remoteIp: '127.0.0.1' }, { kind: 'by-address' });
  return new HttpExchange(request as IncomingMessage, response as ServerResponse, caller, 7, 'id');
}

describe('a request', () => {
  it('has every value of a header in order, regardless of case', () => {
    const rawHeaders = [
      'Metadata',
      'true',
      'X',
      'y',
      'METADATA',
      'false',
      'Metadatb',
      'no',
      'metadat',
      'no',
      'odd',
    ];
    const exchange = open({ rawHeaders });
    assert.deepEqual(exchange.headerValues('metadata'), ['true', 'false']);
    assert.deepEqual(exchange.headerValues('x'), ['y']);
    assert.deepEqual(exchange.headerValues('odd'), []);
    assert.deepEqual(exchange.headerValues('none'), []);
  });

  it('has method and target unchanged, or empty', () => {
    const exchange = open({ method: 'GET', url: '/a?b' });
    assert.deepEqual([exchange.method, exchange.target], ['GET', '/a?b']);
    assert.deepEqual([open({}).method, open({}).target], ['', '']);
  });

  it('ends with its response, finished or aborted', () => {
    assert.ok(!open({}, { destroyed: false, closed: false }).isGone);
    assert.ok(open({}, { destroyed: true, closed: false }).isGone);
    assert.ok(open({}, { destroyed: false, closed: true }).isGone);
  });
});
