import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openSurroundings, startNmi, type Surroundings } from './agent-child.ts';

async function explain({ folder }: Surroundings, ...words: readonly string[]) {
  const child = startNmi(['explain', ...words], {
    NMI_EXPLAIN_SOCKET: join(folder, 'explain.sock'),
  });
  const code = await child.exited;
  return { code, stdout: child.stdout(), stderr: child.stderr() };
}

describe('nmi explain in a process of its own', () => {
  it('tells while the agent runs, and what is the matter before, between and after', async () => {
    await using world = await openSurroundings();
    const before = await explain(world);
    assert.equal(before.code, 69);
    assert.match(before.stderr, /the agent is not running here/);

    const first = world.start();
    await world.untilReady();
    const told = await explain(world, '--pod=default/p');
    assert.equal(told.code, 0, told.stderr);
    assert.match(told.stdout, /gets a token of AzureIdentity a \(the only one bound\)\.$/m);

    first.signal('SIGKILL');
    await first.exited;
    const between = await explain(world);
    assert.equal(between.code, 69);
    assert.match(between.stderr, /nobody answers at .*: the agent is not running/);

    const second = world.start();
    await world.untilReady();
    assert.equal((await explain(world)).code, 0, second.stdout());
    second.signal('SIGTERM');
    assert.equal(await second.exited, 0);
    assert.equal(existsSync(join(world.folder, 'explain.sock')), false);
  });
});
