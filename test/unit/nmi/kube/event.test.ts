import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  eventNameOf,
  eventPath,
  eventReasonOf,
  noteOf,
  renderEvent,
  type EventDraft,
} from '../../../../src/nmi/kube/events/event.ts';

const pod = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'app', uid: 'u' };
const draft: EventDraft = {
  regarding: pod,
  related: undefined,
  type: 'Warning',
  reason: 'BindingMissing',
  action: 'GetToken',
  note: 'why',
};

describe('an Event', () => {
  it('has the fields that the API server requires, and times with six decimals', () => {
    const origin = { name: 'app.1', atWallMs: Date.UTC(2026, 0, 2), instance: 'n'.repeat(253) };
    assert.deepEqual(renderEvent(draft, origin), {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: 'app.1', namespace: 'shop' },
      eventTime: '2026-01-02T00:00:00.000000Z',
      reportingController: 'entra-pod-identity/nmi',
      reportingInstance: 'n'.repeat(128),
      type: 'Warning',
      reason: 'BindingMissing',
      action: 'GetToken',
      note: 'why',
      regarding: pod,
    });
    const related = { ...pod, kind: 'AzureIdentity' };
    assert.equal(renderEvent({ ...draft, related }, origin)['related'], related);
  });

  it('has a reason in upper camel case', () => {
    assert.equal(eventReasonOf('no_binding_label'), 'NoBindingLabel');
  });

  it('has a name that the API server accepts, however long the name of its object', () => {
    assert.equal(eventNameOf(pod, '0af'), 'app.0af');
    const name = `${'a'.repeat(219)}-${'b'.repeat(33)}`;
    assert.equal(eventNameOf({ ...pod, name }, '0af'), `${'a'.repeat(219)}.0af`);
  });

  it('is in the namespace of its object', () => {
    assert.equal(eventPath(pod), '/apis/events.k8s.io/v1/namespaces/shop/events');
  });
});

describe('a note', () => {
  it('has the fix at its end', () => {
    assert.equal(noteOf('It failed.', 'Repair it.'), 'It failed. Fix: Repair it.');
    assert.equal(noteOf('It works.', ''), 'It works.');
    const long = noteOf('x'.repeat(2_000), 'Repair it.', ' It lasts.');
    assert.match(long, /^x+\.\.\. It lasts\. Fix: Repair it\.$/);
    assert.equal(long.length, 1_024);
  });

  it('is at most 1,024 bytes, with the whole fix', () => {
    for (const letter of ['a', 'ä', '’', '🙂']) {
      for (const length of [900, 1_005, 1_006, 1_007, 1_008, 1_100, 5_000]) {
        const note = noteOf(letter.repeat(length), 'Repair it.');
        assert.ok(Buffer.byteLength(note) <= 1_024, `${letter} ${length}`);
        assert.ok(Buffer.byteLength(note) > 900);
        assert.ok(note.endsWith(' Fix: Repair it.'));
        assert.ok(!note.includes('\u{FFFD}'));
      }
    }
  });

  it('is whole if it is just short enough', () => {
    const text = 'a'.repeat(1_024);
    assert.equal(noteOf(text, ''), text);
  });

  it('is one line without control characters', () => {
    assert.equal(noteOf('a\nb\u001B[31m\u202Ec\u2028', ''), 'a?b?[31m?c?');
  });
});
