import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  decodeSettings,
  diffSettings,
  encodeSettings,
  mapLayout,
  settingsOf,
} from '../../../src/redirect/ebpf/settings.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';

const node = { podsRoot: 2n ** 40n + 7n, qosClasses: [8n, 9n], netnsCookie: 4n };
const settings = settingsOf(Buffer.from('programs'), defaultTarget, node);

describe('the settings of the programs', () => {
  it('are bytes in the order of the C structure, addresses and ports in network order', () => {
    const bytes = encodeSettings(settings);
    assert.equal(bytes.length, 88);
    assert.deepEqual(
      [...bytes.subarray(0, 56)],
      [
        ...[mapLayout, 0, 0, 0],
        ...[169, 254, 169, 254],
        ...[169, 254, 25, 79],
        ...[0, 80],
        ...[2579 >> 8, 2579 & 255],
        ...[0, 1, 0, 0],
        ...[0, 0, 0, 0],
        ...[7, 0, 0, 0, 0, 1, 0, 0],
        ...[8, 0, 0, 0, 0, 0, 0, 0],
        ...[9, 0, 0, 0, 0, 0, 0, 0],
        ...[4, 0, 0, 0, 0, 0, 0, 0],
      ],
    );
    assert.equal(Buffer.from(bytes.subarray(56)).toString('hex'), settings.digest);
  });

  it('are read back as they were written, wherever their bytes lie', () => {
    assert.deepEqual(decodeSettings(encodeSettings(settings)), settings);
    const unplaced = settingsOf(Buffer.from('programs'), defaultTarget);
    assert.deepEqual(decodeSettings(encodeSettings(unplaced)), unplaced);
    const within = new Uint8Array(100);
    within.set(encodeSettings(settings), 7);
    assert.deepEqual(decodeSettings(within.subarray(7, 95)), settings);
  });

  it('are none in bytes of another length', () => {
    for (const length of [0, 52, 87, 89]) {
      assert.equal(decodeSettings(new Uint8Array(length)), undefined);
    }
  });

  it('differ by layout first, then by what they redirect and by their version', () => {
    assert.deepEqual(diffSettings(settings, settings), []);
    const otherLayout = ['programs of another layout'];
    assert.deepEqual(diffSettings(undefined, settings), otherLayout);
    assert.deepEqual(
      diffSettings({ ...settings, layout: mapLayout - 1, digest: '' }, settings),
      otherLayout,
    );
    const target = { ...defaultTarget, listenPort: 1 };
    assert.deepEqual(diffSettings({ ...settings, target, digest: 'x' }, settings), [
      'programs redirect 169.254.169.254:80 to 169.254.25.79:1',
      'programs of another version',
    ]);
    for (const other of [{ podsRoot: 1n }, { qosClasses: [8n] }, { netnsCookie: 5n }]) {
      assert.deepEqual(diffSettings({ ...settings, node: { ...node, ...other } }, settings), [
        "programs know other cgroups or another network namespace as the node's",
      ]);
    }
    assert.notEqual(settingsOf(Buffer.from('others'), defaultTarget).digest, settings.digest);
  });
});
