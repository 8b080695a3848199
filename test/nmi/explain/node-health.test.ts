import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readHealth, type HealthSources } from '../../../src/nmi/explain/node-health.ts';

const kernel: HealthSources['kernel'] = {
  mode: 'ebpf',
  status: () => ({ state: 'active', detail: 'as wanted', problems: [] }),
  problem: () => undefined,
};

function watchesOf(ages: readonly (number | undefined)[]): HealthSources['clusterState'] {
  const stats = Object.fromEntries(
    ages.map((lastContactAgeMs, index) => [`kind-${index}`, { lastContactAgeMs }]),
  );
  const watches = { unsynced: () => ['pods'], stats: () => stats };
  return { watches } as unknown as HealthSources['clusterState'];
}

describe('the health of a node', () => {
  it('has the age of the last event of the least active watch, or none if one had no event yet', () => {
    const silentForMs = (...ages: readonly (number | undefined)[]) =>
      readHealth({ nodeName: 'n', kernel, clusterState: watchesOf(ages) }).watches.silentForMs;
    assert.equal(silentForMs(1_000.4, 3_000.6, 20), 3_001);
    assert.equal(silentForMs(1_000, undefined), undefined);
  });

  it('names node and redirect', () => {
    const { name, redirect, watches } = readHealth({
      nodeName: 'n',
      kernel,
      clusterState: watchesOf([1]),
    });
    assert.deepEqual(redirect, { mode: 'ebpf', detail: 'as wanted', problem: undefined });
    assert.deepEqual([name, watches.unsynced, watches.failing], ['n', ['pods'], []]);
  });
});
