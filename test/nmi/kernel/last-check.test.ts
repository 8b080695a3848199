import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LastCheck } from '../../../src/nmi/kernel/last-check.ts';
import type { RedirectStatus } from '../../../src/redirect/redirect.ts';

/** Checks a state with these problems; `reads` counts the checks of the whole. */
function open(problems: readonly string[] = [], intervalMs = 10_000) {
  const state = {
    isFrontWhole: true,
    problems,
    failure: undefined as Error | undefined,
    reads: 0,
  };
  const lastCheck = new LastCheck(intervalMs);
  const fail = () => {
    if (state.failure !== undefined) throw state.failure;
  };
  const redirect = {
    isFrontWhole: async () => {
      fail();
      return state.isFrontWhole;
    },
    verify: async (): Promise<RedirectStatus> => {
      state.reads += 1;
      fail();
      return { state: 'active', detail: '', problems: state.problems };
    },
  };
  return { state, check: () => lastCheck.read(redirect) };
}

describe('a check of a state that was right before', () => {
  it('reads what stands in front, and the whole once a minute', async () => {
    for (const [intervalMs, most] of [
      [10_000, 6],
      [1_000, 6],
      [30_000, 2],
      [60_000, 1],
      [300_000, 1],
    ] as const) {
      const { state, check } = open([], intervalMs);
      const first = await check();
      for (let round = 1; round < most; round += 1) assert.equal(await check(), first);
      assert.equal(state.reads, 1, `each ${intervalMs} ms`);
      for (let round = 0; round < most; round += 1) await check();
      assert.equal(state.reads, 2);
    }
  });

  it('reads the whole if the front is not as it was', async () => {
    const { state, check } = open();
    await check();
    state.isFrontWhole = false;
    for (let round = 0; round < 3; round += 1) await check();
    assert.equal(state.reads, 4);
    state.isFrontWhole = true;
    for (let round = 0; round < 3; round += 1) await check();
    assert.equal(state.reads, 4);
  });
});

describe('a check of the whole', () => {
  it('follows one that found a problem, until there is none', async () => {
    const { state, check } = open(['jump missing']);
    await check();
    assert.deepEqual((await check()).problems, ['jump missing']);
    assert.equal(state.reads, 2);
    state.problems = [];
    await check();
    await check();
    assert.equal(state.reads, 3);
  });

  it('follows one that failed', async () => {
    const { state, check } = open();
    state.failure = new Error('busy');
    await assert.rejects(check());
    state.failure = undefined;
    await check();
    assert.equal(state.reads, 2);
    state.failure = new Error('busy');
    await assert.rejects(check());
    state.failure = undefined;
    await check();
    assert.equal(state.reads, 3);
  });
});
