import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EventAggregator, windowMs } from '../../../../src/nmi/kube/events/event-aggregator.ts';
import type { EventDraft, ObjectReference } from '../../../../src/nmi/kube/events/event.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function podOf(name: string, namespace = 'shop'): ObjectReference {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid: `uid of ${namespace}/${name}` };
}

function draftOf(regarding: ObjectReference): () => EventDraft {
  return () => ({
    regarding,
    related: undefined,
    type: 'Warning',
    reason: 'Refused',
    action: 'GetToken',
    note: '',
  });
}

function open() {
  const clock = new HandClock();
  const events = new EventAggregator(clock);
  const record = (pod: ObjectReference, kind: string) => events.record(pod, kind, draftOf(pod));
  /** Takes and finishes all Events that may be written now; `namespace/pod kind`. */
  const writeAll = (): readonly string[] => {
    const written: string[] = [];
    for (let entry = events.next(); entry !== undefined; entry = events.next()) {
      const { draft, key } = entry;
      const { namespace, name } = draft.regarding;
      written.push(`${namespace}/${name} ${key.split(' ').slice(-1).join('')}`);
      events.done(entry);
    }
    return written;
  };
  return { clock, events, record, writeAll };
}

describe('the Events of one pod', () => {
  it('are one for each reason, however often it is refused', () => {
    const { events, record, writeAll } = open();
    assert.equal(record(podOf('a'), 'x'), true);
    for (let count = 0; count < 5_000; count++) assert.equal(record(podOf('a'), 'x'), false);
    record(podOf('a'), 'y');
    assert.deepEqual(writeAll(), ['shop/a x', 'shop/a y']);
    for (let count = 0; count < 5_000; count++) record(podOf('a'), 'x');
    assert.deepEqual(writeAll(), []);
    assert.equal(events.dropped, 0);
  });

  it('are written again after ten minutes, if it is refused again', () => {
    const { clock, events, record, writeAll } = open();
    record(podOf('a'), 'x');
    record(podOf('a'), 'y');
    clock.advance(1_000);
    writeAll();
    clock.advance(windowMs - 1);
    events.sweep();
    assert.equal(record(podOf('a'), 'x'), false);
    clock.advance(1);
    events.sweep();
    assert.equal(record(podOf('a'), 'x'), true);
    assert.deepEqual(writeAll(), ['shop/a x']);
    assert.equal(events.dropped, 0);
  });

  it('are of at most eight kinds', () => {
    const { events, record } = open();
    const taken = Array.from({ length: 12 }, (_, kind) => record(podOf('a'), String(kind)));
    assert.deepEqual([taken.filter(Boolean).length, events.dropped], [8, 4]);
    assert.equal(record(podOf('b'), 'x'), true);
  });

  it('belong to its uid: a pod of the same name is another', () => {
    const { record } = open();
    record(podOf('a'), 'x');
    assert.equal(record({ ...podOf('a'), uid: 'other' }, 'x'), true);
  });
});

describe('the Events of a node', () => {
  it('are ten in any minute, and one for each of 200 pods with 5,000 refusals', () => {
    const { clock, events, record, writeAll } = open();
    for (let refusal = 0; refusal < 5_000; refusal++) record(podOf(`p${refusal % 200}`), 'x');
    assert.equal(writeAll().length, 10);
    clock.advance(59_999);
    assert.equal(writeAll().length, 0);
    assert.equal(events.waitMs, 1);
    const written = new Set<string>();
    for (let minute = 0; minute < 9; minute++) {
      clock.advance(60_000);
      const now = writeAll();
      assert.equal(now.length, 10);
      for (const each of now) written.add(each);
    }
    assert.equal(written.size, 90, 'each for another pod');
  });

  it('are written for all namespaces in turn, and for the pods of one in turn', () => {
    const { record, writeAll } = open();
    for (let pod = 0; pod < 60; pod++) {
      for (let kind = 0; kind < 8; kind++) record(podOf(`p${pod}`, 'hostile'), String(kind));
    }
    record(podOf('victim'), 'x');
    record(podOf('other', 'hostile'), 'x');
    assert.deepEqual(writeAll().slice(0, 4), [
      'hostile/p0 0',
      'shop/victim x',
      'hostile/p1 0',
      'hostile/p2 0',
    ]);
  });

  it('leave room to other namespaces when one uses all it can', () => {
    const { events, record } = open();
    let taken = 0;
    for (let pod = 0; pod < 1_000; pod++) {
      for (let kind = 0; kind < 8; kind++) {
        if (record(podOf(`p${pod}`, 'hostile'), String(kind))) taken += 1;
      }
    }
    assert.ok(taken >= 500 && taken <= 512, String(taken));
    assert.equal(events.dropped, 8_000 - taken);
    for (let pod = 0; pod < 200; pod++) assert.equal(record(podOf(`p${pod}`), 'x'), true);
  });

  it('are dropped without a turn in ten minutes, and start again', () => {
    const { clock, events, record } = open();
    record(podOf('a'), 'x');
    clock.advance(windowMs);
    events.sweep();
    assert.equal(events.dropped, 1);
    assert.equal(record(podOf('a'), 'x'), true);
  });

  it('are retried at their next turn', () => {
    const { events, record } = open();
    record(podOf('a'), 'x');
    assert.equal(events.waitMs, 0);
    const entry = events.next();
    assert.ok(entry !== undefined);
    assert.equal(events.next(), undefined);
    assert.equal(events.waitMs, undefined, 'nothing is written until there is something to write');
    events.again(entry);
    assert.equal(events.next(), entry);
  });
});
