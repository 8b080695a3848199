import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import fsPromises from 'node:fs/promises';
import { Agent } from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { takeListener } from '../../../src/nmi/kernel/held-listener.ts';
import {
  openListenerHolder,
  type ListenerHolderOptions,
} from '../../../src/nmi/kernel/listener-holder.ts';
import { askHolder, notes } from '../../../src/nmi/kernel/listener-notes.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { ask, buildChild, openNode, startPod, writesKernel, type Node } from './handover-node.ts';

/** Longest time without anybody who answers, after the last disturbance. */
const recoveryMs = 10_000;

let folder = '';
let program = '';
let made = 0;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-holder-'));
  program = await buildChild(folder);
});
after(() => rmSync(folder, { recursive: true, force: true }));

function openNodeHere(): Promise<Node> {
  return openNode(program, join(folder, String((made += 1))));
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
    await using node = await openNodeHere();
    const { agent } = await startPod(node, 'a');
    assert.equal(await ask(node.port, false), String(agent.pid));
    await agent.end('SIGKILL');
    const waiting = Array.from({ length: 20 }, () => ask(node.port, false));
    const next = node.startAgent('a');
    await next.until(/^ready, alone/m);
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set([String(next.pid)]));
  });

  it('is passed to the next pod under load, and no request fails', async () => {
    await using node = await openNodeHere();
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
    await using node = await openNodeHere();
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
    await using node = await openNodeHere();
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

  it('is passed to the next update after an update that was undone', async () => {
    await using node = await openNodeHere();
    const old = await startPod(node, 'old');
    for (let undone = 1; undone <= 8; undone++) {
      const next = await startPod(node, `undone${undone}`);
      await Promise.all([next.agent.end('SIGTERM'), next.holder.end('SIGTERM')]);
      await old.holder.until(new RegExp(`(paused[^]*resumed[^]*){${undone}}`));
      assert.equal(existsSync(node.handoverPath), true);
    }
    const last = await startPod(node, 'last');
    assert.match(last.agent.output(), /ready, shared/);
    await Promise.all([old.agent.end('SIGTERM'), old.holder.end('SIGTERM')]);
    assert.equal(await ask(node.port), String(last.agent.pid));
  });

  it('is passed on by a holder that put its socket back while the undone one was ending', async (t) => {
    await using node = await openNodeHere();
    await using _old = await openHolderAt(node, { pod: 'old' });
    const undone = await openHolderAt(node, { pod: 'new' });
    const inodeOf = () => lstatSync(node.handoverPath, { throwIfNoEntry: false })?.ino;
    const inodeBefore = inodeOf();
    // The next look at the path finds the old socket, and returns when the new one is there.
    const { lstat } = fsPromises;
    const mocked = t.mock.method(fsPromises, 'lstat', async (...args: Parameters<typeof lstat>) => {
      const seen = await lstat(...args);
      if (args[0] === node.handoverPath) {
        mocked.mock.restore();
        syncBuiltinESMExports();
        for (let tries = 0; tries < 100 && inodeOf() === inodeBefore; tries += 1) await delay(10);
      }
      return seen;
    });
    syncBuiltinESMExports();
    t.after(() => {
      mocked.mock.restore();
      syncBuiltinESMExports();
    });
    await undone[Symbol.asyncDispose]();
    await eventually(() => assert.notEqual(inodeOf(), inodeBefore));
    assert.ok(inodeOf() !== undefined, 'the ending holder removed the socket of the other one');
    const { connection } = await askHolder(nativeModule(), node.handoverPath);
    connection.destroy();
  });

  it('is passed to an update that begins while the old holder is down', async () => {
    await using node = await openNodeHere();
    const old = await startPod(node, 'old');
    await old.holder.end('SIGKILL');
    const holder = node.startHolder('new');
    await holder.until(/^ready/m);
    const agent = node.startAgent('new');
    await delay(500);
    assert.equal(await ask(node.port), String(old.agent.pid));
    const again = node.startHolder('old');
    await again.until(/^ready/m, recoveryMs);
    await agent.until(/^ready, shared/m, recoveryMs);
    await Promise.all([old.agent.end('SIGTERM'), again.end('SIGTERM')]);
    assert.equal(await ask(node.port), String(agent.pid));
    await eventually(() => assert.ok(writesKernel(holder)));
  });

  it('is passed to a holder that replaced another one’s path without having asked it', async () => {
    await using node = await openNodeHere();
    const old = await startPod(node, 'old');
    // As if the holder that was at the path had ended between the question and the replacement.
    const aside = `${node.handoverPath}.aside`;
    renameSync(node.handoverPath, aside);
    const holder = node.startHolder('new');
    await holder.until(/^ready/m);
    const agent = node.startAgent('new');
    await agent.until(/^ready, shared/m, recoveryMs);
    await Promise.all([old.agent.end('SIGTERM'), old.holder.end('SIGTERM')]);
    assert.equal(await ask(node.port), String(agent.pid));
  });

  it('is passed to a holder that had asked before the other one could listen', async (t) => {
    await using node = await openNodeHere();
    const { mock } = t.mock.method(nativeModule(), 'openListener', () => {
      throw Object.assign(new Error('not up yet'), { code: 'EADDRNOTAVAIL' });
    });
    await using first = await openHolderAt(node, { pod: 'first' });
    await using _second = await openHolderAt(node, { pod: 'second' });
    mock.restore();
    await first.listen();
    const path = join(node.place, 'second', 'listener.sock');
    const address = { ip: '127.0.0.1', port: node.port };
    using held = await takeListener({ path, address }, AbortSignal.timeout(recoveryMs));
    assert.ok(held !== undefined);
    closeSync(held.descriptor);
  });

  it('is taken from the holder at the path when an agent requests it', async () => {
    await using node = await openNodeHere();
    const infos: object[] = [];
    const info = (fields: object): void => void infos.push(fields);
    // Its clock stands still, so that it does not look at its path by itself.
    const clock = new HandClock();
    await using _first = await openHolderAt(node, { clock, log: { ...quiet, info } });
    renameSync(node.handoverPath, `${node.handoverPath}.aside`);
    await using second = await openHolderAt(node, { pod: 'second' });
    await second.listen();
    const given = await askHolder(nativeModule(), agentsPathOf(node));
    given.connection.destroy();
    assert.ok(given.descriptor !== undefined);
    closeSync(given.descriptor);
    assert.deepEqual(infos, [{ path: node.handoverPath, listener: true }]);
  });

  it('is not the reason for two holders that change the kernel while nobody can give it', async (t) => {
    await using node = await openNodeHere();
    const taken = createServer().listen(node.port, '127.0.0.1');
    t.after(() => taken.close());
    await once(taken, 'listening');
    const clock = new HandClock();
    const changes: string[] = [];
    await using _old = await openHolderAt(node, {
      pod: 'old',
      clock,
      onSuccessor: () => Promise.resolve(void changes.push('paused')),
      onSuccessorGone: () => changes.push('resumed'),
    });
    renameSync(node.handoverPath, `${node.handoverPath}.aside`);
    await using _next = await openHolderAt(node, { pod: 'new' });
    clock.advance(3_000);
    await eventually(() => assert.deepEqual(changes, ['paused']));
    taken.close();
    await eventually(() => {
      clock.advance(200);
      assert.deepEqual(changes, ['paused', 'resumed']);
    });
  });

  it('has its path looked at ever more seldom, and soon after the path was taken', async () => {
    await using node = await openNodeHere();
    const clock = new HandClock();
    const onSuccessor = () => Promise.reject(new Error('there is none'));
    await using _holder = await openHolderAt(node, { pod: 'a', clock, onSuccessor });
    const lookedAt = async (...delays: readonly number[]) => {
      for (const delayMs of delays) {
        await eventually(() => assert.deepEqual(clock.armed, [delayMs]));
        clock.advance(delayMs);
      }
    };
    await lookedAt(1_500, 3_000, 6_000, 12_000, 15_000);
    rmSync(node.handoverPath);
    await lookedAt(15_000, 1_500, 3_000);
    assert.ok(existsSync(node.handoverPath));
  });

  it('is not asked for by a holder while its successor is there', async () => {
    await using node = await openNodeHere();
    const clock = new HandClock();
    await using _first = await openHolderAt(node, { pod: 'first', clock });
    const asked: string[] = [];
    const onSuccessor = () => Promise.resolve(void asked.push('by the first'));
    await using _second = await openHolderAt(node, { pod: 'second', onSuccessor });
    for (const delayMs of [3_000, 6_000]) {
      await eventually(() => assert.deepEqual(clock.armed, [delayMs]));
      clock.advance(delayMs);
    }
    await eventually(() => assert.deepEqual(clock.armed, [12_000]));
    assert.deepEqual(asked, []);
  });

  it('is left to an agent that still answers when it was passed to its holder', async () => {
    await using node = await openNodeHere();
    const clock = new HandClock();
    await using first = await openHolderAt(node, { pod: 'old', clock });
    await first.listen();
    const next = await startPod(node, 'new');
    await next.holder.end('SIGKILL');
    await eventually(() => assert.ok(clock.armed.includes(10_000)));
    clock.advance(10_000);
    assert.equal(await ask(node.port, false), String(next.agent.pid));
  });

  it('stays reachable when the middle one of three holders is killed', async () => {
    await using node = await openNodeHere();
    const old = await startPod(node, 'old');
    const middle = await startPod(node, 'middle');
    const last = await startPod(node, 'last');
    await Promise.all([middle.agent.end('SIGKILL'), middle.holder.end('SIGKILL')]);
    const next = await startPod(node, 'next');
    for (const { agent, holder } of [old, last]) {
      await Promise.all([agent.end('SIGTERM'), holder.end('SIGTERM')]);
    }
    assert.equal(await ask(node.port), String(next.agent.pid));
    await eventually(() => assert.ok(writesKernel(next.holder)));
  });

  it('is closed when no agent has used it for ten seconds', async () => {
    await using node = await openNodeHere();
    const clock = new HandClock();
    const agentsPath = join(node.place, 'a', 'listener.sock');
    await using holder = await openListenerHolder({
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
    await holder.listen();
    const early = ask(node.port, false);
    assert.deepEqual(clock.armed, [10_000]);
    const agent = node.startAgent('a');
    assert.equal(await early, String(agent.pid));
    clock.advance(10_000);
    assert.equal(await ask(node.port, false), String(agent.pid));
    await agent.end('SIGKILL');
    // Since it has found that the agent is gone.
    await eventually(() => assert.deepEqual(clock.armed, [10_000]));
    clock.advance(9_999);
    const waiting = connect(node.port, '127.0.0.1');
    await once(waiting, 'connect');
    clock.advance(1);
    await assert.rejects(once(waiting, 'end'), { code: 'ECONNRESET' });
    assert.equal(await ask(node.port, false), 'ECONNREFUSED');
    const listen = () => nativeModule().openListener('127.0.0.1', node.port);
    assert.throws(listen, { code: 'EADDRINUSE' }, 'nobody else takes the port');
    const next = node.startAgent('a');
    await next.until(/^ready, alone/m);
    assert.equal(await ask(node.port, false), String(next.pid));
    await next.end('SIGKILL');
    await eventually(() => assert.deepEqual(clock.armed, [10_000]));
    clock.advance(10_000);
    assert.equal(await ask(node.port, false), 'ECONNREFUSED', 'as after the agent before');
  });

  for (const answers of [true, false]) {
    const end = answers ? 'is left to an agent that still answers' : 'keeps its port';
    it(`${end} when it came from another holder`, async () => {
      await using node = await openNodeHere();
      const clock = new HandClock();
      const old = await startPod(node, 'old');
      await using _holder = await openHolderAt(node, { pod: 'new', clock });
      if (!answers) await old.agent.end('SIGKILL');
      await old.holder.end('SIGKILL');
      await eventually(() => assert.ok(clock.armed.includes(10_000)));
      clock.advance(10_000);
      const expected = answers ? String(old.agent.pid) : 'ECONNREFUSED';
      assert.equal(await ask(node.port, false), expected);
      const listen = () => nativeModule().openListener('127.0.0.1', node.port);
      assert.throws(listen, { code: 'EADDRINUSE' });
      if (answers) await old.agent.end('SIGKILL');
      const next = node.startAgent('new');
      await next.until(/^ready/m);
      assert.equal(await ask(node.port, false), String(next.pid));
    });
  }

  it('is not available when another process listens, and the agent gets the reason', async () => {
    await using node = await openNodeHere();
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

  it('is not available before the previous holder has answered', async () => {
    await using node = await openNodeHere();
    const mute = createServer().listen(node.handoverPath);
    const asked = once(mute, 'connection') as Promise<[Socket]>;
    const opening = openHolderAt(node);
    const [previous] = await asked;
    try {
      const answer = await askHolder(nativeModule(), agentsPathOf(node));
      answer.connection.destroy();
      assert.deepEqual([answer.note, answer.descriptor], [notes.failed, undefined]);
    } finally {
      mute.close();
      previous.destroy();
      await (await opening)[Symbol.asyncDispose]();
    }
  });

  it('is given to nobody by a holder that could not start', async (t) => {
    await using node = await openNodeHere();
    const now = performance.now.bind(performance);
    let aheadMs = 0;
    t.mock.method(performance, 'now', () => now() + aheadMs);
    // The holder before it does not answer, and the time to wait for it is over.
    const mute = createServer((socket) => {
      aheadMs += 31_000;
      socket.destroy();
    }).listen(node.handoverPath);
    t.after(() => mute.close());
    await assert.rejects(openHolderAt(node), {
      name: 'StartError',
      message: /the previous agent does not answer at .*: ECONNRESET/,
    });
    await assert.rejects(askHolder(nativeModule(), agentsPathOf(node)), { code: 'ENOENT' });
  });

  it('is given to the next agent after one that ended without reading its answer', async (t) => {
    await using node = await openNodeHere();
    const native = nativeModule();
    const clock = new HandClock();
    await using _holder = await openHolderAt(node, { handoverPath: '', clock });
    const { mock } = t.mock.method(native, 'sendNote');
    const agent = native.connectLocal(agentsPathOf(node));
    native.sendNote(agent, notes.want);
    await eventually(() => assert.equal(mock.calls[1]?.arguments[1], notes.alone));
    // The holder's end then fails with ECONNRESET.
    closeSync(agent);
    await eventually(() => assert.deepEqual(clock.armed, [10_000]));
    const { note, descriptor, connection } = await askHolder(native, agentsPathOf(node));
    connection.destroy();
    assert.equal(note, notes.alone);
    assert.ok(descriptor !== undefined);
    closeSync(descriptor);
  });

  it('leaves no timer behind when its holder ends before its agent', async () => {
    await using node = await openNodeHere();
    const clock = new HandClock();
    const holder = await openHolderAt(node, { handoverPath: '', clock });
    const { descriptor, connection } = await askHolder(nativeModule(), agentsPathOf(node));
    assert.ok(descriptor !== undefined);
    closeSync(descriptor);
    const ended = once(connection.resume(), 'close');
    await holder[Symbol.asyncDispose]();
    await ended;
    // Its own end of the connection has been closed by then, too.
    await nextTurn();
    assert.deepEqual(clock.armed, []);
  });

  it('leaves no timer behind when its holder ends before the one before it, which has not ended', async () => {
    await using node = await openNodeHere();
    const old = await startPod(node, 'old');
    const clock = new HandClock();
    const logged: string[] = [];
    const info = (_fields: object, text: string): void => void logged.push(text);
    const holder = await openHolderAt(node, { pod: 'new', clock, log: { ...quiet, info } });
    assert.deepEqual(logged, ['taking over from the agent before']);
    await holder[Symbol.asyncDispose]();
    await old.holder.until(/resumed/);
    assert.deepEqual([clock.armed, logged.slice(1)], [[], []]);
  });

  it('is passed on in a folder that only this user can enter', async () => {
    await using node = await openNodeHere();
    const own = join(node.place, 'own');
    await using _ = await openHolderAt({ ...node, handoverPath: join(own, 'next.sock') });
    assert.equal(statSync(own).mode & 0o777, 0o700);
  });

  it('is not passed on in a folder that others can write to, which is reported once', async () => {
    await using node = await openNodeHere();
    chmodSync(node.place, 0o777);
    const warnings: string[] = [];
    const warn = (_fields: object, text: string): void => void warnings.push(text);
    await using holder = await openHolderAt(node, { log: { ...quiet, warn } });
    assert.deepEqual(warnings, ['the next agent cannot take over']);
    // Looks at the path again.
    await holder.listen();
    assert.equal(warnings.length, 1);
    assert.equal(existsSync(node.handoverPath), false);
  });
});

const agentsPathOf = (node: Node) => join(node.place, 'a', 'listener.sock');

function openHolderAt(
  node: Node,
  { pod = 'a', ...over }: Partial<ListenerHolderOptions> & { readonly pod?: string } = {},
) {
  return openListenerHolder({
    address: { ip: '127.0.0.1', port: node.port },
    agentsPath: join(node.place, pod, 'listener.sock'),
    handoverPath: node.handoverPath,
    clock: systemClock,
    log: quiet,
    onSuccessor: () => Promise.resolve(),
    onSuccessorGone: () => undefined,
    ...over,
  });
}

const quiet = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  trace: () => undefined,
};
