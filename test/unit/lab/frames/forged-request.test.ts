import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { forgeRequest } from '../../../../lab/frames/forged-request.ts';
import { openFrameWire } from '../../../../lab/frames/frame-wire.ts';
import {
  readSegment,
  renderSegment,
  tcpFlags,
  type Segment,
} from '../../../../lab/frames/tcp-frame.ts';
import { freshNative } from '../../../../scripts/native.ts';

const { syn, ack, fin, push, rst } = tcpFlags;
const ends = {
  fromMac: '0a:58:0a:f4:00:03',
  toMac: '0a:58:0a:f4:00:01',
  fromIp: '10.244.0.2',
  fromPort: 41_001,
  toIp: '169.254.169.254',
  toPort: 80,
};
const data = Buffer.alloc(0);
const segment: Segment = { ...ends, sequence: 1_000, acknowledge: 0, flags: syn, data };

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

  it('is read as it was made, and as no segment, without an exception, if it is anything else', () => {
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    const made = fc.record({
      sequence: u32,
      acknowledge: u32,
      flags: fc.integer({ min: 0, max: 0x3f }),
      data: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    });
    fc.assert(
      fc.property(made, fc.nat(), fc.nat(255), (fields, at, byte) => {
        const one = { ...segment, ...fields };
        const frame = renderSegment(one);
        assert.deepEqual(readSegment(frame), one);
        readSegment(fields.data);
        frame[at % frame.length] = byte;
        readSegment(frame);
        readSegment(frame.subarray(0, at % frame.length));
      }),
    );
    assert.equal(readSegment(Buffer.alloc(60)), undefined);
  });

  it('refuses invalid addresses, and interfaces that there are not', () => {
    assert.throws(() => renderSegment({ ...segment, fromMac: '' }), TypeError);
    assert.throws(() => renderSegment({ ...segment, toIp: '::1' }), TypeError);
    freshNative();
    for (const name of ['', 'x'.repeat(16), 'lo\0']) {
      assert.throws(() => openFrameWire(name), TypeError, JSON.stringify(name));
    }
    assert.throws(() => openFrameWire('nmi-nowhere'), { code: 'ENODEV' });
  });
});

describe('a request over a connection made by hand', () => {
  const opening = { flags: syn | ack, sequence: 0xffff_ffff };
  const reset = { flags: rst | ack };
  const say = (sequence: number, text: string, flags = 0) => ({
    sequence,
    data: Buffer.from(text),
    flags: ack | flags,
  });

  /** The outcome, and the frames that the other end received. */
  function forge(answers: readonly Partial<Segment>[]) {
    const sent: Segment[] = [];
    const { fromMac, toMac, fromIp, toIp, fromPort, toPort } = ends;
    const back = { fromMac: toMac, toMac: fromMac, fromIp: toIp, toIp: fromIp };
    const ports = { fromPort: toPort, toPort: fromPort };
    const queue = answers.map((fields) => {
      return { ...segment, ...back, ...ports, sequence: 0, flags: ack, ...fields };
    });
    const wire = { send: (one: Segment) => sent.push(one), receive: () => queue.shift() };
    return { outcome: forgeRequest(wire, ends, 'GET'), sent };
  }

  it('assembles the answer, across the wrap of sequence numbers, without duplicates', () => {
    const foreign = { ...say(3, 'not ours'), toPort: 9 };
    const words = [say(0, 'one '), foreign, say(0, 'one '), say(4, 'two', fin)];
    const { outcome, sent } = forge([opening, {}, ...words]);
    assert.deepEqual(outcome, { kind: 'answered', text: 'one two' });
    assert.deepEqual(
      sent.map((one) =>
        [one.flags, one.sequence, one.acknowledge >>> 0, one.data.toString()].join(),
      ),
      [
        ...[`${syn},1000,0,`, `${ack},1001,0,`, `${ack | push},1001,0,GET`],
        ...[`${ack},1004,4,`, `${ack},1004,8,`, `${ack | fin},1004,8,`],
      ],
    );
  });

  it('reports how it failed', () => {
    for (const [answers, why] of [
      [[], 'NO_ANSWER'],
      [[reset], 'REFUSED'],
      [[opening, reset], 'RESET'],
      [[opening], 'NO_ANSWER'],
    ] as const) {
      assert.deepEqual(forge(answers).outcome, { kind: 'failed', why });
    }
  });
});
