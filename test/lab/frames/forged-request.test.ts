import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { forgeRequest, type Wire } from '../../../lab/frames/forged-request.ts';
import {
  readSegment,
  renderSegment,
  tcpFlags,
  type Segment,
} from '../../../lab/frames/tcp-frame.ts';

const ends = {
  fromMac: '0a:58:0a:f4:00:03',
  toMac: '0a:58:0a:f4:00:01',
  fromIp: '10.244.0.2',
  fromPort: 41_001,
  toIp: '169.254.169.254',
  toPort: 80,
};
const segment: Segment = {
  ...ends,
  sequence: 1_000,
  acknowledge: 0,
  flags: tcpFlags.syn,
  data: Buffer.alloc(0),
};

describe('a frame made by hand', () => {
  it('is, byte for byte, as in the standards', () => {
    // The header checksums were calculated by another program.
    assert.equal(
      renderSegment(segment).toString('hex'),
      [
        ...['0a580af40001', '0a580af40003', '0800'],
        ...['4500002800000000', '4006', '1bde', '0af40002', 'a9fea9fe'],
        ...['a0290050', '000003e8', '00000000', '5002ffff', 'ac8e', '0000'],
      ].join(''),
    );
  });

  it('is read as it was made, whatever it contains', () => {
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    const made = fc.record({
      sequence: u32,
      acknowledge: u32,
      flags: fc.integer({ min: 0, max: 0x3f }),
      data: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    });
    fc.assert(
      fc.property(made, (fields) => {
        const one = { ...segment, ...fields };
        assert.deepEqual(readSegment(renderSegment(one)), one);
      }),
    );
  });

  it('is read as no segment if it is anything else, and never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(), fc.nat(255), (bytes, at, byte) => {
        readSegment(Buffer.from(bytes));
        const frame = renderSegment({ ...segment, data: Buffer.from('some data') });
        frame[at % frame.length] = byte;
        readSegment(frame);
        readSegment(frame.subarray(0, at % frame.length));
      }),
    );
    assert.equal(readSegment(Buffer.alloc(60)), undefined);
  });

  it('refuses invalid addresses', () => {
    assert.throws(() => renderSegment({ ...segment, fromMac: '' }), TypeError);
    assert.throws(() => renderSegment({ ...segment, toIp: '::1' }), TypeError);
  });
});

/** The other end, with its next frames and the frames that it received. */
function openPeer(answers: readonly Partial<Segment>[]) {
  const sent: Segment[] = [];
  const queue = answers.map((fields) => ({
    fromMac: ends.toMac,
    toMac: ends.fromMac,
    fromIp: ends.toIp,
    toIp: ends.fromIp,
    fromPort: ends.toPort,
    toPort: ends.fromPort,
    sequence: 0,
    acknowledge: 0,
    flags: tcpFlags.ack,
    data: Buffer.alloc(0),
    ...fields,
  }));
  const wire: Wire = { send: (one) => sent.push(one), receive: () => queue.shift() };
  return { wire, sent };
}

const opening = { flags: tcpFlags.syn | tcpFlags.ack, sequence: 0xffff_ffff };
const say = (sequence: number, text: string, flags = 0) => ({
  sequence,
  data: Buffer.from(text),
  flags: tcpFlags.ack | flags,
});

describe('a request over a connection made by hand', () => {
  it('assembles the answer, across the wrap of sequence numbers, without duplicates', () => {
    const foreign = { ...say(3, 'not ours'), toPort: 9 };
    const { wire, sent } = openPeer([
      ...[opening, {}, say(0, 'one '), foreign, say(0, 'one '), say(4, 'two', tcpFlags.fin)],
    ]);
    const outcome = forgeRequest(wire, ends, 'GET');
    assert.deepEqual(outcome, { kind: 'answered', text: 'one two' });
    const told = sent.map(({ flags, sequence, acknowledge, data }) => [
      ...[flags, sequence, acknowledge >>> 0, data.toString()],
    ]);
    assert.deepEqual(told, [
      [tcpFlags.syn, 1_000, 0, ''],
      [tcpFlags.ack, 1_001, 0, ''],
      [tcpFlags.ack | tcpFlags.push, 1_001, 0, 'GET'],
      [tcpFlags.ack, 1_004, 4, ''],
      [tcpFlags.ack, 1_004, 8, ''],
      [tcpFlags.ack | tcpFlags.fin, 1_004, 8, ''],
    ]);
  });

  it('reports how it failed', () => {
    const reset = { flags: tcpFlags.rst | tcpFlags.ack };
    const failures: readonly [readonly Partial<Segment>[], string][] = [
      [[], 'NO_ANSWER'],
      [[reset], 'REFUSED'],
      [[opening, reset], 'RESET'],
      [[opening], 'NO_ANSWER'],
    ];
    for (const [answers, why] of failures) {
      const { wire } = openPeer(answers);
      assert.deepEqual(forgeRequest(wire, ends, 'GET'), { kind: 'failed', why });
    }
  });
});
