import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, stringAt } from '../../../../src/base/json-value.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { EventAggregator, windowMs } from '../../../../src/nmi/kube/events/event-aggregator.ts';
import { EventWriter } from '../../../../src/nmi/kube/events/event-writer.ts';
import {
  eventNameOf,
  eventPath,
  eventReasonOf,
  noteOf,
  renderEvent,
  type EventDraft,
  type ObjectReference,
} from '../../../../src/nmi/kube/events/event.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { keptLog } from './kube-test-bed.ts';

function podOf(name: string, namespace = 'shop'): ObjectReference {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid: `uid of ${namespace}/${name}` };
}

function draftOf(regarding: ObjectReference): EventDraft {
  return {
    regarding,
    related: undefined,
    type: 'Warning',
    reason: 'Refused',
    action: 'GetToken',
    note: 'why',
  };
}

describe('an Event', () => {
  const pod = podOf('app');

  it('has the fields that the API server requires, and times with six decimals', () => {
    const origin = { name: 'app.1', atWallMs: Date.UTC(2026, 0, 2), instance: 'n'.repeat(253) };
    assert.deepEqual(renderEvent(draftOf(pod), origin), {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: 'app.1', namespace: 'shop' },
      eventTime: '2026-01-02T00:00:00.000000Z',
      reportingController: 'entra-pod-identity/nmi',
      reportingInstance: 'n'.repeat(128),
      type: 'Warning',
      reason: 'Refused',
      action: 'GetToken',
      note: 'why',
      regarding: pod,
    });
    const related = { ...pod, kind: 'AzureIdentity' };
    assert.equal(renderEvent({ ...draftOf(pod), related }, origin)['related'], related);
  });

  it('has a reason, a name and a path that the API server accepts', () => {
    assert.equal(eventReasonOf('no_binding_label'), 'NoBindingLabel');
    assert.equal(eventNameOf(pod, '0af'), 'app.0af');
    const name = `${'a'.repeat(219)}-${'b'.repeat(33)}`;
    assert.equal(eventNameOf({ ...pod, name }, '0af'), `${'a'.repeat(219)}.0af`);
    assert.equal(eventPath(pod), '/apis/events.k8s.io/v1/namespaces/shop/events');
  });

  it('has a note of one line without control characters, with the fix at its end', () => {
    assert.equal(noteOf('It failed.', 'Repair it.'), 'It failed. Fix: Repair it.');
    assert.equal(noteOf('It works.', ''), 'It works.');
    assert.equal(noteOf('a\nb\u001B[31m\u202Ec\u2028', ''), 'a?b?[31m?c?');
    const long = noteOf('x'.repeat(2_000), 'Repair it.', ' It lasts.');
    assert.match(long, /^x+\.\.\. It lasts\. Fix: Repair it\.$/);
    assert.equal(long.length, 1_024);
  });

  it('has a note of at most 1,024 bytes, with the whole fix', () => {
    for (const letter of ['a', 'ä', '’', '🙂']) {
      for (const length of [900, 1_005, 1_006, 1_007, 1_008, 1_100, 5_000]) {
        const note = noteOf(letter.repeat(length), 'Repair it.');
        const bytes = Buffer.byteLength(note);
        assert.ok(bytes > 900 && bytes <= 1_024, `${letter} ${length}`);
        assert.ok(note.endsWith(' Fix: Repair it.') && !note.includes('\u{FFFD}'));
      }
    }
    const text = 'a'.repeat(1_024);
    assert.equal(noteOf(text, ''), text);
  });
});

describe('the Events of one pod', () => {
  it('are one for each reason and uid, however often it is refused', () => {
    const { events, record, writeAll } = openAggregator();
    assert.equal(record(podOf('a'), 'x'), true);
    for (let count = 0; count < 5_000; count++) assert.equal(record(podOf('a'), 'x'), false);
    record(podOf('a'), 'y');
    assert.deepEqual(writeAll(), ['shop/a x', 'shop/a y']);
    for (let count = 0; count < 5_000; count++) record(podOf('a'), 'x');
    assert.deepEqual(writeAll(), []);
    assert.equal(events.dropped, 0);
    assert.equal(record({ ...podOf('a'), uid: 'other' }, 'x'), true, 'a pod of the same name');
  });

  it('are written again after ten minutes, if it is refused again', () => {
    const { clock, events, record, writeAll } = openAggregator();
    record(podOf('a'), 'x');
    record(podOf('a'), 'y');
    clock.advance(1_000);
    writeAll();
    for (const [ms, isNew] of [
      [windowMs - 1, false],
      [1, true],
    ] as const) {
      clock.advance(ms);
      events.sweep();
      assert.equal(record(podOf('a'), 'x'), isNew);
    }
    assert.deepEqual(writeAll(), ['shop/a x']);
    assert.equal(events.dropped, 0);
  });

  it('are of at most eight kinds', () => {
    const { events, record } = openAggregator();
    const taken = Array.from({ length: 12 }, (_, kind) => record(podOf('a'), String(kind)));
    assert.deepEqual([taken.filter(Boolean).length, events.dropped], [8, 4]);
    assert.equal(record(podOf('b'), 'x'), true);
  });
});

describe('the Events of a node', () => {
  it('are ten in any minute, and one for each of 200 pods with 5,000 refusals', () => {
    const { clock, events, record, writeAll } = openAggregator();
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
    const { record, writeAll } = openAggregator();
    for (let pod = 0; pod < 60; pod++) {
      for (let kind = 0; kind < 8; kind++) record(podOf(`p${pod}`, 'hostile'), String(kind));
    }
    record(podOf('victim'), 'x');
    record(podOf('other', 'hostile'), 'x');
    const first = ['hostile/p0 0', 'shop/victim x', 'hostile/p1 0', 'hostile/p2 0'];
    assert.deepEqual(writeAll().slice(0, 4), first);
  });

  it('leave room to other namespaces when one uses all it can', () => {
    const { events, record } = openAggregator();
    let taken = 0;
    for (let refusal = 0; refusal < 8_000; refusal++) {
      if (record(podOf(`p${refusal >> 3}`, 'hostile'), String(refusal & 7))) taken += 1;
    }
    assert.ok(taken >= 500 && taken <= 512, String(taken));
    assert.equal(events.dropped, 8_000 - taken);
    for (let pod = 0; pod < 200; pod++) assert.equal(record(podOf(`p${pod}`), 'x'), true);
  });

  it('are dropped without a turn in ten minutes, and start again', () => {
    const { clock, events, record } = openAggregator();
    record(podOf('a'), 'x');
    clock.advance(windowMs);
    events.sweep();
    assert.equal(events.dropped, 1);
    assert.equal(record(podOf('a'), 'x'), true);
  });

  it('are retried at their next turn', () => {
    const { events, record } = openAggregator();
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

function openAggregator() {
  const clock = new HandClock();
  const events = new EventAggregator(clock);
  return {
    clock,
    events,
    record: (pod: ObjectReference, kind: string) => events.record(pod, kind, () => draftOf(pod)),
    /** Takes and finishes all Events that may be written now; `namespace/pod kind`. */
    writeAll: (): readonly string[] => {
      const written: string[] = [];
      for (let entry = events.next(); entry !== undefined; entry = events.next()) {
        const { draft, key } = entry;
        const { namespace, name } = draft.regarding;
        written.push(`${namespace}/${name} ${key.split(' ').slice(-1).join('')}`);
        events.done(entry);
      }
      return written;
    },
  };
}

/** A writer with an API server that returns `failure`, or accepts the Event. */
function openWriter() {
  const clock = new HandClock();
  const log = keptLog();
  const calls: string[] = [];
  const names: string[] = [];
  const server: { failure: KubeError | undefined; closed: string; hangs: boolean } = {
    failure: undefined,
    closed: 'none',
    hangs: false,
  };
  const writer = new EventWriter({
    client: {
      postJson: async (path, body) => {
        const event = asRecord(body);
        names.push(stringAt(asRecord(event?.['metadata']), 'name'));
        calls.push(stringAt(asRecord(event?.['regarding']), 'name'));
        if (server.hangs) await new Promise(() => undefined);
        if (path.includes(`/${server.closed}/`)) throw errors.forbidden;
        if (server.failure !== undefined) throw server.failure;
        return {};
      },
    },
    clock,
    instance: 'node-1',
    random: () => 0,
    log,
  });
  return {
    clock,
    log,
    writer,
    names,
    server,
    record: (pod: ObjectReference, kind = 'x', sharedForMs?: number): boolean =>
      writer.record(pod, kind, () => ({
        ...draftOf(pod),
        ...(sharedForMs === undefined ? {} : { sharedForMs }),
      })),
    /** Lets time pass in small steps, so that writes end in between. */
    pass: async (ms: number): Promise<void> => {
      for (let step = 0; step < 20; step++) {
        await new Promise(setImmediate);
        clock.advance(ms / 20);
      }
      await new Promise(setImmediate);
    },
    takeCalls: () => calls.splice(0),
    counted: (): Readonly<Record<string, number>> =>
      Object.fromEntries(
        writer.samples().map(({ labels, value }) => [labels?.['outcome'] ?? '', value]),
      ),
  };
}

const errors = {
  exists: new KubeError('SERVER', 'exists', { status: 409 }),
  forbidden: new KubeError('FORBIDDEN', 'no', { status: 403 }),
  invalid: new KubeError('SERVER', 'invalid', { status: 422 }),
  missing: new KubeError('NOT_FOUND', 'no', { status: 404 }),
  down: new KubeError('NETWORK', 'down'),
  throttled: (retryAfterMs: number) =>
    new KubeError('THROTTLED', 'slow', { status: 429, retryAfterMs }),
};

describe('the writer of Events', () => {
  it('writes the first at once, and one of its repetitions ten minutes later', async () => {
    const { record, pass, takeCalls, counted } = openWriter();
    record(podOf('a'));
    await pass(0);
    assert.deepEqual(takeCalls(), ['a']);
    for (let count = 0; count < 100; count++) record(podOf('a'));
    await pass(1.5 * windowMs);
    assert.deepEqual(takeCalls(), []);
    for (let count = 0; count < 100; count++) record(podOf('a'));
    await pass(0);
    assert.deepEqual(takeCalls(), ['a']);
    assert.deepEqual(counted(), { written: 2, failed: 0, dropped: 0 });
  });

  it('writes one at a time, and callers never wait for it', async () => {
    const { record, pass, takeCalls, server } = openWriter();
    server.hangs = true;
    for (let pod = 0; pod < 5; pod++) record(podOf(`p${pod}`));
    await pass(1_000);
    assert.deepEqual(takeCalls(), ['p0']);
  });

  it('continues after a refusal, which it logs once', async () => {
    const { record, pass, takeCalls, log, server, counted } = openWriter();
    server.closed = 'closed';
    for (let pod = 0; pod < 3; pod++) record(podOf(`p${pod}`, 'closed'));
    record(podOf('a'));
    await pass(1_000);
    assert.deepEqual(takeCalls().toSorted(), ['a', 'p0', 'p1', 'p2']);
    const line = 'failed to write an Event; further failures with this code are counted only';
    assert.deepEqual(
      log.lines.map(({ message }) => message),
      [line],
    );
    assert.deepEqual(counted(), { written: 1, failed: 3, dropped: 0 });
  });

  it('backs off for as long as the API server requires, up to three tries', async () => {
    const { record, pass, takeCalls, names, server, counted } = openWriter();
    server.failure = errors.throttled(20_000);
    record(podOf('a'));
    for (const [ms, tries] of [
      [0, 1],
      [19_000, 0],
      [2_000, 1],
      [windowMs / 2, 1],
    ] as const) {
      await pass(ms);
      assert.equal(takeCalls().length, tries);
    }
    assert.equal(new Set(names).size, 1, 'all tries have one name');
    assert.match(names[0] ?? '', /^a\.[0-9a-f]{16}$/);
    assert.deepEqual(counted(), { written: 0, failed: 1, dropped: 0 });
  });

  for (const [failure, isRetried] of [
    [new KubeError('SERVER', 'down', { status: 500 }), true],
    [new KubeError('SERVER', 'down', { status: 503 }), true],
    [errors.down, true],
    [errors.missing, false],
    [errors.invalid, false],
    [errors.forbidden, false],
  ] as const) {
    const { code, status } = failure;
    it(`${isRetried ? 'retries' : 'does not retry'} after ${code} ${status ?? ''}`, async () => {
      const { record, pass, takeCalls, server, counted } = openWriter();
      server.failure = failure;
      record(podOf('a'));
      await pass(0);
      server.failure = undefined;
      record(podOf('a'));
      await pass(windowMs / 2);
      assert.equal(takeCalls().length, isRetried ? 2 : 1);
      assert.equal(counted()['failed'], isRetried ? 0 : 1);
    });
  }

  it('takes an existing Event for its own when an earlier try seemed to fail', async () => {
    const { record, pass, server, counted } = openWriter();
    server.failure = new KubeError('TIMEOUT', 'late');
    record(podOf('a'));
    await pass(0);
    server.failure = errors.exists;
    await pass(10_000);
    assert.deepEqual(counted(), { written: 1, failed: 0, dropped: 0 });
  });

  it('writes one for all nodes in a period, of which the first to come has the place', async () => {
    const nodes = [openWriter(), openWriter()] as const;
    const minuteMs = 60_000;
    for (const { record, pass, server, counted } of nodes) {
      assert.equal(record(podOf('a'), 'refused', minuteMs), true);
      assert.equal(record(podOf('a'), 'refused', minuteMs), false);
      await pass(0);
      server.failure = errors.exists;
      record(podOf('a'), 'accepted', minuteMs);
      await pass(0);
      assert.deepEqual(counted(), { written: 2, failed: 0, dropped: 0 });
      server.failure = undefined;
      await pass(minuteMs + 30_000);
      assert.equal(record(podOf('a'), 'refused', minuteMs), true, 'a later period');
      await pass(0);
    }
    const [{ names, record, pass }, other] = nodes;
    assert.equal(new Set(names).size, 3, 'by kind and period');
    assert.deepEqual(names, other.names);
    record({ ...podOf('a'), uid: 'another' }, 'refused', minuteMs);
    await pass(0);
    assert.equal(new Set(names).size, 4, 'by uid');
  });

  it('backs off anew after a success', async () => {
    const { clock, record, pass, server } = openWriter();
    for (const name of ['a', 'b']) {
      server.failure = errors.down;
      record(podOf(name));
      await new Promise(setImmediate);
      assert.equal(clock.armed[0], 500);
      server.failure = undefined;
      await pass(20_000);
    }
  });

  for (const [what, last] of [
    ['was written', undefined],
    ['exists already', errors.exists],
    ['was refused', errors.forbidden],
  ] as const) {
    it(`repeats none for ten minutes after one ${what}, late as that was`, async () => {
      const { record, pass, takeCalls, server } = openWriter();
      server.failure = errors.throttled(290_000);
      record(podOf('a'));
      await pass(0);
      server.failure = last;
      await pass(300_000);
      assert.equal(takeCalls().length, 2);
      await pass(windowMs - 30_000);
      record(podOf('a'));
      await pass(0);
      assert.deepEqual(takeCalls(), []);
    });
  }

  it('stops at its disposal, during a write and between tries', async () => {
    const running = openWriter();
    for (const name of ['a', 'b']) running.record(podOf(name));
    running.writer[Symbol.dispose]();
    await running.pass(1_000);
    assert.deepEqual(running.takeCalls(), ['a']);
    const { clock, writer, record, pass, takeCalls, server } = openWriter();
    server.failure = errors.down;
    record(podOf('a'));
    await pass(0);
    writer[Symbol.dispose]();
    record(podOf('b'));
    await pass(windowMs * 2);
    assert.deepEqual([takeCalls(), clock.armed], [['a'], []]);
  });
});
