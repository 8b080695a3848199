import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { windowMs } from '../../../../src/nmi/kube/events/event-aggregator.ts';
import { EventWriter } from '../../../../src/nmi/kube/events/event-writer.ts';
import type { ObjectReference } from '../../../../src/nmi/kube/events/event.ts';
import { asRecord, stringAt } from '../../../../src/base/json-value.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function podOf(name: string, namespace = 'shop'): ObjectReference {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid: `uid of ${namespace}/${name}` };
}

/** A writer with an API server that returns the failure of `fail`, or accepts the Event. */
function open() {
  const clock = new HandClock();
  const calls: string[] = [];
  const names: string[] = [];
  const lines: string[] = [];
  const state: { fail: ((path: string) => KubeError | undefined) | undefined; hang: boolean } = {
    fail: undefined,
    hang: false,
  };
  const answer = async (call: string, path: string): Promise<unknown> => {
    calls.push(call);
    if (state.hang) await new Promise(() => undefined);
    const failure = state.fail?.(path);
    if (failure !== undefined) throw failure;
    return {};
  };
  const log = (_fields: unknown, message: string): void => void lines.push(message);
  const writer = new EventWriter({
    client: {
      postJson: (path, body) => {
        const event = asRecord(body);
        names.push(stringAt(asRecord(event?.['metadata']), 'name'));
        return answer(`create ${stringAt(asRecord(event?.['regarding']), 'name')}`, path);
      },
    },
    clock,
    instance: 'node-1',
    random: () => 0,
    log: { debug: log, info: log, warn: log, error: log },
  });
  const record = (pod: ObjectReference, kind = 'x', sharedForMs?: number): boolean =>
    writer.record(pod, kind, () => ({
      ...(sharedForMs === undefined ? {} : { sharedForMs }),
      related: undefined,
      type: 'Warning',
      reason: 'Refused',
      action: 'GetToken',
      note: '',
    }));
  /** Lets time pass in small steps, so that writes end in between. */
  const pass = async (ms: number): Promise<void> => {
    for (let step = 0; step < 20; step++) {
      await new Promise(setImmediate);
      clock.advance(ms / 20);
    }
    await new Promise(setImmediate);
  };
  const counted = (): Readonly<Record<string, number>> =>
    Object.fromEntries(
      writer.samples().map(({ labels, value }) => [labels?.['outcome'] ?? '', value]),
    );
  const takeCalls = () => calls.splice(0);
  return { clock, writer, record, pass, takeCalls, names, lines, state, counted };
}

describe('the writer of Events', () => {
  it('writes the first at once, and one of its repetitions ten minutes later', async () => {
    const { record, pass, takeCalls, counted } = open();
    record(podOf('a'));
    await pass(0);
    assert.deepEqual(takeCalls(), ['create a']);
    for (let count = 0; count < 100; count++) record(podOf('a'));
    await pass(windowMs / 2);
    assert.deepEqual(takeCalls(), []);
    await pass(windowMs);
    for (let count = 0; count < 100; count++) record(podOf('a'));
    await pass(0);
    assert.deepEqual(takeCalls(), ['create a']);
    assert.deepEqual(counted(), { written: 2, failed: 0, dropped: 0 });
  });

  it('writes one at a time, and callers never wait for it', async () => {
    const { record, pass, takeCalls, state } = open();
    state.hang = true;
    for (let pod = 0; pod < 5; pod++) record(podOf(`p${pod}`));
    await pass(1_000);
    assert.deepEqual(takeCalls(), ['create p0']);
  });

  it('continues after a refusal, which it logs once', async () => {
    const { record, pass, takeCalls, lines, state, counted } = open();
    state.fail = (path) =>
      path.includes('/closed/') ? new KubeError('FORBIDDEN', 'no', { status: 403 }) : undefined;
    for (let pod = 0; pod < 3; pod++) record(podOf(`p${pod}`, 'closed'));
    record(podOf('a'));
    await pass(1_000);
    assert.deepEqual(takeCalls().toSorted(), ['create a', 'create p0', 'create p1', 'create p2']);
    assert.deepEqual(lines, [
      'failed to write an Event; further failures with this code are counted only',
    ]);
    assert.deepEqual(counted(), { written: 1, failed: 3, dropped: 0 });
    for (let count = 0; count < 100; count++) record(podOf('p0', 'closed'));
    await pass(windowMs / 2);
    assert.deepEqual(takeCalls(), [], 'nothing is tried again in the ten minutes');
  });

  it('backs off while the API server is down, for as long as it requires, up to three tries', async () => {
    const { record, pass, takeCalls, names, state, counted } = open();
    state.fail = () => new KubeError('THROTTLED', 'slow', { status: 429, retryAfterMs: 20_000 });
    record(podOf('a'));
    await pass(0);
    assert.deepEqual(takeCalls(), ['create a']);
    await pass(19_000);
    assert.deepEqual(takeCalls(), []);
    await pass(2_000);
    assert.deepEqual(takeCalls(), ['create a']);
    await pass(windowMs / 2);
    assert.deepEqual(takeCalls(), ['create a']);
    assert.equal(new Set(names).size, 1, 'all tries have one name');
    assert.match(names[0] ?? '', /^a\.[0-9a-f]{16}$/);
    assert.deepEqual(counted(), { written: 0, failed: 1, dropped: 0 });
    for (const [at, failure] of [
      new KubeError('SERVER', 'down', { status: 500 }),
      new KubeError('SERVER', 'down', { status: 503 }),
      new KubeError('NETWORK', 'down'),
    ].entries()) {
      state.fail = () => failure;
      record(podOf(`p${at}`));
      await pass(0);
      state.fail = undefined;
      await pass(400_000);
      assert.deepEqual(takeCalls(), [`create p${at}`, `create p${at}`]);
    }
  });

  it('takes an existing Event for its own when an earlier try seemed to fail', async () => {
    const { record, pass, state, counted } = open();
    state.fail = () => new KubeError('TIMEOUT', 'late');
    record(podOf('a'));
    await pass(0);
    state.fail = () => new KubeError('SERVER', 'exists', { status: 409 });
    await pass(10_000);
    assert.deepEqual(counted(), { written: 1, failed: 0, dropped: 0 });
  });

  it('writes one for all nodes in a period, of which the first to come has the place', async () => {
    const nodes = [open(), open()];
    const minuteMs = 60_000;
    for (const { record, pass, state, counted } of nodes) {
      assert.equal(record(podOf('a'), 'refused', minuteMs), true);
      assert.equal(record(podOf('a'), 'refused', minuteMs), false);
      await pass(0);
      state.fail = () => new KubeError('SERVER', 'exists', { status: 409 });
      record(podOf('a'), 'accepted', minuteMs);
      await pass(0);
      assert.deepEqual(counted(), { written: 2, failed: 0, dropped: 0 });
      state.fail = undefined;
      await pass(minuteMs + 30_000);
      assert.equal(record(podOf('a'), 'refused', minuteMs), true, 'a later period');
      await pass(0);
    }
    const [one, other] = nodes.map(({ names }) => names);
    assert.equal(new Set(one).size, 3, 'by kind and period');
    assert.deepEqual(one, other);
    const another = { ...podOf('a'), uid: 'another' };
    nodes[0]?.record(another, 'refused', minuteMs);
    await nodes[0]?.pass(0);
    assert.equal(new Set(nodes[0]?.names).size, 4, 'by uid');
  });

  it('backs off anew after a success', async () => {
    const { clock, record, pass, state } = open();
    const pauses: number[] = [];
    for (const name of ['a', 'b']) {
      state.fail = () => new KubeError('NETWORK', 'down');
      record(podOf(name));
      await new Promise(setImmediate);
      pauses.push(clock.armed[0] ?? 0);
      state.fail = undefined;
      await pass(20_000);
    }
    assert.deepEqual(pauses, [500, 500]);
  });

  for (const [what, last] of [
    ['was written', undefined],
    ['exists already', new KubeError('SERVER', 'exists', { status: 409 })],
    ['was refused', new KubeError('FORBIDDEN', 'no', { status: 403 })],
  ] as const) {
    it(`is not repeated for ten minutes after one ${what}, late as that was`, async () => {
      const { record, pass, takeCalls, state } = open();
      const retryAfterMs = 290_000;
      state.fail = () => new KubeError('THROTTLED', 'slow', { status: 429, retryAfterMs });
      record(podOf('a'));
      await pass(0);
      state.fail = () => last;
      await pass(300_000);
      assert.deepEqual(takeCalls(), ['create a', 'create a']);
      await pass(windowMs - 30_000);
      record(podOf('a'));
      await pass(0);
      assert.deepEqual(takeCalls(), []);
    });
  }

  it('does not retry an invalid one, nor one in a missing namespace', async () => {
    const { record, pass, takeCalls, state, counted } = open();
    for (const [name, failure] of [
      ['a', new KubeError('NOT_FOUND', 'no', { status: 404 })],
      ['b', new KubeError('SERVER', 'invalid', { status: 422 })],
    ] as const) {
      state.fail = () => failure;
      record(podOf(name));
      await pass(100_000);
      assert.deepEqual(takeCalls(), [`create ${name}`]);
    }
    assert.equal(counted()['failed'], 2);
  });

  it('starts no other write when it is disposed during one', async () => {
    const { writer, record, pass, takeCalls } = open();
    record(podOf('a'));
    record(podOf('b'));
    writer[Symbol.dispose]();
    await pass(1_000);
    assert.deepEqual(takeCalls(), ['create a']);
  });

  it('is stopped after its disposal, with no timer', async () => {
    const { clock, writer, record, pass, takeCalls, state } = open();
    state.fail = () => new KubeError('NETWORK', 'down');
    record(podOf('a'));
    await pass(0);
    takeCalls();
    writer[Symbol.dispose]();
    record(podOf('b'));
    await pass(windowMs * 2);
    assert.deepEqual(takeCalls(), []);
    assert.deepEqual(clock.armed, []);
  });
});
