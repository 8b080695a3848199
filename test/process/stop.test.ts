import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';
import { openServices, type Services } from './agent-child.ts';

async function untilUpstream(testBed: Services, count: number): Promise<void> {
  await eventually(() => {
    assert.equal(testBed.imds.requests().length, count, 'requests under way upstream');
  });
}

/** One request on a new connection, for work beside it. */
function askLater(testBed: Services, resource: string) {
  const target = tokenTarget.replace('https://vault.azure.net', `https://${resource}`);
  return ask(testBed.pod, target).then(
    (reply) => reply.identity ?? String(reply.status),
    (error: unknown) => (error instanceof Error ? error.message : 'unknown'),
  );
}

describe('the agent process at its end', { timeout: 600_000 }, () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`finishes requests under way on ${signal}, takes no new ones and ends with 0`, async () => {
      await using testBed = await openServices();
      const child = testBed.start();
      await testBed.untilReady();
      await testBed.imds.setFaults({ delayMs: 500, paths: 'token' });
      const answers = [
        askLater(testBed, 'one'),
        askLater(testBed, 'two'),
        askLater(testBed, 'three'),
      ];
      await untilUpstream(testBed, 3);
      child.signal(signal);
      await child.untilPrinted(/shutting down, redirect stays installed/);
      await eventually(async () => {
        await assert.rejects(ask(testBed.pod, tokenTarget), /ECONNREFUSED/);
      });
      assert.deepEqual(await Promise.all(answers), ['a', 'a', 'a']);
      assert.equal(await child.exited, 0);
      assert.match(child.stdout(), /"code":0,"msg":"stopped"/);
      assert.equal(child.stderr(), '');
    });
  }

  it('ends with 0 within its drain limit when a request upstream never finishes', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    await testBed.imds.setFaults({ hang: true, paths: 'token' });
    const answer = askLater(testBed, 'never');
    await untilUpstream(testBed, 1);
    const startMs = performance.now();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs > 9_000 && tookMs < 14_000, `${Math.round(tookMs)} ms`);
    // The limits of the fetch and of this client are the same, so any of the three may come first.
    assert.match(await answer, /^503$|ECONNRESET|TIMEOUT/);
  });

  it('continues after SIGUSR1, and opens no debugger', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    child.signal('SIGUSR1');
    // Node opens a debugger, and reports it on standard error, within some milliseconds.
    await delay(500);
    assert.equal((await ask(testBed.pod, tokenTarget)).identity, 'a');
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    assert.equal(child.stderr(), '');
  });

  it('ends at once on a second signal', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    await testBed.imds.setFaults({ hang: true, paths: 'token' });
    const answer = askLater(testBed, 'never');
    await untilUpstream(testBed, 1);
    child.signal('SIGTERM');
    await child.untilPrinted(/shutting down/);
    using time = new OwnTime();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 1);
    assert.ok(time.nowMs() < 2_000);
    assert.match(await answer, /ECONNRESET/);
  });

  for (const printed of ['starting nmi process', 'redirect chosen']) {
    it(`stops at once after "${printed}", though it waits for the redirect of another container`, async () => {
      await using testBed = await openServices();
      // 192.0.2.0/24 is reserved for documentation: no machine has it.
      const pinned = ['--redirect=pinned', '--nmi-listen-address=192.0.2.1'];
      const child = testBed.start([...testBed.flags, ...pinned]);
      await child.untilPrinted(new RegExp(`"msg":"${printed}"`));
      using time = new OwnTime();
      child.signal('SIGTERM');
      assert.equal(await child.exited, 0);
      const tookMs = time.nowMs();
      assert.ok(tookMs < 1_000, `${Math.round(tookMs)} ms`);
      assert.match(child.stdout(), /"code":0,"msg":"stopped"/);
      assert.equal(child.stderr(), '');
    });
  }

  it('stops before it is ready', async () => {
    await using testBed = await openServices();
    testBed.kube.faults.hang = true;
    const child = testBed.start();
    await child.untilPrinted(/"msg":"listening"/);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
  });
});
