import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { correlationInBytes, correlationOf } from '../../../src/nmi/base/correlation.ts';
import { readRequest } from '../../../src/nmi/server/fast-path/known-request.ts';

const guid = '0A1B2C3D-0000-4000-8000-000000000001';
const trace = '4bf92f3577b34da6a3ce929d0e0e4736';
const none = { clientRequestId: undefined, traceId: undefined };

function read(headers: Readonly<Record<string, string>>) {
  return correlationOf({
    headerValues: (name) => (headers[name] === undefined ? [] : [headers[name]]),
  });
}

describe('the ids of a client', () => {
  it('are its request id and its trace id', () => {
    assert.deepEqual(
      read({
        'x-ms-client-request-id': ` ${guid}`,
        traceparent: `00-${trace}-00f067aa0ba902b7-01`,
      }),
      { clientRequestId: guid.toLowerCase(), traceId: trace },
    );
    assert.deepEqual(read({}), none);
  });

  it('have the standard format or are missing: anything else may be a secret', () => {
    for (const text of ['', 'id', 'eyJhbGciOiJub25lIn0.e30.', `${guid} x`, `${guid}\n`, trace]) {
      const odd = text.trim() === guid ? `${guid}0` : text;
      assert.deepEqual(read({ 'x-ms-client-request-id': odd, traceparent: odd }), none, text);
    }
    assert.equal(read({ traceparent: `00-${trace}-00f067aa0ba902b7` }).traceId, undefined);
  });

  it('are found in the bytes of a request on the fast path, recognized or not', () => {
    const text = (id: string, resource: string) =>
      Buffer.from(
        `GET /metadata/identity/oauth2/token?resource=${resource} HTTP/1.1\r\nMetadata: true\r\n` +
          `X-Ms-Client-Request-Id: ${id}\r\nTraceparent: 00-${trace}-00f067aa0ba902b7-01\r\n\r\n`,
      );
    const first = readRequest(text('no guid', 'r'));
    assert.ok(first !== undefined);
    assert.deepEqual(correlationInBytes(first), { clientRequestId: undefined, traceId: trace });
    const other = readRequest(text(guid, 'other'), readRequest(text(guid.replace('A', 'B'), 'r')));
    assert.ok(other !== undefined);
    assert.deepEqual(correlationInBytes(other), {
      clientRequestId: guid.toLowerCase(),
      traceId: trace,
    });
  });
});
