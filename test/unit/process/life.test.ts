import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { OwnTime } from '../../../lab/pods/own-time.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { wakeUpsPerSecond } from '../../support/wake-ups.ts';
import { openServices, startNmi, type Services } from './agent-child.ts';

/** Requests on new connections, of which each is under way upstream. */
async function askLater(testBed: Services, ...resources: readonly string[]) {
  const answers = resources.map((resource) =>
    ask(testBed.pod, tokenTarget.replace('https://vault.azure.net', `https://${resource}`)).then(
      (reply) => reply.identity ?? String(reply.status),
      (error: unknown) => (error instanceof Error ? error.message : 'unknown'),
    ),
  );
  await eventually(() => {
    assert.equal(testBed.imds.requests().length, resources.length, 'requests under way upstream');
  });
  return answers;
}

describe('the agent process at its end', { timeout: 600_000 }, () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`finishes requests under way on ${signal}, takes no new ones and ends with 0`, async () => {
      await using testBed = await openServices();
      const child = testBed.start();
      await testBed.untilReady();
      await testBed.imds.setFaults({ delayMs: 500, paths: 'token' });
      const answers = await askLater(testBed, 'one', 'two', 'three');
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
    const [answer] = await askLater(testBed, 'never');
    const startMs = performance.now();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs > 9_000 && tookMs < 14_000, `${Math.round(tookMs)} ms`);
    // The limits of the fetch and of this client are the same, so any of the three may come first.
    assert.match((await answer) ?? '', /^503$|ECONNRESET|TIMEOUT/);
  });

  it('ends at once on a second signal', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    await testBed.imds.setFaults({ hang: true, paths: 'token' });
    const [answer] = await askLater(testBed, 'never');
    child.signal('SIGTERM');
    await child.untilPrinted(/shutting down/);
    using time = new OwnTime();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 1);
    assert.ok(time.nowMs() < 2_000);
    assert.match((await answer) ?? '', /ECONNRESET/);
  });

  // 192.0.2.0/24 is reserved for documentation: no machine has it.
  const pinned = ['--redirect=pinned', '--nmi-listen-address=192.0.2.1'];
  for (const [printed, flags] of [
    // It waits for the redirect of another container.
    ['starting nmi process', pinned],
    ['redirect chosen', pinned],
    // It waits for lists of the API server.
    ['listening', []],
  ] as const) {
    it(`stops at once after "${printed}", before it is ready`, async () => {
      await using testBed = await openServices();
      testBed.kube.faults.hang = true;
      const child = testBed.start([...testBed.flags, ...flags]);
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
});

describe('the agent process', { timeout: 600_000 }, () => {
  it('continues after SIGUSR1, opens no debugger, and wakes less than four times a second', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    child.signal('SIGUSR1');
    // Node opens a debugger, and reports it on standard error, within some milliseconds.
    await delay(500);
    assert.equal((await ask(testBed.pod, tokenTarget)).identity, 'a');
    // Compilation and garbage collection in the background end, idle connections close: within
    // seconds, unless the machine is busy.
    const assertIdle = async (): Promise<void> => {
      const wakeUps = await wakeUpsPerSecond(child.pid);
      assert.ok(wakeUps > 0 && wakeUps < 4, `${wakeUps} wake-ups a second`);
    };
    await eventually(assertIdle, 60_000);
    await assertIdle();
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    assert.equal(child.stderr(), '');
  });

  it('is explained by another one while it runs, which reports the problem before, between and after', async () => {
    await using testBed = await openServices();
    const socket = join(testBed.folder, 'explain.sock');
    const explain = async (...words: readonly string[]) => {
      const child = startNmi(['explain', ...words], { NMI_EXPLAIN_SOCKET: socket });
      return { code: await child.exited, text: child.stdout() + child.stderr() };
    };
    const before = await explain();
    assert.equal(before.code, 69);
    assert.match(before.text, /it is not running here/);

    const first = testBed.start();
    await testBed.untilReady();
    const told = await explain('--pod=default/p');
    assert.equal(told.code, 0, told.text);
    assert.match(told.text, /gets a token of AzureIdentity a \(the only one bound\)\.$/m);

    first.signal('SIGKILL');
    await first.exited;
    const between = await explain();
    assert.equal(between.code, 69);
    assert.match(between.text, /no agent answers at .* \(ECONNREFUSED\): /);

    const second = testBed.start();
    await testBed.untilReady();
    assert.equal((await explain()).code, 0, second.stdout());
    second.signal('SIGTERM');
    assert.equal(await second.exited, 0);
    assert.equal(existsSync(socket), false);
  });
});
