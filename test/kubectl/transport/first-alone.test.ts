import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { firstAlone } from '../../../src/kubectl/transport/first-alone.ts';
import { ok } from '../support/recorded-kubectl.ts';

describe('calls of kubectl', () => {
  const open = (mayAsk: boolean) => {
    const started: string[] = [];
    const ends: ((run: ProgramRun) => void)[] = [];
    const run = firstAlone(
      (_program, [name = '']) => {
        started.push(name);
        const { promise, resolve } = Promise.withResolvers<ProgramRun>();
        ends.push(resolve);
        return promise;
      },
      () => Promise.resolve(mayAsk),
    );
    const all = ['a', 'b', 'c'].map((name) => run('kubectl', [name]));
    return { started, ends, all };
  };

  it('wait for the first one where a login plugin may ask', async () => {
    const { started, ends, all } = open(true);
    await nextTurn();
    assert.deepEqual(started, ['a']);
    ends[0]?.(ok('one'));
    await nextTurn();
    assert.deepEqual(started, ['a', 'b', 'c']);
    for (const end of ends) end(ok('other'));
    assert.equal((await Promise.all(all))[0]?.stdout, 'one');
  });

  it('run at once elsewhere', async () => {
    const { started } = open(false);
    await nextTurn();
    assert.deepEqual(started, ['a', 'b', 'c']);
  });
});
