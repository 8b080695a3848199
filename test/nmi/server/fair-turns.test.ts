import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FairTurns } from '../../../src/nmi/server/fair-turns.ts';

/** Turns that the test ends; work takes the given time. */
function openTurns() {
  let nowMs = 0;
  const due: (() => void)[] = [];
  const done: string[] = [];
  const turns = new FairTurns(
    () => nowMs,
    (work) => due.push(work),
  );
  return {
    done,
    due,
    turns,
    run: (caller: string, takesMs: number) =>
      turns.run(caller, () => {
        nowMs += takesMs;
        done.push(caller);
      }),
    /** @returns the work done in the turn, in order. */
    nextTurn: () => {
      done.length = 0;
      for (const work of due.splice(0)) work();
      return done.join('');
    },
  };
}

describe('turns of the event loop', () => {
  it('serve callers with little work at once', () => {
    const { run, done, due } = openTurns();
    for (let count = 0; count < 3; count++) assert.equal(run('a', 0.001), true);
    assert.equal(done.length, 3);
    assert.equal(due.length, 0, 'no turn is scheduled');
    run('a', 0.02);
    run('b', 0.2);
    assert.equal(due.length, 1, 'one turn for all');
  });

  it('defer the excess work of one caller to the next turn, without effect on others', () => {
    const { run, nextTurn } = openTurns();
    const wasAtOnce = Array.from({ length: 8 }, () => run('a', 0.15));
    assert.deepEqual(wasAtOnce, [true, true, true, false, false, false, false, false]);
    assert.equal(run('b', 0.15), true);
    assert.equal(nextTurn(), 'aaa');
    assert.equal(run('b', 0.15), true);
    assert.equal(run('a', 0.15), false, 'behind the deferred work');
    assert.equal(nextTurn(), 'aaa');
    assert.equal(nextTurn(), '');
    assert.equal(run('a', 0.1), true);
  });

  it('serve all deferred callers, each up to its share', () => {
    const { run, nextTurn } = openTurns();
    for (const caller of ['a', 'b']) for (let count = 0; count < 5; count++) run(caller, 0.25);
    assert.equal(nextTurn(), 'aabb');
    assert.equal(nextTurn(), 'ab');
  });

  it('keep the order of one caller, including work that its work adds', () => {
    const { run, turns, done, nextTurn } = openTurns();
    for (let count = 0; count < 3; count++) run('a', 0.15);
    turns.run('a', () => {
      done.push('1');
      turns.run('a', () => done.push('3'));
    });
    turns.run('a', () => done.push('2'));
    assert.equal(nextTurn(), '123');
  });

  it('count the overhead around requests that take no time', () => {
    const { run, nextTurn } = openTurns();
    const wasAtOnce = Array.from({ length: 40 }, () => run('a', 0));
    const atOnce = wasAtOnce.filter(Boolean).length;
    assert.ok(atOnce >= 10 && atOnce <= 20, `${atOnce}`);
    assert.equal(nextTurn().length, atOnce);
  });

  it('are short while connections are accepted, until a turn accepts none', () => {
    const { turns, run, nextTurn } = openTurns();
    turns.accepted();
    for (let count = 0; count < 8; count++) run('a', 0.08);
    assert.equal(run('b', 0), true);
    turns.accepted();
    assert.equal(nextTurn(), 'a', 'one was accepted in the turn before');
    assert.equal(nextTurn(), 'aaaa', 'up to a whole share');
    assert.equal(nextTurn(), 'aa');
    assert.equal(nextTurn(), '');
  });

  it('have full length again after a short one, even if nothing waits', () => {
    const { turns, run, nextTurn } = openTurns();
    turns.accepted();
    assert.equal(run('a', 0.03), true);
    nextTurn();
    nextTurn();
    assert.deepEqual([run('a', 0.03), run('a', 0.03), run('a', 0.03)], [true, true, true]);
    assert.equal(run('b', 0.2), true);
    assert.equal(run('b', 0.2), true);
    assert.equal(run('b', 0.2), false);
    assert.equal(nextTurn(), 'b');
  });

  it('count work that is done later', () => {
    const { turns, run, nextTurn } = openTurns();
    turns.charge('a', 0.4);
    assert.equal(run('b', 0.1), true);
    assert.equal(run('a', 0.1), false);
    assert.equal(nextTurn(), 'a');
  });

  it('forget callers, however many there are', () => {
    const { run, due, nextTurn } = openTurns();
    for (let count = 0; count < 1_024; count++) run(`${count}`, 0.001);
    assert.equal(due.length, 0);
    run('one more', 0.001);
    assert.equal(due.length, 1);
    nextTurn();
    run('another', 0.001);
    assert.equal(due.length, 0);
  });

  it('are turns of the real event loop', async () => {
    const turns = new FairTurns(() => performance.now());
    const burn = (): void => {
      const untilMs = performance.now() + 0.3;
      while (performance.now() < untilMs);
    };
    let turnsSeen = 0;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const watch = (): void => void (turnsSeen++, setImmediate(watch).unref());
    watch();
    for (let count = 0; count < 40; count++) turns.run('a', burn);
    turns.run('a', () => resolve(undefined));
    await promise;
    assert.ok(turnsSeen >= 10, `${turnsSeen}`);
  });
});
