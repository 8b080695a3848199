import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { replacePrograms } from '../../../src/redirect/ebpf/stale-programs.ts';
import type { Redirect, RedirectMode, RedirectStatus } from '../../../src/redirect/redirect.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pretendFileSystem, type PretendedFileSystem } from '../../support/replaced-fs.ts';

const active: RedirectStatus = { state: 'active', detail: 'nft', problems: [] };
const broken: RedirectStatus = { state: 'broken', detail: 'nft', problems: ['no jump'] };

const clock = new HandClock();
const replace = (redirect: Redirect) => replacePrograms(redirect, folder, clock);

let bpffs: PretendedFileSystem;
let folder = '';
beforeEach(() => {
  bpffs = pretendFileSystem('bpf');
  folder = join(bpffs.path, 'nmi');
});
afterEach(() => bpffs[Symbol.dispose]());

function pin(): void {
  mkdirSync(folder);
  for (const name of ['link_connect4', 'settings']) writeFileSync(join(folder, name), '');
}

function pinned(): readonly string[] {
  return statSync(folder, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(folder) : [];
}

/** Each step takes a turn. `calls` has those that have ended, with the pins at their start. */
function openMode(status = active, mode: RedirectMode = 'iptables') {
  const begun: string[] = [];
  const calls: string[] = [];
  const step = (name: string) => async () => {
    begun.push(name);
    const call = `${name}, ${pinned().length} pins`;
    await nextTurn();
    calls.push(call);
    return status;
  };
  const redirect: Redirect = {
    mode,
    prepare: async () => void (await step('prepare')()),
    install: step('install'),
    verify: step('verify'),
    isFrontWhole: () => Promise.resolve(true),
    remove: async () => void (await step('remove')()),
  };
  return { redirect, begun, calls };
}

const there = () => `programs of the eBPF mode are pinned in ${folder}`;
const toRemove = () => `${there()}: nmi redirect remove takes them away`;

describe('the mode that replaces programs of eBPF', () => {
  it('has the front of its mode, which is not whole beside them', async () => {
    for (const mode of ['iptables', 'none'] as const) {
      const redirect = replace(openMode(active, mode).redirect);
      assert.equal(await redirect.isFrontWhole(), true);
      pin();
      assert.equal(await redirect.isFrontWhole(), false);
      rmSync(folder, { recursive: true });
    }
  });

  it('removes them once its own redirect is active', async () => {
    pin();
    const { redirect, calls } = openMode({ ...active, changed: ['jump added'] });
    const status = await replace(redirect).install();
    assert.deepEqual(status, {
      ...active,
      changed: ['jump added', 'programs of the eBPF mode taken away'],
    });
    assert.deepEqual(calls, ['install, 2 pins'], 'they were pinned until then');
    assert.deepEqual(pinned(), []);
  });

  it('removes before it listens only those that reserve the agent’s address and port', async () => {
    pin();
    for (const name of ['link_bind4', 'link_bind6']) writeFileSync(join(folder, name), '');
    const { redirect, begun, calls } = openMode();
    const preparing = replace(redirect).prepare();
    assert.deepEqual(begun, [], 'the kernel has not detached them yet');
    clock.advance(100);
    await preparing;
    assert.deepEqual(calls, ['prepare, 2 pins']);
    assert.deepEqual(pinned().toSorted(), ['link_connect4', 'settings']);
  });

  it('waits until the kernel has detached even one of those', async () => {
    mkdirSync(folder);
    writeFileSync(join(folder, 'link_bind4'), '');
    const { redirect, begun } = openMode();
    const preparing = replace(redirect).prepare();
    clock.advance(99);
    await nextTurn();
    assert.deepEqual(begun, []);
    clock.advance(1);
    await preparing;
    assert.deepEqual(begun, ['prepare']);
  });

  it('prepares where there are none, and where they cannot be removed', async () => {
    const { redirect, calls } = openMode();
    await replace(redirect).prepare();
    mkdirSync(join(folder, 'link_bind4'), { recursive: true });
    await replace(redirect).prepare();
    assert.deepEqual(calls, ['prepare, 0 pins', 'prepare, 1 pins']);
  });

  it('removes no file of another file system', async () => {
    using other = pretendFileSystem('cgroup2');
    const file = join(other.path, 'link_bind4');
    writeFileSync(file, '');
    await replacePrograms(openMode().redirect, other.path, clock).prepare();
    assert.ok(existsSync(file));
  });

  it('leaves them while its own redirect is not, and reports them', async () => {
    pin();
    const { redirect } = openMode(broken);
    const status = await replace(redirect).install();
    assert.deepEqual(status, { ...broken, problems: ['no jump', there()] });
    assert.equal(pinned().length, 2);
  });

  it('reports why they cannot be removed', async () => {
    mkdirSync(folder);
    mkdirSync(join(folder, 'settings'));
    const status = await replace(openMode().redirect).install();
    assert.equal(status.state, 'broken');
    assert.match(status.problems[0] ?? '', new RegExp(`^${there()}: BPF file system: `));
  });

  it('works as usual without them, and reports them when it verifies', async () => {
    const { redirect } = openMode();
    const replacing = replace(redirect);
    assert.deepEqual(await replacing.install(), active);
    assert.deepEqual(await replacing.verify(), active);
    pin();
    assert.deepEqual(await replacing.verify(), { ...active, state: 'broken', problems: [there()] });
  });

  it('removes them before itself', async () => {
    pin();
    const { redirect, calls } = openMode();
    await replace(redirect).remove();
    assert.deepEqual(calls, ['remove, 0 pins']);
    await replace(redirect).remove();
    assert.equal(calls.length, 2);
  });

  it('works as usual where it may not look for them', async () => {
    writeFileSync(folder, 'no folder');
    assert.deepEqual(await replace(openMode().redirect).verify(), active);
  });
});

describe('the mode that reports programs of eBPF', () => {
  it('changes nothing, and reports the command that removes them', async () => {
    pin();
    const telling = replace(openMode(active, 'none').redirect);
    for (const status of [await telling.install(), await telling.verify()]) {
      assert.deepEqual(status, { ...active, state: 'broken', problems: [toRemove()] });
    }
    const absent = { ...broken, state: 'absent' } as const;
    const missing = await replace(openMode(absent, 'none').redirect).verify();
    assert.equal(missing.state, 'absent');
    assert.equal(pinned().length, 2);
  });

  it('works as usual without them', async () => {
    assert.deepEqual(await replace(openMode(active, 'none').redirect).install(), active);
  });
});
