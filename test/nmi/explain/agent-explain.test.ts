import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { httpGet } from '../../../src/cli/http-get.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { tuning } from '../../../src/nmi/config/tuning.ts';
import {
  openExplain,
  readHealth,
  type ExplainOptions,
} from '../../../src/nmi/explain/agent-explain.ts';
import { HandClock } from '../../support/hand-clock.ts';

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

describe('the socket of an agent', () => {
  it('explains the state of now, with the facts of the agent', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-agent-explain-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const socketPath = join(folder, 'explain.sock');
    const parsed = parseConfig({ node: 'n' }, { NMI_EXPLAIN_SOCKET: socketPath });
    assert.ok(parsed.ok, JSON.stringify(parsed));
    const clock = new HandClock();
    const log = { child: () => ({ warn: assert.fail, error: assert.fail }) };
    const server = await openExplain({
      config: parsed.config,
      tuning,
      kernel,
      state: { pods: new PodIndex(clock), ...watchesOf([1]) },
      parts: [{ conditions: [{ name: 'redirect', problem: () => 'for the test' }] }],
      clock,
      log,
    } as unknown as ExplainOptions);
    t.after(() => server[Symbol.asyncDispose]());
    const get = async (path: string) => {
      const { body } = await httpGet({ socketPath, path }, { timeoutMs: 5_000, maxBodyBytes: 1e6 });
      return JSON.parse(body) as Record<string, Record<string, unknown>>;
    };
    const { kind, node, agent, pods } = await get('/explain');
    assert.deepEqual([kind, node?.['name'], pods], ['node', 'n', []]);
    assert.deepEqual(agent?.['unmetConditions'], ['redirect']);
    assert.deepEqual(await get('/ready'), { ready: false, missing: { redirect: 'for the test' } });
  });
});
