import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SecretFindings } from '../../../src/nmi/conditions/secret-findings.ts';
import { HandClock } from '../../support/hand-clock.ts';

const secret = { namespace: 'shop', name: 's' };
const missing = { kind: 'missing', problem: 'Secret shop/s does not exist' } as const;
const minute = 60_000;

function open() {
  const clock = new HandClock();
  return { clock, findings: new SecretFindings(clock) };
}

describe('findings of Secrets', () => {
  it('are valid for half an hour when the Secret is readable', () => {
    const { clock, findings } = open();
    assert.equal(findings.get(secret), undefined);
    findings.set(secret, { kind: 'readable' });
    clock.advance(30 * minute - 1);
    assert.deepEqual(findings.get(secret), { kind: 'readable' });
    clock.advance(1);
    assert.equal(findings.get(secret), undefined);
  });

  it('are valid for a minute when it is missing, and longer over time', () => {
    const { clock, findings } = open();
    findings.set(secret, missing);
    clock.advance(minute - 1);
    assert.deepEqual(findings.get(secret), missing);
    clock.advance(1);
    assert.equal(findings.get(secret), undefined);
    let looks = 0;
    for (let second = 0; second < 6 * 3_600; second++) {
      clock.advance(1_000);
      if (findings.get(secret) !== undefined) continue;
      looks += 1;
      findings.set(secret, missing);
    }
    assert.ok(looks >= 14 && looks <= 20, `${looks} looks in six hours`);
    findings.set(secret, { kind: 'readable' });
    findings.set(secret, missing);
    clock.advance(minute);
    assert.equal(findings.get(secret), undefined, 'another state starts again');
  });

  it('are dropped when no identity names the Secret', () => {
    const { findings } = open();
    findings.set(secret, missing);
    findings.set({ namespace: 'shop', name: 'other' }, missing);
    findings.keepOnly(new Set(['shop/other']));
    assert.equal(findings.get(secret), undefined);
    assert.equal(findings.size, 1);
  });
});
