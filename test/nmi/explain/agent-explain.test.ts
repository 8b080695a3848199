import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { tuning } from '../../../src/nmi/config/tuning.ts';
import { readHealth } from '../../../src/nmi/explain/agent-explain.ts';

const kernel: Parameters<typeof readHealth>[1] = {
  mode: 'ebpf',
  status: () => ({ state: 'active', detail: 'as wanted', problems: [] }),
  problem: () => undefined,
};

function watchesOf(ages: readonly (number | undefined)[]) {
  const stats = Object.fromEntries(
    ages.map((lastContactAgeMs, index) => [`kind-${index}`, { lastContactAgeMs }]),
  );
  const old = [
    { resource: 'pods', stalenessMs: 300_000 },
    { resource: 'bindings', stalenessMs: 300_001 },
  ];
  const watches = { unsynced: () => ['pods'], ages: () => old, stats: () => stats };
  return { watches, podsAskedAs: () => 'node' } as unknown as Parameters<typeof readHealth>[2];
}

describe('the health of a node', () => {
  it('has the age of the last event of the least active watch, or none if one had no event yet', () => {
    const silentForMs = (...ages: readonly (number | undefined)[]) =>
      readHealth('n', kernel, watchesOf(ages), tuning).watches.silentForMs;
    assert.equal(silentForMs(1_000.4, 3_000.6, 20), 3_001);
    assert.equal(silentForMs(1_000, undefined), undefined);
  });

  it('names node and redirect, and the watches that are old', () => {
    const { name, redirect, watches } = readHealth('n', kernel, watchesOf([1]), tuning);
    assert.deepEqual(redirect, { mode: 'ebpf', detail: 'as wanted', problem: undefined });
    assert.deepEqual(
      [name, watches.unsynced, watches.failing, watches.podsAskedAs],
      ['n', ['pods'], [], 'node'],
    );
    assert.deepEqual([name, watches.unsynced, watches.failing], ['n', ['pods'], []]);
    assert.deepEqual(watches.stale, [{ resource: 'bindings', stalenessMs: 300_001 }]);
  });
});
