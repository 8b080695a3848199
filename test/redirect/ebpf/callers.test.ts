import assert from 'node:assert/strict';
import { existsSync, openSync } from 'node:fs';
import { afterEach, describe, it, mock } from 'node:test';
import { Callers } from '../../../src/redirect/ebpf/callers.ts';
import { nativeModule, type BpfMap, type FlowEnd } from '../../../src/redirect/native/addon.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';

const peer = {
  remoteIp: '10.1.2.3',
  remotePort: 40_000,
  localIp: defaultTarget.listenIp,
  localPort: defaultTarget.listenPort,
};

const nowNs = 60_000_000_000n;

/** A kernel with a record for this peer. */
function open() {
  const state = {
    /** Descriptors in the order in which they were opened. */
    maps: [] as BpfMap[],
    get areOpen() {
      return this.maps.map((map) => existsSync(`/proc/self/fd/${map}`));
    },
    fails: false,
    canOpen: true,
    cgroupId: 7n,
    unrecorded: 0n,
    unrecordedAtNs: 0n,
    isWithinNode: undefined as boolean | undefined,
    netnsCookie: 1n,
    isDirect: false,
    /** By the port that the agent sees. */
    originalPorts: new Map<number, number>(),
    hasNetfilter: true,
  };
  const native = nativeModule();
  mock.method(native, 'netnsCookie', () => state.netnsCookie);
  mock.method(native, 'openMap', (pin: string, readOnly: boolean) => {
    if (pin === '/pins/counters') return openSync('/dev/null', 'r');
    assert.deepEqual([pin, readOnly], ['/pins/callers', true]);
    if (!state.canOpen) throw new RangeError('no pin');
    const map = openSync('/dev/null', 'r');
    state.maps.push(map);
    return map;
  });
  mock.method(native, 'mapGet', () => {
    const bytes = Buffer.alloc(64);
    bytes.writeBigUInt64LE(state.unrecorded, 48);
    bytes.writeBigUInt64LE(state.unrecordedAtNs, 56);
    return bytes;
  });
  mock.method(native, 'originalPort', (client: FlowEnd, server: FlowEnd) => {
    if (!state.hasNetfilter) throw new RangeError('no netfilter');
    assert.deepEqual(server, { ip: peer.localIp, port: peer.localPort });
    return client.ip === peer.remoteIp ? state.originalPorts.get(client.port) : undefined;
  });
  mock.method(native, 'lookupCaller', (...asked: [BpfMap, string, number, boolean]) => {
    const [, ip, port, isWithinNode] = asked;
    if (state.fails) throw new RangeError('look-up');
    state.isWithinNode = isWithinNode;
    if (ip !== peer.remoteIp || port !== peer.remotePort) return undefined;
    return { cgroupId: state.cgroupId, isDirect: state.isDirect };
  });
  return { state, callers: new Callers('/pins', defaultTarget, () => nowNs) };
}

afterEach(() => mock.restoreAll());

describe('the opener of a connection', () => {
  it('is the cgroup recorded for the address and port it came from', () => {
    const { state, callers } = open();
    callers.refresh();
    const attested = { kind: 'attested', cgroupId: 7n, isDirect: false };
    assert.deepEqual(callers.attest(peer), attested);
    const mapped = { ...peer, remoteIp: '::ffff:10.1.2.3', localIp: `::ffff:${peer.localIp}` };
    assert.deepEqual(callers.attest(mapped), attested);
    state.isDirect = true;
    assert.deepEqual(callers.attest(peer), { ...attested, isDirect: true });
  });

  it('is unattested for another address or port, at either end', () => {
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

  it('is looked up among the node’s own records only where both ends have the same address', () => {
    const { state, callers } = open();
    callers.refresh();
    callers.attest(peer);
    assert.equal(state.isWithinNode, false);
    callers.attest({ ...peer, remoteIp: `::ffff:${peer.localIp}` });
    assert.equal(state.isWithinNode, true);
    // Before Linux 5.14 the kernel does not report which namespace is the node's.
    state.netnsCookie = 0n;
    callers.refresh();
    callers.attest({ ...peer, remoteIp: peer.localIp });
    assert.equal(state.isWithinNode, false);
  });

  it('is found by the port it connected from, if netfilter gave it another one', () => {
    const { state, callers } = open();
    callers.refresh();
    state.originalPorts.set(50_000, peer.remotePort);
    state.originalPorts.set(50_001, 50_001);
    state.originalPorts.set(50_002, 50_003);
    const at = (remotePort: number) => callers.attest({ ...peer, remotePort });
    assert.deepEqual(at(50_000), { kind: 'attested', cgroupId: 7n, isDirect: false });
    for (const port of [50_001, 50_002]) assert.deepEqual(at(port), { kind: 'unattested' });
    state.hasNetfilter = false;
    assert.deepEqual(at(50_000), { kind: 'unattested' });
    assert.equal(callers.attest(peer).kind, 'attested');
  });

  it('must try again where two sockets have its address and port', () => {
    const { state, callers } = open();
    callers.refresh();
    state.cgroupId = 0n;
    const { kind, ...rest } = callers.attest(peer);
    assert.equal(kind, 'unavailable');
    assert.match(JSON.stringify(rest), /another socket/);
  });

  it('must try again if the kernel had no room for a record a moment ago', () => {
    const { state, callers } = open();
    callers.refresh();
    const foreign = { ...peer, remotePort: 1 };
    for (const [unrecorded, unrecordedAtNs, isRetried] of [
      [0n, nowNs, false],
      [1n, nowNs - 9_000_000_000n, true],
      [1n, nowNs - 10_000_000_000n, false],
    ] as const) {
      Object.assign(state, { unrecorded, unrecordedAtNs });
      const found = callers.attest(foreign);
      assert.ok(found.kind === 'unattested');
      assert.equal(found.retryWhy !== undefined, isRetried);
      assert.equal(callers.attest(peer).kind, 'attested');
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
    assert.deepEqual(state.areOpen, [false], 'the previous map');
  });

  it('is looked up in the map that is pinned now, and the previous map is closed', () => {
    const { state, callers } = open();
    callers.refresh();
    callers.refresh();
    assert.deepEqual(state.areOpen, [false, true]);
    callers.close();
    callers.close();
    assert.deepEqual(state.areOpen, [false, false]);
    assert.equal(callers.attest(peer).kind, 'unavailable');
  });
});
