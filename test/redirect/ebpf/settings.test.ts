import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  diffSettings,
  listenPortOf,
  mapLayout,
  settingsOf,
} from '../../../src/redirect/ebpf/settings.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';

const node = { podsRoot: 2n ** 40n + 7n, qosClasses: [8n, 9n], netnsCookie: 4n };
const programs = Buffer.from('programs');
const settings = settingsOf(programs, defaultTarget, 2579, node);

describe('the settings of the programs', () => {
  it('are bytes in the order of the C structure, addresses and ports in network order', () => {
    assert.equal(settings.length, 96);
    assert.deepEqual(
      [...settings.subarray(0, 64)],
      [
        ...[mapLayout, 0, 0, 0],
        ...[169, 254, 169, 254],
        ...[169, 254, 25, 79],
        ...[0, 80],
        ...[2579 >> 8, 2579 & 255],
        ...[128, 2, 0, 0],
        ...[128, 0, 0, 0],
        ...[0, 2, 0, 0],
        ...[0x40, 0x42, 0x0f, 0],
        ...[7, 0, 0, 0, 0, 1, 0, 0],
        ...[8, 0, 0, 0, 0, 0, 0, 0],
        ...[9, 0, 0, 0, 0, 0, 0, 0],
        ...[4, 0, 0, 0, 0, 0, 0, 0],
      ],
    );
    // FNV-1a of the bytes, and their number.
    const version = [0xa8, 0xb3, 0x6d, 0x8f, 8, 0, 0, 0, ...Array<number>(20).fill(0)];
    const ports = [2579 >> 8, 2579 & 255, 2580 >> 8, 2580 & 255];
    assert.deepEqual([...settings.subarray(64)], [...version, ...ports]);
  });

  it('differ by layout first, then by port', () => {
    assert.equal(diffSettings(settings, settings), undefined);
    const moved = settingsOf(programs, defaultTarget, 2580, node);
    assert.deepEqual([settings, moved].map(listenPortOf), [2579, 2580]);
    assert.equal(diffSettings(moved, settings), 'programs redirect to port 2580');
    for (let at = 4; at < settings.length; at++) {
      if (at === 14 || at === 15) continue;
      const present = Uint8Array.from(settings).fill(0x5a, at, at + 1);
      assert.equal(
        diffSettings(present, settings),
        'programs of another version or configuration',
        `byte ${at}`,
      );
    }
    for (const present of [Uint8Array.from(settings).fill(9, 0, 1), settings.subarray(1)]) {
      assert.equal(diffSettings(present, settings), 'programs of another layout');
    }
  });
});
