import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { freshNative } from '../../../scripts/native.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { openListenerHolder } from '../../../src/nmi/kernel/listener-holder.ts';
import { askHolder, notes } from '../../../src/nmi/kernel/listener-notes.ts';
import { freePort } from '../../support/free-ports.ts';
import { HandClock } from '../../support/hand-clock.ts';

const program = join(import.meta.dirname, 'handover-child.ts');

let folder = '';
let made = 0;

before(() => {
  freshNative();
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-holder-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

interface Child {
  readonly pid: number;
  readonly output: () => string;
  readonly until: (text: RegExp) => Promise<void>;
  readonly end: (signal: NodeJS.Signals) => Promise<void>;
}

/** A node with pods of two processes each; its processes end with the test. */
async function openNode() {
  const port = await freePort();
  const place = join(folder, String((made += 1)));
  mkdirSync(place);
  const handoverPath = join(place, 'handover.sock');
  const running = new Set<Child>();
  const start = (...words: readonly string[]): Child => {
    const child = spawn(process.execPath, [program, ...words], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const exited = once(child, 'exit');
    const started: Child = {
      pid: child.pid ?? 0,
      output: () => output,
      until: (text) => eventually(() => assert.match(output, text), 15_000),
      end: async (signal) => {
        running.delete(started);
        child.kill(signal);
        await exited;
      },
    };
    running.add(started);
    return started;
  };
  const agentsPath = (pod: string) => join(place, pod, 'listener.sock');
  return {
    port,
    place,
    handoverPath,
    startHolder: (pod: string) => start('holder', String(port), agentsPath(pod), handoverPath),
    startAgent: (pod: string) => start('agent', String(port), agentsPath(pod)),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([...running].map((child) => child.end('SIGKILL')));
    },
  };
}

type Node = Awaited<ReturnType<typeof openNode>>;

async function startPod(node: Node, pod: string) {
  const holder = node.startHolder(pod);
  await holder.until(/^ready/m);
  const agent = node.startAgent(pod);
  await agent.until(/^ready/m);
  return { holder, agent };
}

/** @returns the process that answered, or the error code. */
function ask(port: number, agent: Agent | false): Promise<string> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, agent, timeout: 10_000 };
    const request = get(options, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve(/answered by (\d+)/.exec(body)?.[1] ?? body));
    });
    request.on('timeout', () => request.destroy(new Error('timed out')));
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

/** Sends requests over new and over kept connections until it is stopped. */
function startLoad(port: number) {
  const answers = new Map<string, number>();
  const agents: (Agent | false)[] = [false, false, false, false];
  for (let index = 0; index < 4; index++)
    agents.push(new Agent({ keepAlive: true, maxSockets: 1 }));
  const stopped = new AbortController();
  let longestMs = 0;
  const lanes = agents.map(async (agent) => {
    while (!stopped.signal.aborted) {
      const startedMs = performance.now();
      const answer = await ask(port, agent);
      longestMs = Math.max(longestMs, performance.now() - startedMs);
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
      await delay(2);
    }
    if (agent !== false) agent.destroy();
  });
  return {
    answers,
    total: () => [...answers.values()].reduce((sum, count) => sum + count, 0),
    stop: async () => {
      stopped.abort();
      await Promise.all(lanes);
      return longestMs;
    },
  };
}

describe('the listening socket that is kept for an agent', { timeout: 180_000 }, () => {
  it('refuses no connection when the agent is killed; the next agent answers the waiting clients', async () => {
    await using node = await openNode();
    const { agent } = await startPod(node, 'a');
    assert.equal(await ask(node.port, false), String(agent.pid));
    await agent.end('SIGKILL');
    const waiting = Array.from({ length: 20 }, () => ask(node.port, false));
    const next = node.startAgent('a');
    await next.until(/^ready, alone/m);
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set([String(next.pid)]));
  });

  it('is passed to the next pod under load, and no request fails', async () => {
    await using node = await openNode();
    let pod = await startPod(node, 'pod0');
    const load = startLoad(node.port);
    for (let update = 1; update <= 3; update++) {
      const next = await startPod(node, `pod${update}`);
      assert.match(next.agent.output(), /ready, shared/);
      assert.match(pod.holder.output(), /paused/);
      const served = load.total();
      await eventually(() => assert.ok(load.total() > served + 100));
      await pod.agent.end('SIGTERM');
      await pod.holder.end('SIGTERM');
      await next.holder.until(/the agent before has ended/);
      pod = next;
      const then = load.total();
      await eventually(() => assert.ok(load.total() > then + 100));
    }
    await load.stop();
    const failed = [...load.answers.keys()].filter((answer) => !/^\d+$/.test(answer));
    assert.deepEqual(failed, [], JSON.stringify([...load.answers]));
    assert.equal(load.answers.size, 4);
  });

  it('stays with the old pod when the new one is killed, which may come again', async () => {
    await using node = await openNode();
    const old = await startPod(node, 'old');
    const first = await startPod(node, 'new');
    await first.agent.end('SIGKILL');
    await first.holder.end('SIGKILL');
    await old.holder.until(/paused\nresumed/);
    assert.equal(await ask(node.port, false), String(old.agent.pid));
    const second = await startPod(node, 'new');
    assert.match(second.agent.output(), /ready, shared/);
    await old.agent.end('SIGTERM');
    await old.holder.end('SIGTERM');
    assert.equal(await ask(node.port, false), String(second.agent.pid));
    assert.equal(existsSync(node.handoverPath), true);
  });

  it('is passed back to a holder that was killed, which can then pass it on', async () => {
    await using node = await openNode();
    const { holder, agent } = await startPod(node, 'a');
    await holder.end('SIGKILL');
    assert.equal(await ask(node.port, false), String(agent.pid));
    const second = node.startHolder('a');
    await second.until(/^ready/m);
    const next = await eventually(() => startPod(node, 'b'), 10_000);
    assert.match(next.agent.output(), /ready, shared/);
    await agent.end('SIGKILL');
    await second.end('SIGTERM');
    assert.equal(await ask(node.port, false), String(next.agent.pid));
  });

  it('is closed when no agent has used it for ten seconds', async () => {
    await using node = await openNode();
    const clock = new HandClock();
    const agentsPath = join(node.place, 'a', 'listener.sock');
    await using _holder = await openListenerHolder({
      address: { ip: '127.0.0.1', port: node.port },
      agentsPath,
      handoverPath: '',
      clock,
      log: quiet,
      onSuccessor: () => Promise.resolve(),
      onSuccessorGone: () => undefined,
    });
    // No agent has requested it.
    assert.equal(await ask(node.port, false), 'ECONNREFUSED');
    const agent = node.startAgent('a');
    await agent.until(/^ready/m);
    await agent.end('SIGKILL');
    await delay(50);
    clock.advance(9_999);
    const waiting = ask(node.port, false);
    await delay(50);
    clock.advance(1);
    assert.equal(await waiting, 'ECONNRESET');
    assert.equal(await ask(node.port, false), 'ECONNREFUSED');
  });

  it('is not available when another process listens, and the agent gets the reason', async () => {
    await using node = await openNode();
    const taken = createServer().listen(node.port, '127.0.0.1');
    await once(taken, 'listening');
    const holder = node.startHolder('a');
    await holder.until(/^ready/m);
    const { note, descriptor, connection } = await askHolder(
      nativeModule(),
      join(node.place, 'a', 'listener.sock'),
    );
    assert.deepEqual([note, descriptor], [notes.EADDRINUSE, undefined]);
    connection.destroy();
    taken.close();
  });

  it('is not passed on in a folder that others can write to', async () => {
    await using node = await openNode();
    chmodSync(node.place, 0o777);
    const holder = node.startHolder('a');
    await holder.until(/the next agent cannot take over/);
    assert.equal(existsSync(node.handoverPath), false);
  });
});

const quiet = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  trace: () => undefined,
};
