import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  nodePodsPath,
  readNodePods,
  readState,
  writeNodePods,
  writeState,
  type RedirectState,
} from '../../../../src/nmi/kernel/redirect-state.ts';

const state: RedirectState = {
  at: '2026-01-01T00:00:00.000Z',
  mode: 'iptables',
  target: '169.254.169.254:80 to 169.254.25.79:2579',
  port: 2580,
  redirectedTo: 2579,
  isAlone: true,
  isLeaving: true,
  problems: ['jump is gone', 'no link'],
};

describe('what both containers of a pod tell each other', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-redirect-state-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  it('is read as it was written', () => {
    assert.equal(readState(folder), undefined);
    const quiet = { ...state, redirectedTo: null, isAlone: false, isLeaving: false, problems: [] };
    for (const each of [state, { ...state, mode: 'ebpf' } as const, quiet]) {
      writeState(folder, each);
      assert.deepEqual(readState(folder), each);
    }
    assert.equal(readNodePods(folder), undefined);
    for (const ids of [[5n, 2n ** 64n - 1n], []]) {
      writeNodePods(folder, ids);
      assert.deepEqual(readNodePods(folder), ids);
    }
    // As many as the map has, of the longest.
    const most = Array.from({ length: 1_024 }, (_, at) => 2n ** 64n - 1n - BigInt(at));
    writeNodePods(folder, [...most, 1n]);
    assert.deepEqual(readNodePods(folder), most);
  });

  it('is nothing without a mode and a port', () => {
    for (const odd of [
      ...[{ mode: 'none' }, { mode: undefined }, { mode: 1 }],
      ...[{ port: '2579' }, { port: null }],
    ]) {
      writeState(folder, { ...state, ...odd } as unknown as RedirectState);
      assert.equal(readState(folder), undefined, JSON.stringify(odd));
    }
  });

  it('has plain values where another version writes other ones', () => {
    const odd = {
      at: 1,
      target: {},
      redirectedTo: '2579',
      isAlone: 1,
      isLeaving: 'true',
      problems: [1, 'kept', null],
    };
    writeState(folder, { ...state, ...odd } as unknown as RedirectState);
    const { mode, port } = state;
    const plain = { at: '', target: '', redirectedTo: null, isAlone: false, isLeaving: false };
    assert.deepEqual(readState(folder), { mode, port, ...plain, problems: ['kept'] });
    writeState(folder, { ...state, problems: 'x' } as unknown as RedirectState);
    assert.deepEqual(readState(folder)?.problems, []);
  });

  it('has only ids of cgroups among the pods of the node', () => {
    const cgroups = ['5', 5, '0', '-1', '05', '1e3', 'x', String(2n ** 64n), null, ['6'], '7'];
    writeFileSync(nodePodsPath(folder), JSON.stringify({ cgroups }));
    assert.deepEqual(readNodePods(folder), [5n, 7n]);
    for (const text of ['{}', '{"cgroups":"5"}', '[]', '']) {
      writeFileSync(nodePodsPath(folder), text);
      assert.equal(readNodePods(folder), undefined, text);
    }
  });
});
