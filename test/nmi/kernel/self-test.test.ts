import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Log } from '../../../src/nmi/base/log.ts';
import { SelfTest } from '../../../src/nmi/kernel/self-test.ts';
import type { Attestation } from '../../../src/redirect/redirect.ts';
import type { DialOutcome } from '../../../src/redirect/self-dial.ts';
import { HandClock } from '../../support/hand-clock.ts';

const byAddress: Attestation = { kind: 'by-address' };
const answered: DialOutcome = { kind: 'answered', status: 200, cgroupId: undefined };
const prefix = '/metadata/nmi-self-test/';

/** A network in one function: what the dial gives, and whether it comes to the test's agent. */
function open(intervalMs = 60_000) {
  const clock = new HandClock();
  const lines: string[] = [];
  const add = (level: string) => (fields: Readonly<Record<string, unknown>>) => {
    lines.push(`${level} ${JSON.stringify(fields)}`);
  };
  const log: Log = {
    debug: add('debug'),
    info: add('info'),
    warn: add('warn'),
    error: add('error'),
  };
  const world = {
    outcome: answered,
    arrivesAs: byAddress as Attestation | undefined,
    paths: [] as string[],
  };
  const test = new SelfTest({
    intervalMs,
    clock,
    log,
    dial: (path) => {
      world.paths.push(path);
      if (world.arrivesAs !== undefined) test.answer(path.slice(prefix.length), world.arrivesAs);
      return Promise.resolve(world.outcome);
    },
  });
  const pass = async (ms: number) => {
    clock.advance(ms);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  return { world, test, lines, pass };
}

describe('the self-test', () => {
  it('passes when what was dialled arrives, and says so once', async () => {
    const { world, test, lines, pass } = open();
    test.start();
    assert.equal(test.result, 'pending');
    await pass(5_000);
    assert.equal(test.result, 'passed');
    await pass(60_000);
    assert.equal(world.paths.length, 2);
    assert.deepEqual(lines, ['info {"result":"passed"}']);
    await test[Symbol.asyncDispose]();
    await pass(600_000);
    assert.equal(world.paths.length, 2);
  });

  it('asks for another path each time, and answers it only while it waits for it', async () => {
    const { world, test, pass } = open();
    test.start();
    await pass(5_000);
    await pass(60_000);
    const [first = '', second = ''] = world.paths;
    assert.match(first, /^\/metadata\/nmi-self-test\/[0-9a-f]{32}$/);
    assert.notEqual(first, second);
    assert.equal(test.answer(second.slice(prefix.length), byAddress).status, 404);
    assert.equal(test.answer('', byAddress).status, 404);
    assert.equal(test.answer('undefined', byAddress).status, 404);
  });

  for (const { name, outcome, arrivesAs, says } of [
    {
      name: 'nobody answers',
      outcome: { kind: 'unanswered', problem: 'ECONNREFUSED' },
      arrivesAs: undefined,
      says: /cannot be reached from a pod: ECONNREFUSED/,
    },
    {
      name: 'somebody else answers, whatever he says',
      outcome: answered,
      arrivesAs: undefined,
      says: /somebody else answers at the metadata address \(status 200\)/,
    },
    {
      name: 'it arrives without a record',
      outcome: { ...answered, cgroupId: 5n },
      arrivesAs: { kind: 'unattested' },
      says: /without the programs’ record/,
    },
    {
      name: 'it arrives with the record of another cgroup',
      outcome: { ...answered, cgroupId: 5n },
      arrivesAs: { kind: 'attested', cgroupId: 6n },
      says: /record of another cgroup/,
    },
  ] satisfies readonly {
    name: string;
    outcome: DialOutcome;
    arrivesAs: Attestation | undefined;
    says: RegExp;
  }[]) {
    it(`fails when ${name}, at the second time, and passes at once when it is mended`, async () => {
      const { world, test, lines, pass } = open();
      test.start();
      await pass(5_000);
      const good = { outcome: world.outcome, arrivesAs: world.arrivesAs };
      Object.assign(world, { outcome, arrivesAs });
      await pass(60_000);
      assert.equal(test.result, 'passed');
      assert.equal(test.problem(), undefined);
      await pass(5_000);
      assert.equal(test.result, 'failed');
      assert.match(test.problem() ?? '', says);
      await pass(5_000);
      assert.equal(lines.filter((line) => line.startsWith('error')).length, 1);
      Object.assign(world, good);
      await pass(5_000);
      assert.equal(test.result, 'passed');
      assert.equal(test.problem(), undefined);
    });
  }

  it('accepts the record of the cgroup that was dialled from', async () => {
    const { world, test, pass } = open();
    Object.assign(world, {
      outcome: { ...answered, cgroupId: 5n },
      arrivesAs: { kind: 'attested', cgroupId: 5n },
    });
    test.start();
    await pass(5_000);
    assert.equal(test.result, 'passed');
  });

  it('is impossible without a place to dial from, which is no problem of the node’s', async () => {
    const { world, test, lines, pass } = open();
    world.outcome = { kind: 'impossible', why: 'needs CAP_SYS_ADMIN' };
    world.arrivesAs = undefined;
    test.start();
    await pass(5_000);
    await pass(60_000);
    assert.equal(test.result, 'impossible');
    assert.equal(test.problem(), undefined);
    assert.deepEqual(lines, ['warn {"result":"impossible","why":"needs CAP_SYS_ADMIN"}']);
  });

  it('is off with an interval of 0', async () => {
    const { world, test, pass } = open(0);
    test.start();
    await pass(600_000);
    assert.equal(test.result, 'off');
    assert.deepEqual(world.paths, []);
  });
});
