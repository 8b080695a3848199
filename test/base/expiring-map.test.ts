import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ExpiringMap } from '../../src/base/expiring-map.ts';
import { HandClock } from '../support/hand-clock.ts';

/** A reference model: a list, with the most recently used entry last. */
class Model {
  readonly #max: number;
  entries: { key: string; value: number; untilMs: number }[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  get(key: string): number | undefined {
    const entry = this.entries.find((each) => each.key === key);
    if (entry === undefined) return undefined;
    this.delete(key);
    this.entries.push(entry);
    return entry.value;
  }

  set(key: string, value: number, untilMs: number, nowMs: number): void {
    this.delete(key);
    if (untilMs > nowMs) this.entries.push({ key, value, untilMs });
    this.entries = this.entries.slice(-this.#max);
  }

  delete(key: string): boolean {
    const before = this.entries.length;
    this.entries = this.entries.filter((each) => each.key !== key);
    return this.entries.length < before;
  }
}

const anyKey = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const anyStep = fc.oneof(
  fc.record({ kind: fc.constant('get'), key: anyKey }),
  fc.record({ kind: fc.constant('delete'), key: anyKey }),
  fc.record({ kind: fc.constant('drop'), rest: fc.nat(2) }),
  fc.record({ kind: fc.constant('pass'), ms: fc.nat(8) }),
  fc.record({
    kind: fc.constant('set'),
    key: anyKey,
    lifeMs: fc.constantFrom(-1, 0, 1, 5, 10, undefined),
  }),
);

describe('an expiring map', () => {
  it('behaves like a list in order of use', () => {
    fc.assert(
      fc.property(
        fc.array(anyStep, { maxLength: 60 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, max) => {
          const clock = new HandClock();
          const model = new Model(max);
          const map = new ExpiringMap<number>(clock, max);
          for (const [value, step] of steps.entries()) {
            if ('ms' in step) {
              clock.advance(step.ms);
              model.entries = model.entries.filter(({ untilMs }) => untilMs > clock.monotonicMs());
            } else if ('lifeMs' in step) {
              const nowMs = clock.monotonicMs();
              map.set(step.key, value, step.lifeMs);
              model.set(step.key, value, nowMs + (step.lifeMs ?? Infinity), nowMs);
            } else if ('rest' in step) {
              map.deleteWhere((each) => each % 3 === step.rest);
              model.entries = model.entries.filter((each) => each.value % 3 !== step.rest);
            } else if (step.kind === 'get') {
              assert.equal(map.get(step.key), model.get(step.key));
            } else {
              assert.equal(map.delete(step.key), model.delete(step.key));
            }
            assert.equal(map.size, model.entries.length);
            const expiring = model.entries.filter(({ untilMs }) => untilMs !== Infinity);
            assert.equal(clock.armed.length, expiring.length);
          }
          map[Symbol.dispose]();
          assert.deepEqual([map.size, clock.armed], [0, []]);
        },
      ),
    );
  });

  it('evicts the entry that was not used for longest', () => {
    const map = new ExpiringMap<number>(new HandClock(), 2);
    map.set('a', 1);
    map.set('b', 2);
    map.get('a');
    map.set('c', 3);
    assert.deepEqual([map.get('a'), map.get('b')], [1, undefined]);
  });

  it('returns nothing after its time, however late the timer is', () => {
    let nowMs = 0;
    const late = { wallMs: () => 0, monotonicMs: () => nowMs, schedule: () => () => undefined };
    const map = new ExpiringMap<string>(late, 10);
    map.set('a', 'value', 5);
    nowMs = 4.9;
    assert.equal(map.get('a'), 'value');
    nowMs = 5;
    assert.equal(map.get('a'), undefined);
    assert.equal(map.delete('a'), true, 'it is still in memory');
  });

  it('accepts nothing after its disposal', () => {
    const clock = new HandClock();
    const map = new ExpiringMap<string>(clock, 10);
    map.set('a', 'value', 5);
    map[Symbol.dispose]();
    map.set('b', 'value', 5);
    map.set('c', 'value');
    assert.deepEqual([map.size, clock.armed], [0, []]);
  });
});
