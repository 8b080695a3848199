import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../lab/world/eventually.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { openSurroundings, type Surroundings } from './agent-child.ts';

async function untilUpstream(world: Surroundings, count: number): Promise<void> {
  await eventually(() => {
    assert.equal(world.imds.requests().length, count, 'requests under way upstream');
  });
}

/** One request on a connection of its own, for work beside it. */
function askLater(world: Surroundings, resource: string) {
  const target = tokenTarget.replace('https://vault.azure.net', `https://${resource}`);
  return ask(world.pod, target).then(
    (reply) => reply.identity ?? String(reply.status),
    (error: unknown) => (error instanceof Error ? error.message : 'unknown'),
  );
}

describe('the agent process at its end', { timeout: 120_000 }, () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`finishes requests under way on ${signal}, takes no new ones and ends with 0`, async () => {
      await using world = await openSurroundings();
      const child = world.start();
      await world.untilReady();
      await world.imds.setFaults({ delayMs: 500, paths: 'token' });
      const answers = [askLater(world, 'one'), askLater(world, 'two'), askLater(world, 'three')];
      await untilUpstream(world, 3);
      child.signal(signal);
      await child.untilPrinted(/shutting down, redirect stays installed/);
      await eventually(async () => {
        await assert.rejects(ask(world.pod, tokenTarget), /ECONNREFUSED/);
      });
      assert.deepEqual(await Promise.all(answers), ['a', 'a', 'a']);
      assert.equal(await child.exited, 0);
      assert.match(child.stdout(), /"code":0,"msg":"stopped"/);
      assert.equal(child.stderr(), '');
    });
  }

  it('ends with 0 within its drain limit when a request upstream never finishes', async () => {
    await using world = await openSurroundings();
    const child = world.start();
    await world.untilReady();
    await world.imds.setFaults({ hang: true, paths: 'token' });
    const answer = askLater(world, 'never');
    await untilUpstream(world, 1);
    const startMs = performance.now();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs > 9_000 && tookMs < 14_000, `${Math.round(tookMs)} ms`);
    // The limits of the fetch and of this client are as long, so any of the three may come first.
    assert.match(await answer, /^503$|ECONNRESET|TIMEOUT/);
  });

  it('goes on after SIGUSR1, and opens no debugger', async () => {
    await using world = await openSurroundings();
    const child = world.start();
    await world.untilReady();
    child.signal('SIGUSR1');
    // Node opens it, and reports that on standard error, within some milliseconds.
    await delay(500);
    assert.equal((await ask(world.pod, tokenTarget)).identity, 'a');
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    assert.equal(child.stderr(), '');
  });

  it('ends at once on a second signal', async () => {
    await using world = await openSurroundings();
    const child = world.start();
    await world.untilReady();
    await world.imds.setFaults({ hang: true, paths: 'token' });
    const answer = askLater(world, 'never');
    await untilUpstream(world, 1);
    child.signal('SIGTERM');
    await child.untilPrinted(/shutting down/);
    const startMs = performance.now();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 1);
    assert.ok(performance.now() - startMs < 2_000);
    assert.match(await answer, /ECONNRESET/);
  });

  for (const printed of ['starting nmi process', 'redirect chosen']) {
    it(`stops at once after "${printed}", though it waits for the redirect of another container`, async () => {
      await using world = await openSurroundings();
      // 192.0.2.0/24 is for documentation: no machine has it.
      const pinned = ['--redirect=pinned', '--nmi-listen-address=192.0.2.1'];
      const child = world.start([...world.flags, ...pinned]);
      await child.untilPrinted(new RegExp(`"msg":"${printed}"`));
      const startMs = performance.now();
      child.signal('SIGTERM');
      assert.equal(await child.exited, 0);
      const tookMs = performance.now() - startMs;
      assert.ok(tookMs < 1_000, `${Math.round(tookMs)} ms`);
      assert.match(child.stdout(), /"code":0,"msg":"stopped"/);
      assert.equal(child.stderr(), '');
    });
  }

  it('stops before it was ready', async () => {
    await using world = await openSurroundings();
    world.kube.faults.hang = true;
    const child = world.start();
    await child.untilPrinted(/"msg":"listening"/);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
  });
});
