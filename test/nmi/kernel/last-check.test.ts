import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LastCheck } from '../../../src/nmi/kernel/last-check.ts';
import type { RedirectStatus } from '../../../src/redirect/redirect.ts';

/** Checks a state with these problems; `reads` counts the checks without a digest. */
function open(problems: readonly string[] = []) {
  const state = {
    digest: 1n as bigint | string | undefined,
    problems,
    failure: undefined as Error | undefined,
    reads: 0,
  };
  const lastCheck = new LastCheck();
  const verify = async (): Promise<RedirectStatus> => {
    state.reads += 1;
    if (state.failure !== undefined) throw state.failure;
    return { state: 'active', detail: '', problems: state.problems };
  };
  const check = () => lastCheck.read({ digest: async () => state.digest, verify });
  return { state, check, lastCheck, verify };
}

describe('a check of a state that was right before', () => {
  it('runs no tool while the digest stays the same', async () => {
    const { state, check } = open();
    const first = await check();
    for (let round = 0; round < 50; round += 1) assert.equal(await check(), first);
    assert.equal(state.reads, 1);
  });

  it('runs the tools once for a changed digest', async () => {
    const { state, check } = open();
    await check();
    state.digest = 2n;
    await check();
    await check();
    assert.equal(state.reads, 2);
    state.digest = 1n;
    await check();
    assert.equal(state.reads, 3);
  });

  it('runs them each sixtieth time all the same', async () => {
    const { state, check } = open();
    for (let round = 0; round < 60; round += 1) await check();
    assert.equal(state.reads, 1);
    await check();
    assert.equal(state.reads, 2);
    for (let round = 0; round < 59; round += 1) await check();
    assert.equal(state.reads, 2);
  });
});

describe('a check by tools each time', () => {
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

  it('is made of a problem that comes back without a change of the digest', async () => {
    const { state, check } = open();
    await check();
    state.digest = 2n;
    state.problems = ['jump missing'];
    await check();
    state.problems = [];
    state.digest = 1n;
    await check();
    assert.equal(state.reads, 3);
  });

  it('is made where the digest cannot be determined', async () => {
    const { state, check, lastCheck, verify } = open();
    state.digest = undefined;
    for (let round = 0; round < 3; round += 1) await check();
    assert.equal(state.reads, 3);
    for (let round = 0; round < 3; round += 1) await lastCheck.read({ verify });
    assert.equal(state.reads, 6);
  });

  it('follows one that failed', async () => {
    const { state, check } = open();
    state.failure = new Error('busy');
    await assert.rejects(check());
    state.failure = undefined;
    await check();
    assert.equal(state.reads, 2);
  });
});
