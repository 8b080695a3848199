import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { IdleProcessors } from './idle-processors.ts';

describe('idle processors', () => {
  let [atMs, idleMs] = [0, 0];
  const pass = (seconds: number, idle: number): void => {
    atMs += seconds * 1_000;
    idleMs += seconds * 1_000 * idle;
  };

  it('are those of the last seconds, and none until the load of what began last shows', () => {
    const idle = new IdleProcessors(() => ({ atMs, idleMs }));
    pass(3, 2);
    assert.equal(idle.read(), 0);
    pass(3, 2);
    assert.equal(idle.read(), 2);
    idle.restart();
    pass(5, 2);
    assert.equal(idle.read(), 0);
    pass(15, 0.4);
    assert.equal(idle.read(), 0.8);
    pass(6, 1.5);
    assert.equal(idle.read(), 1.5);
  });
});
