import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
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
  const watches = { unsynced: () => ['pods'], stats: () => stats };
  return { watches, podsAskedAs: () => 'node' } as unknown as Parameters<typeof readHealth>[2];
}

describe('the health of a node', () => {
  it('has the age of the last event of the least active watch, or none if one had no event yet', () => {
    const silentForMs = (...ages: readonly (number | undefined)[]) =>
      readHealth('n', kernel, watchesOf(ages)).watches.silentForMs;
    assert.equal(silentForMs(1_000.4, 3_000.6, 20), 3_001);
    assert.equal(silentForMs(1_000, undefined), undefined);
  });

  it('names node and redirect', () => {
    const { name, redirect, watches } = readHealth('n', kernel, watchesOf([1]));
    assert.deepEqual(redirect, { mode: 'ebpf', detail: 'as wanted', problem: undefined });
    assert.deepEqual(
      [name, watches.unsynced, watches.failing, watches.podsAskedAs],
      ['n', ['pods'], [], 'node'],
    );
  });
});
