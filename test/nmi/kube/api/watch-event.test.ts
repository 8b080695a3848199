import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readWatchEvent, versionOf } from '../../../../src/nmi/kube/api/watch-event.ts';

const object = { metadata: { name: 'p', resourceVersion: '7' } };

/** The kind, with code and text of an error. */
function inWords(raw: unknown): string {
  const event = readWatchEvent(raw);
  return event.kind === 'error' ? `${event.error.code}: ${event.error.message}` : event.kind;
}

describe('a line of a watch', () => {
  it('is a change or a deletion of an object, at a version', () => {
    for (const [type, kind] of [
      ['ADDED', 'changed'],
      ['MODIFIED', 'changed'],
      ['DELETED', 'deleted'],
    ] as const) {
      assert.deepEqual(readWatchEvent({ type, object }), { kind, object, version: '7' });
    }
  });

  it('is a bookmark, which may end a list', () => {
    const bookmark = (annotations?: unknown) =>
      readWatchEvent({
        type: 'BOOKMARK',
        object: { metadata: { resourceVersion: '9', annotations } },
      });
    const plain = { kind: 'bookmark', version: '9', endsList: false };
    assert.deepEqual(bookmark(), plain);
    assert.deepEqual(bookmark({ 'k8s.io/initial-events-end': 'false' }), plain);
    assert.deepEqual(bookmark({ 'k8s.io/initial-events-end': 'true' }), {
      ...plain,
      endsList: true,
    });
  });

  it('is an error with the status that it carries', () => {
    const status = (fields: object) => ({ type: 'ERROR', object: fields });
    assert.equal(inWords(status({ code: 410, message: 'too old' })), 'GONE: too old');
    assert.equal(inWords(status({ code: 403, reason: 'Forbidden' })), 'FORBIDDEN: Forbidden');
    assert.equal(inWords(status({})), 'SERVER: the server ended the watch');
    const event = readWatchEvent(status({ code: 429, details: { retryAfterSeconds: 3 } }));
    assert.equal(event.kind === 'error' && event.error.retryAfterMs, 3_000);
    const vague = readWatchEvent(status({ code: '429', details: { retryAfterSeconds: '3' } }));
    assert.deepEqual(vague.kind === 'error' && [vague.error.status, vague.error.retryAfterMs], [
      500,
      undefined,
    ]);
  });

  it('is refused where it makes no sense', () => {
    for (const raw of [null, 7, {}, { type: 'ADDED' }, { type: 'ADDED', object: [] }]) {
      assert.match(inWords(raw), /^MALFORMED: a watch event of type ".*" has no object$/);
    }
    assert.match(inWords({ type: 'ADDED', object: {} }), /has no resourceVersion$/);
    const long = inWords({ type: 'X'.repeat(99), object });
    assert.equal(long, `MALFORMED: unknown watch event type "${'X'.repeat(32)}"`);
  });
});

describe('the version of an object', () => {
  it('is empty where it has none', () => {
    assert.equal(versionOf(object), '7');
    for (const other of [undefined, {}, { metadata: 7 }, { metadata: {} }]) {
      assert.equal(versionOf(other), '');
    }
  });
});
