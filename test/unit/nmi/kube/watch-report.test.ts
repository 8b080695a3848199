import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ReflectorStats } from '../../../../src/nmi/kube/watch/reflector.ts';
import type { WatchedResource, Watches } from '../../../../src/nmi/kube/watch/watches.ts';
import {
  watchConditions,
  watchProblems,
  whyBehind,
} from '../../../../src/nmi/kube/watch/watch-report.ts';

type Stats = ReturnType<Watches['stats']>;

const healthy = { syncedOnce: true, lastContactAgeMs: 3_400, stalenessMs: 3_400 };
const refused = {
  code: 'FORBIDDEN',
  message: 'bindings is forbidden:\nUser "nmi"',
  forMs: 40_900,
  isAbsence: false,
} as const;
const never = { syncedOnce: false, lastContactAgeMs: undefined, stalenessMs: 41_000 };

function statsWith(over: Partial<Record<WatchedResource, Partial<ReflectorStats>>> = {}): Stats {
  const names = ['pods', 'identities', 'bindings', 'exceptions', 'grants'] as const;
  const all = names.map((name) => [name, { ...healthy, failure: undefined, ...over[name] }]);
  return Object.fromEntries(all) as Stats;
}

const failing = statsWith({
  bindings: { ...never, failure: refused },
  grants: { failure: { code: 'NOT_FOUND', message: 'no such', forMs: 60_000, isAbsence: true } },
});

describe('the report of watches', () => {
  it('does not count a kind that the cluster does not have as a failure', () => {
    const reason = 'FORBIDDEN: bindings is forbidden:?User "nmi"';
    assert.deepEqual(watchProblems(failing), [{ resource: 'bindings', reason, forMs: 40_900 }]);
    assert.equal(whyBehind(failing), `the watch of bindings has failed for 40 s (${reason})`);
    assert.equal(whyBehind(failing, 'pods'), undefined);
    assert.equal(whyBehind(statsWith()), undefined);
  });

  it('shows at most one bounded line of received text', () => {
    const long = { ...refused, message: 'é'.repeat(5_000) };
    const [problem] = watchProblems(statsWith({ pods: { failure: long } }));
    assert.equal(problem?.reason, `FORBIDDEN: ${'?'.repeat(200)}`);
    const mute = { ...refused, message: '' };
    assert.equal(
      whyBehind(statsWith({ pods: { failure: mute } })),
      'the watch of pods has failed for 40 s (FORBIDDEN)',
    );
  });

  it('names the cause of a missing first list, without a constantly changing time', () => {
    const problemOf = (names: readonly WatchedResource[]) => {
      const watches = { unsynced: () => names, ages: () => [], stats: () => failing };
      return watchConditions(watches, 1_000)[0]?.problem();
    };
    assert.equal(problemOf([]), undefined);
    assert.equal(
      problemOf(['pods', 'bindings']),
      'waiting for pods, bindings (FORBIDDEN: bindings is forbidden:?User "nmi")',
    );
  });
});
