import assert from 'node:assert/strict';
import { afterEach, describe, it, mock } from 'node:test';
import { Callers } from '../../../src/redirect/ebpf/callers.ts';
import { nativeModule, type BpfMap } from '../../../src/redirect/native/addon.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';

const peer = {
  remoteIp: '10.1.2.3',
  remotePort: 40_000,
  localIp: DEFAULT_TARGET.listenIp,
  localPort: DEFAULT_TARGET.listenPort,
};

/** A kernel that has this peer on file, in maps that are numbered as they are opened. */
function open() {
  const state = { opened: 0, closed: [] as unknown[], fails: false, canOpen: true };
  const native = nativeModule();
  mock.method(native, 'openMap', (pin: string, readOnly: boolean) => {
    assert.deepEqual([pin, readOnly], ['/pins/callers', true]);
    if (!state.canOpen) throw new RangeError('no pin');
    state.opened++;
    return { number: state.opened } as unknown as BpfMap;
  });
  mock.method(native, 'close', (map: unknown) => state.closed.push(map));
  mock.method(native, 'mapInfo', (map: BpfMap) => ({
    id: (map as unknown as { number: number }).number,
    valueSize: 16,
  }));
  mock.method(native, 'lookupCaller', (_map: BpfMap, ip: string, port: number) => {
    if (state.fails) throw new RangeError('look-up');
    return ip === peer.remoteIp && port === peer.remotePort ? 7n : undefined;
  });
  return { state, callers: new Callers('/pins', DEFAULT_TARGET) };
}

afterEach(() => mock.restoreAll());

describe('who opened a connection', () => {
  it('is the cgroup on file for the address and port that it came from', () => {
    const { callers } = open();
    callers.refresh();
    const attested = { kind: 'attested', cgroupId: 7n };
    assert.deepEqual(callers.attest(peer), attested);
    const mapped = { ...peer, remoteIp: '::ffff:10.1.2.3', localIp: `::ffff:${peer.localIp}` };
    assert.deepEqual(callers.attest(mapped), attested);
  });

  it('is nobody for another address or port, at either end', () => {
    const { callers } = open();
    callers.refresh();
    for (const other of [
      { remoteIp: '10.1.2.4' },
      { remotePort: 40_001 },
      { remoteIp: 'fd00::1' },
      { remoteIp: '' },
      { localIp: '10.224.0.4' },
      { localPort: 80 },
    ]) {
      assert.deepEqual(callers.attest({ ...peer, ...other }), { kind: 'unattested' });
    }
  });

  it('cannot be looked up while the map cannot be opened or read', () => {
    const { state, callers } = open();
    assert.equal(callers.attest(peer).kind, 'unavailable');
    callers.refresh();
    state.fails = true;
    assert.equal(callers.attest(peer).kind, 'unavailable');
    state.fails = false;
    state.canOpen = false;
    assert.throws(() => callers.refresh(), RangeError);
    assert.equal(callers.attest(peer).kind, 'unavailable');
    assert.equal(state.closed.length, 1, 'the former map');
  });

  it('is looked for in the map that is pinned now, and the former is closed', () => {
    const { state, callers } = open();
    callers.refresh();
    callers.refresh();
    assert.deepEqual(state.closed, [{ number: 1 }]);
    callers.close();
    callers.close();
    assert.deepEqual(state.closed, [{ number: 1 }, { number: 2 }]);
    assert.equal(callers.attest(peer).kind, 'unavailable');
  });
});
