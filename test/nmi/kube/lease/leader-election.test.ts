import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, stringAt } from '../../../../src/nmi/base/json-value.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import {
  LeaderElection,
  type ElectionTiming,
} from '../../../../src/nmi/kube/lease/leader-election.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { pass } from '../../../support/token-fixture.ts';
import { keptLog } from '../kube-test-bed.ts';

const timing: ElectionTiming = {
  durationMs: 60_000,
  deadlineMs: 40_000,
  renewMs: 15_000,
  pollMs: 120_000,
  firstMs: 10_000,
};
const path = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases';

/** An API server with one Lease, with optimistic concurrency. */
class LeaseServer {
  lease: Readonly<Record<string, unknown>> | undefined;
  version = 0;
  calls: string[] = [];

  read(): unknown {
    if (this.lease === undefined) throw new KubeError('NOT_FOUND', 'none', { status: 404 });
    return this.lease;
  }
  write(body: unknown): unknown {
    this.version += 1;
    const metadata = { resourceVersion: String(this.version) };
    this.lease = { ...asRecord(body), metadata };
    return this.lease;
  }
  get spec() {
    return asRecord(this.lease?.['spec']);
  }
  get holder(): string {
    return stringAt(this.spec, 'holderIdentity');
  }
  get storedVersion(): string {
    return stringAt(asRecord(this.lease?.['metadata']), 'resourceVersion');
  }
}

function conflict(): KubeError {
  return new KubeError('SERVER', 'conflict', { status: 409 });
}

/** One candidate; `clock` is its own, so that two may differ. */
function run(server: LeaseServer, identity: string, clock: HandClock, random = 0.5) {
  const fixture = { failure: undefined as KubeError | undefined, leads: 0, led: 0 };
  const log = keptLog();
  const call = async (name: string, work: () => unknown): Promise<unknown> => {
    server.calls.push(`${identity} ${name}`);
    await Promise.resolve();
    if (fixture.failure !== undefined) throw fixture.failure;
    return work();
  };
  const election = new LeaderElection({
    client: {
      getJson: (at) => {
        assert.equal(at, `${path}/lease`);
        return call('get', () => server.read());
      },
      postJson: (at, body) => {
        assert.equal(at, path);
        return call('post', () => {
          if (server.lease !== undefined) throw conflict();
          return server.write(body);
        });
      },
      putJson: (at, body) => {
        assert.equal(at, `${path}/lease`);
        return call('put', () => {
          if (server.lease === undefined) throw new KubeError('NOT_FOUND', 'x', { status: 404 });
          const given = stringAt(asRecord(asRecord(body)?.['metadata']), 'resourceVersion');
          if (given !== server.storedVersion) throw conflict();
          return server.write(body);
        });
      },
    },
    namespace: 'kube-system',
    name: 'lease',
    identity,
    clock,
    log,
    timing,
    random: () => random,
    lead: () => {
      fixture.leads += 1;
      fixture.led += 1;
      return {
        [Symbol.asyncDispose]: () => {
          fixture.leads -= 1;
          return Promise.resolve();
        },
      };
    },
  });
  return { election, fixture, log, clock };
}

/** Passes time for both, in steps shorter than every deadline. */
async function passBoth(one: HandClock, other: HandClock, ms: number, check = () => undefined) {
  for (let passed = 0; passed < ms; passed += 1_000) {
    await pass(one, 1_000);
    await pass(other, 1_000);
    check();
  }
}

describe('an election by a Lease', () => {
  it('makes the first candidate the leader, which renews the Lease', async () => {
    const server = new LeaseServer();
    const { election, fixture, clock } = run(server, 'a', new HandClock());
    await pass(clock, 4_000);
    assert.deepEqual(server.calls, [], 'nodes that start together do not look together');
    await pass(clock, 2_000);
    assert.deepEqual([election.isLeader, fixture.leads, server.holder], [true, 1, 'a']);
    await pass(clock, 600_000);
    assert.deepEqual([election.isLeader, fixture.leads, fixture.led], [true, 1, 1]);
    const puts = server.calls.filter((call) => call === 'a put').length;
    assert.ok(puts >= 38 && puts <= 41, `${puts} renewals in ten minutes`);
  });

  it('does not take a renewed Lease, whatever the clocks of the two show', async () => {
    for (const skewMs of [-86_400_000, 86_400_000]) {
      const server = new LeaseServer();
      const a = run(server, 'a', new HandClock(Date.UTC(2026, 0, 1)));
      await pass(a.clock, 6_000);
      const b = run(server, 'b', new HandClock(Date.UTC(2026, 0, 1) + skewMs));
      await passBoth(a.clock, b.clock, 1_800_000, () => {
        assert.ok(!b.election.isLeader && a.election.isLeader);
        return undefined;
      });
      assert.deepEqual([server.holder, b.fixture.led], ['a', 0]);
      const gets = server.calls.filter((call) => call === 'b get').length;
      assert.ok(gets >= 14 && gets <= 16, `one read every two minutes: ${gets} in half an hour`);
    }
  });

  it('changes the leader when the holder is killed, and never has two', async () => {
    const server = new LeaseServer();
    const a = run(server, 'a', new HandClock());
    const b = run(server, 'b', new HandClock());
    await passBoth(a.clock, b.clock, 20_000);
    const [dead, heir] = a.election.isLeader ? [a, b] : [b, a];
    // Its clock stops here, like that of a stopped process.
    let waitedMs = 0;
    while (!heir.election.isLeader) {
      await pass(heir.clock, 1_000);
      waitedMs += 1_000;
      assert.ok(waitedMs < 400_000, 'no new leader');
    }
    assert.ok(waitedMs >= 60_000, `after ${waitedMs} ms, less than the Lease lasts`);
    assert.equal(server.spec?.['leaseTransitions'], 1);
    // It continues, and finds that its time is over before it leads again.
    await pass(dead.clock, 41_000);
    assert.deepEqual([dead.election.isLeader, dead.fixture.leads], [false, 0]);
    assert.deepEqual([heir.election.isLeader, heir.fixture.leads], [true, 1]);
  });

  it('ends a leadership before another can begin, when renewals fail', async () => {
    const server = new LeaseServer();
    const a = run(server, 'a', new HandClock());
    await pass(a.clock, 6_000);
    a.fixture.failure = new KubeError('NETWORK', 'away');
    await pass(a.clock, 30_000);
    assert.ok(a.election.isLeader, 'two renewals may fail');
    await pass(a.clock, 25_000);
    assert.deepEqual([a.election.isLeader, a.fixture.leads], [false, 0]);
    assert.deepEqual(
      a.log.lines.map(({ message }) => message),
      ['Lease acquired', 'failed to read or write Lease', 'Lease lost'],
      'one line for all tries',
    );
    a.fixture.failure = undefined;
    await pass(a.clock, 400_000);
    assert.deepEqual([a.election.isLeader, a.fixture.leads, a.fixture.led], [true, 1, 2]);
  });

  it('continues when the answer to a renewal was lost', async () => {
    const server = new LeaseServer();
    const a = run(server, 'a', new HandClock());
    await pass(a.clock, 6_000);
    server.write(server.lease);
    await pass(a.clock, 120_000);
    assert.deepEqual([a.election.isLeader, a.fixture.leads, a.fixture.led], [true, 1, 1]);
  });

  it('ends at once when another candidate took the Lease, or it was deleted', async () => {
    const server = new LeaseServer();
    const a = run(server, 'a', new HandClock());
    await pass(a.clock, 6_000);
    server.write({ spec: { holderIdentity: 'b' } });
    await pass(a.clock, 16_000);
    assert.deepEqual([a.election.isLeader, a.fixture.leads, server.holder], [false, 0, 'b']);
    await pass(a.clock, 400_000);
    assert.ok(a.election.isLeader, 'and it was not renewed');
    server.lease = undefined;
    await pass(a.clock, 16_000);
    assert.deepEqual([a.election.isLeader, a.fixture.leads], [false, 0]);
    await pass(a.clock, 200_000);
    assert.deepEqual([a.election.isLeader, a.fixture.led], [true, 3]);
  });

  it('ends with its disposal, and the Lease is free at once', async () => {
    const server = new LeaseServer();
    const a = run(server, 'a', new HandClock());
    await pass(a.clock, 6_000);
    await a.election[Symbol.asyncDispose]();
    assert.deepEqual([a.fixture.leads, server.holder, a.clock.armed.length], [0, '', 0]);
    assert.deepEqual(
      a.log.lines.map(({ message }) => message),
      ['Lease acquired'],
      'it was not lost',
    );
    const b = run(server, 'b', new HandClock());
    await pass(b.clock, 6_000);
    assert.ok(b.election.isLeader);
  });

  it('retries every ten minutes or less often when a permission is missing, and logs it once', async () => {
    const server = new LeaseServer();
    const a = run(server, 'a', new HandClock());
    a.fixture.failure = new KubeError('FORBIDDEN', 'no', { status: 403 });
    await pass(a.clock, 7_200_000);
    assert.ok(server.calls.length >= 7 && server.calls.length <= 12, `${server.calls.length}`);
    assert.equal(a.log.lines.length, 1);
    a.fixture.failure = undefined;
    await pass(a.clock, 1_200_000);
    assert.ok(a.election.isLeader);
  });

  it('is won by one of two that read at the same moment', async () => {
    const server = new LeaseServer();
    const clock = new HandClock();
    const a = run(server, 'a', clock);
    const b = run(server, 'b', clock);
    await pass(clock, 30_000);
    assert.equal([a, b].filter(({ election }) => election.isLeader).length, 1);
    assert.deepEqual(
      [...a.log.lines, ...b.log.lines].map(({ message }) => message),
      ['Lease acquired'],
    );
  });
});
