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

  it('differ by layout first, then by what they redirect and by their version', () => {
    assert.deepEqual(diffSettings(settings, settings), []);
    const others = settingsOf(Buffer.from('others'), { ...defaultTarget, listenPort: 1 }, 1, node);
    const [target, version] = ['programs redirect other addresses', 'programs of another version'];
    const ports = "programs reserve other ports than the agents'";
    assert.deepEqual(diffSettings(others, settings), [target, version, ports]);
    const moved = settingsOf(programs, defaultTarget, 2580, node);
    assert.deepEqual(diffSettings(moved, settings), [target]);
    assert.deepEqual([settings, moved, others].map(listenPortOf), [2579, 2580, 1]);
    for (const other of [{ podsRoot: 1n }, { qosClasses: [8n] }, { netnsCookie: 5n }]) {
      const elsewhere = settingsOf(programs, defaultTarget, 2579, { ...node, ...other });
      assert.deepEqual(diffSettings(elsewhere, settings), [
        "programs know other cgroups or another network namespace as the node's",
      ]);
    }
    for (const present of [Uint8Array.from(others).fill(9, 0, 1), others.subarray(1)]) {
      assert.deepEqual(diffSettings(present, settings), ['programs of another layout']);
    }
  });
});
