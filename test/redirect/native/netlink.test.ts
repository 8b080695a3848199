/** Answers that no kernel of a test gives: cut, empty, interrupted, refused. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { cutFlows, cutSockets } from '../../../src/redirect/native/connections.ts';
import {
  attribute,
  findAttribute,
  hostNumbers,
  Netlink,
  nest,
} from '../../../src/redirect/native/netlink.ts';
import { placeOf } from '../../../src/redirect/native/place.ts';

const { EAGAIN, EINTR, ENOBUFS, ENOENT, EPERM, EPROTO, ETIMEDOUT } = constants.errno;
const request = { type: 26, extent: 'one', fixed: new Uint8Array(12) } as const;

function message(type: number, payload: Uint8Array, flags = 0): Uint8Array {
  const header = hostNumbers(Uint32Array, 16 + payload.length, 0, 0, 0);
  header.set(hostNumbers(Uint16Array, type, flags), 4);
  return Buffer.concat([header, payload]);
}

const endWith = (errno: number) => message(2, hostNumbers(Uint32Array, 2 ** 32 - errno));
const ok = message(2, hostNumbers(Uint32Array, 0));
const done = message(3, new Uint8Array(4));

describe('netlink', () => {
  let answers: (Uint8Array | number)[] = [];
  let closed = 0;
  const open = () => 77;

  beforeEach(() => {
    [answers, closed] = [[], 0];
    mock.method(fs, 'writeSync', () => 0);
    mock.method(fs, 'closeSync', () => (closed += 1));
    mock.method(fs, 'readSync', (_: number, into: Uint8Array) => {
      const next = answers.shift() ?? assert.fail('it waits without end');
      if (typeof next === 'number') throw Object.assign(new Error('read'), { errno: -next });
      into.set(next);
      return next.length;
    });
    syncBuiltinESMExports();
  });
  afterEach(() => {
    mock.restoreAll();
    syncBuiltinESMExports();
  });

  const ask = (...given: (Uint8Array | number)[]) => {
    answers = given;
    const seen: number[] = [];
    using netlink = new Netlink(open, 0);
    return [netlink.ask(request, ({ byteLength }) => seen.push(byteLength)), seen];
  };
  const object = message(24, new Uint8Array(12));

  const cases: readonly [string, (Uint8Array | number)[], number, number[]][] = [
    ['an object and its end', [object, ok], 0, [12]],
    ['objects in one answer', [Buffer.concat([object, object, done])], 0, [12, 12]],
    ['an end without an error', [message(3, new Uint8Array())], 0, []],
    ['a refusal', [endWith(EPERM)], EPERM, []],
    ['a refusal at the end', [object, message(3, endWith(ENOENT).subarray(16))], ENOENT, [12]],
    ['an interrupted call', [EINTR, ok], 0, []],
    ['silence', [EAGAIN], ETIMEDOUT, []],
    ['a full buffer', [ENOBUFS], ENOBUFS, []],
    ['a list that changed meanwhile', [message(24, new Uint8Array(12), 0x10)], EAGAIN, []],
    ['an empty answer', [new Uint8Array()], EPROTO, []],
    ['a cut header', [object.subarray(0, 10)], EPROTO, []],
    ['a cut object', [object.subarray(0, 20)], EPROTO, []],
    ['a length below that of a header', [new Uint8Array(16)], EPROTO, []],
    ['a refusal without a number', [message(2, new Uint8Array(2))], EPROTO, []],
  ];
  for (const [name, given, errno, sizes] of cases) {
    it(`reads ${name}`, () => {
      assert.deepEqual(ask(...given), [errno, sizes]);
      assert.deepEqual([answers, closed], [[], 1]);
    });
  }

  it('reads no more than a limit', () => {
    const full = message(24, new Uint8Array(64 * 1024 - 16));
    assert.deepEqual(ask(...Array.from({ length: 8192 }, () => full))[0], constants.errno.EMSGSIZE);
  });

  it('finds attributes by their types, and none in damaged ones', () => {
    const find = (bytes: Uint8Array, ...types: [number, ...number[]]) =>
      findAttribute(new DataView(Uint8Array.from(bytes).buffer), 0, ...types)?.byteLength;
    const inner = nest(5, attribute(1, new Uint8Array(3)), attribute(2, new Uint8Array(7)));
    const all = Buffer.concat([attribute(4, new Uint8Array(1)), inner]);
    assert.deepEqual([find(all, 4), find(all, 5, 1), find(all, 5, 2)], [1, 3, 7]);
    assert.deepEqual([find(all, 6), find(all, 5, 3), find(all, 4, 1)], Array(3).fill(undefined));
    assert.equal(find(all.subarray(0, 20), 5), undefined, 'longer than its message');
    assert.equal(find(new Uint8Array(32), 5), undefined, 'without a length');
  });

  it('has no place for damaged answers', () => {
    answers = [message(24, new Uint8Array(4)), ok];
    assert.equal(placeOf(open, '10.0.0.5'), undefined);
    assert.equal(closed, 1);
  });

  it('reports which step the kernel refused', () => {
    const dialled = { ip: '169.254.169.254', port: 80 };
    const calls: readonly [() => number, string][] = [
      [() => cutFlows(open, dialled, undefined, []), 'list flows'],
      [() => cutSockets(open, dialled, [1n]), 'list sockets'],
    ];
    for (const [call, step] of calls) {
      answers = [endWith(EPERM)];
      assert.throws(call, { code: 'EPERM', step });
    }
    assert.equal(closed, 2);
  });

  it('closes the sockets of its cgroups, and counts none that has ended', () => {
    const dialled = { ip: '169.254.169.254', port: 80 };
    const socket = (cgroup: number, port: number) => {
      const fixed = new Uint8Array(72);
      fixed.set([0, port], 6);
      fixed.set([169, 254, 169, 254], 24);
      const id = attribute(21, hostNumbers(Uint32Array, cgroup, 0));
      return message(20, Buffer.concat([fixed, id]));
    };
    const listed = [socket(7, 80), socket(7, 80), socket(7, 81), socket(8, 80)];
    answers = [Buffer.concat(listed), done, done, ok, endWith(ENOENT)];
    assert.equal(cutSockets(open, dialled, [7n]), 1);
    assert.deepEqual(answers, []);
    answers = [Buffer.concat(listed), done, done, endWith(EPERM)];
    const refusal = { code: 'EPERM', step: 'close socket' };
    assert.throws(() => cutSockets(open, dialled, [7n]), refusal);
  });
});
