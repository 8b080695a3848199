import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bytesPerDay, relayGain, type Day } from '../../bench/scenarios/fleet-days.ts';

const day: Day = {
  podBytes: 1_000,
  changeBytes: 10,
  statusBytes: 20,
  reopenBytes: 5,
  idleBytes: 400,
  reopens: 20,
};
const level = { name: 'usual', pods: 7, objects: 100 };

describe('the day of a node', () => {
  it('costs what it costs without a change, and each change at its price', () => {
    assert.equal(bytesPerDay(level, day), 400 + 100 + 7_000 + 3_000);
    assert.equal(bytesPerDay({ ...level, pods: 0, objects: 0 }, day), 500);
  });

  it('costs less without the watch of the pods, one of five', () => {
    assert.equal(bytesPerDay(level, day, 'no pods'), 400 + 3_000);
  });

  it('costs the API server, behind a relay, its pods and a share of the rest', () => {
    assert.equal(relayGain(level, day, 100), 10_500 / (7_100 + 34));
    assert.equal(relayGain(level, day, 1), 1);
  });
});
