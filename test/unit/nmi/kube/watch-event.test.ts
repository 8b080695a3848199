import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OverlongLine } from '../../../../src/nmi/kube/api/json-lines.ts';
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

  it('that is too long identifies its object by its beginning', () => {
    // In the order of a server: the fields with text of the pod's author come later.
    const head = '"object":{"kind":"Pod","apiVersion":"v1","metadata":{';
    const names = '"name":"big","namespace":"shop","uid":"u-1","resourceVersion":"7"';
    const ref = { name: 'big', namespace: 'shop', uid: 'u-1' };
    const read = (text: string) => readWatchEvent(new OverlongLine(text));
    const rest = ',"generation":1,"annotations":{"name":"other';
    for (const type of ['ADDED', 'MODIFIED']) {
      const event = read(`{"type":"${type}",${head}${names}${rest}`);
      assert.deepEqual(event, { kind: 'overlong', ref, version: '7' });
    }
    assert.deepEqual(read(`{"type":"DELETED",${head}${names}${rest}`), {
      kind: 'deleted',
      object: { metadata: { ...ref, resourceVersion: '7' } },
      version: '7',
    });
    for (const text of [
      '',
      'xxxx',
      `{"type":"ADDED",${head}"annotations":{${names}}`,
      `{"type":"ADDED",${head}"name":"big"${rest},${names}`,
      `{"type":"ADDED","object":{"spec":{"metadata":{${names},"generation":1`,
      `{"type":"DELETED",${head}"annotations":{`,
    ]) {
      assert.deepEqual(read(text), { kind: 'overlong', ref: undefined, version: '' }, text);
    }
  });

  it('is a bookmark, which can end a list', () => {
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

  it('is an error with the status in it', () => {
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

  it('is refused when it is invalid', () => {
    for (const raw of [null, 7, {}, { type: 'ADDED' }, { type: 'ADDED', object: [] }]) {
      assert.match(inWords(raw), /^MALFORMED: a watch event of type ".*" has no object$/);
    }
    assert.match(inWords({ type: 'ADDED', object: {} }), /has no resourceVersion$/);
    const long = inWords({ type: 'X'.repeat(99), object });
    assert.equal(long, `MALFORMED: unknown watch event type "${'X'.repeat(32)}"`);
  });
});

describe('the version of an object', () => {
  it('is empty if it has none', () => {
    assert.equal(versionOf(object), '7');
    for (const other of [undefined, {}, { metadata: 7 }, { metadata: {} }]) {
      assert.equal(versionOf(other), '');
    }
  });
});
