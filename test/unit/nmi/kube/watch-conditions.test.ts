import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readiness } from '../../../../src/nmi/base/readiness.ts';
import type { Watches } from '../../../../src/nmi/kube/watch/watches.ts';
import { watchConditions } from '../../../../src/nmi/kube/watch/watch-report.ts';

const healthy = { syncedOnce: true, lastContactAgeMs: 0, stalenessMs: 0, failure: undefined };
const stats = () =>
  ({
    pods: healthy,
    identities: healthy,
    bindings: healthy,
    exceptions: healthy,
    grants: healthy,
  }) as unknown as ReturnType<Watches['stats']>;

describe('readiness by the watches', () => {
  it('is missing while one is not synced', () => {
    const watches = { unsynced: () => ['pods', 'bindings'] as const, ages: () => [], stats };
    assert.deepEqual(readiness([{ conditions: watchConditions(watches, 1000) }]), {
      ready: false,
      missing: { watches: 'waiting for pods, bindings' },
    });
  });

  it('is missing while one has not been confirmed current for longer than the limit', () => {
    const ages = { pods: 300_001, identities: 12, bindings: 300_000, exceptions: 300_002 } as const;
    const all = Object.entries(ages).map(([resource, stalenessMs]) => ({ resource, stalenessMs }));
    const watches = { unsynced: () => [], ages: () => all, stats };
    assert.deepEqual(readiness([{ conditions: watchConditions(watches, 300_000) }]), {
      ready: false,
      missing: {
        watches_current: 'not proven current: pods for 5 min 0 s, exceptions for 5 min 0 s',
      },
    });
    assert.deepEqual(readiness([{ conditions: watchConditions(watches, 400_000) }]), {
      ready: true,
      missing: {},
    });
  });
});
