import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openServices, startNmi, type Services } from './agent-child.ts';

async function explain({ folder }: Services, ...words: readonly string[]) {
  const child = startNmi(['explain', ...words], {
    NMI_EXPLAIN_SOCKET: join(folder, 'explain.sock'),
  });
  const code = await child.exited;
  return { code, stdout: child.stdout(), stderr: child.stderr() };
}

describe('nmi explain in a separate process', () => {
  it('explains while the agent runs, and reports the problem before, between and after', async () => {
    await using testBed = await openServices();
    const before = await explain(testBed);
    assert.equal(before.code, 69);
    assert.match(before.stderr, /it is not running here/);

    const first = testBed.start();
    await testBed.untilReady();
    const told = await explain(testBed, '--pod=default/p');
    assert.equal(told.code, 0, told.stderr);
    assert.match(told.stdout, /gets a token of AzureIdentity a \(the only one bound\)\.$/m);

    first.signal('SIGKILL');
    await first.exited;
    const between = await explain(testBed);
    assert.equal(between.code, 69);
    assert.match(between.stderr, /no agent answers at .* \(ECONNREFUSED\): /);

    const second = testBed.start();
    await testBed.untilReady();
    assert.equal((await explain(testBed)).code, 0, second.stdout());
    second.signal('SIGTERM');
    assert.equal(await second.exited, 0);
    assert.equal(existsSync(join(testBed.folder, 'explain.sock')), false);
  });
});
