import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LastCheck } from '../../../src/redirect/host/last-check.ts';
import { scripted } from '../scripted-host.ts';

const target = { metadataIp: '169.254.169.254', listenIp: '169.254.25.79' };

/** Checks a state that `over` describes; `read` counts the checks by tools. */
function open(over: { digest?: () => bigint; problems?: readonly string[] } = {}) {
  const state = { digest: 1n, problems: over.problems ?? ([] as readonly string[]), reads: 0 };
  const host = scripted({}, { digestState: over.digest ?? (() => state.digest) });
  const lastCheck = new LastCheck<{ readonly problems: readonly string[] }>();
  const read = async () => {
    state.reads += 1;
    return { problems: state.problems };
  };
  const check = (at = target) => lastCheck.read(host, at, read);
  return { state, check };
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
    const { state, check } = open({ problems: ['jump missing'] });
    await check();
    assert.deepEqual(await check(), { problems: ['jump missing'] });
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
    const lastCheck = new LastCheck<{ readonly problems: readonly string[] }>();
    let reads = 0;
    const read = async () => ({ problems: [], reads: (reads += 1) });
    for (let round = 0; round < 3; round += 1) await lastCheck.read(scripted({}), target, read);
    assert.equal(reads, 3);
  });

  it('is made for a loopback address, whose sysctl is not in the digest', async () => {
    const { state, check } = open();
    const loopback = { ...target, listenIp: '127.0.0.1' };
    await check(loopback);
    await check(loopback);
    assert.equal(state.reads, 2);
  });

  it('follows one that failed', async () => {
    const lastCheck = new LastCheck<{ readonly problems: readonly string[] }>();
    const host = scripted({}, { digestState: () => 1n });
    const busy = () => lastCheck.read(host, target, () => Promise.reject(new Error('busy')));
    await assert.rejects(busy());
    const found = { problems: [] };
    assert.equal(await lastCheck.read(host, target, () => Promise.resolve(found)), found);
  });
});
