import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { tuning } from '../../../src/nmi/config/tuning.ts';

describe('the limits of the agent', () => {
  it('allow as long as Kubernetes and the callers wait, and no longer', () => {
    const manifest = readFileSync(new URL('../../../deploy/nmi.yaml', import.meta.url), 'utf8');
    const [, stopSec] = /^ {6}terminationGracePeriodSeconds: (\d+)$/m.exec(manifest)!;
    const stopMs = Number(stopSec) * 1_000;
    assert.ok(tuning.drainTimeoutMs >= tuning.entraTimeoutMs, 'a running token request ends');
    assert.ok(tuning.drainTimeoutMs < stopMs, 'the agent ends before it is killed');
    for (const timeoutMs of [tuning.entraTimeoutMs, tuning.imdsTimeoutMs]) {
      assert.ok(timeoutMs > tuning.lateObjectWaitMs, 'a late pod still gets its token');
    }
    assert.ok(tuning.lateObjectWaitMs >= 1_000, 'an event of a watch may take a second');
    assert.ok(tuning.bindingGraceMs > tuning.lateObjectWaitMs);
    assert.ok(tuning.watchStalenessLimitMs > 2 * 101_000, 'a lost proof does no harm');
    assert.ok(tuning.tokenCacheSize >= 250 * 80);
  });
});
