/** The eBPF mode on a pretended kernel: its order, its fallback, and what it exempts; and the modes that replace it. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, before, beforeEach, describe, it, mock } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { freshNative } from '../../../scripts/native.ts';
import { attestSocket, whyUnanswered } from '../../../src/redirect/ebpf/callers.ts';
import { openEbpfRedirect, type EbpfRedirectOptions } from '../../../src/redirect/ebpf/ebpf.ts';
import { settingsOf } from '../../../src/redirect/ebpf/settings.ts';
import { replacePrograms } from '../../../src/redirect/ebpf/stale-programs.ts';
import { nativeModule, type CallerAnswer } from '../../../src/redirect/native/addon.ts';
import { readPrograms } from '../../../src/redirect/native/native-files.ts';
import {
  RedirectError,
  type Redirect,
  type RedirectMode,
  type RedirectStatus,
} from '../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { hooks, inodeOf, nativeFailure, openFakeKernel } from '../../support/fake-kernel.ts';
import { goodIp, ok, scripted, takingTurns, type Answer } from '../../support/scripted-host.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pretendFileSystem, type PretendedFileSystem } from '../../support/replaced-fs.ts';

describe('the redirect by eBPF', () => {
  const podUid = '0a1b2c3d-0000-4000-8000-000000000001';

  let bpffs: PretendedFileSystem;
  let cgroups: PretendedFileSystem;
  before(freshNative);
  beforeEach(() => {
    bpffs = pretendFileSystem('bpf');
    cgroups = pretendFileSystem('cgroup2');
  });
  afterEach(() => {
    mock.restoreAll();
    cgroups[Symbol.dispose]();
    bpffs[Symbol.dispose]();
  });

  const noIp: Answer = (args) => ok(args.includes('show') ? '[]' : '');

  /** A node with the cgroups of its pods, and a fallback that takes a turn for each step. */
  function open(over: Partial<EbpfRedirectOptions> = {}, ip = goodIp) {
    const steps: string[] = [];
    const kernel = openFakeKernel(steps);
    const pods = join(cgroups.path, 'kubepods');
    const pod = join(pods, 'burstable', `pod${podUid}`);
    mkdirSync(pod, { recursive: true });
    const state = {
      refusal: undefined as RedirectError | undefined,
      hasAddress: true,
      fallbackPort: undefined as number | undefined,
    };
    const step = async (name: string): Promise<void> => {
      steps.push(`${name} begins`);
      await nextTurn();
      steps.push(`${name} ends`);
      if (state.refusal !== undefined) throw state.refusal;
    };
    const active = { state: 'active', detail: 'nft', problems: [] } as const;
    const fallback: Redirect = {
      mode: 'iptables',
      prepare: () => Promise.reject(new TypeError('the eBPF mode prepares')),
      install: async (port) => {
        await step('fallback');
        state.fallbackPort = port;
        return { ...active, port, changed: ['jump added'] };
      },
      verify: async () => {
        await step('look');
        return { ...active, port: state.fallbackPort };
      },
      isFrontWhole: () => Promise.reject(new TypeError('it lies behind the programs')),
      remove: () => step('removal'),
    };
    const isLocal = (address: string) => state.hasAddress && address === '169.254.25.79';
    const host = scripted({ ip }, { isLocal });
    const pinFolder = join(bpffs.path, 'nmi');
    const redirect = openEbpfRedirect({
      cgroupRoot: cgroups.path,
      pinFolder,
      ownPodUid: podUid,
      fallback,
      host: takingTurns(host, steps),
      netnsCookie: 1n,
      ...over,
    });
    const count = (name: string) => steps.filter((each) => each === `${name} ends`).length;
    return { redirect, kernel, state, steps, pods, pod, pinFolder, count };
  }

  describe('the eBPF mode', () => {
    it('installs its programs with the fallback behind them, and finds both', async () => {
      const { redirect, kernel, pods, pod } = open();
      kernel.state.users = [inodeOf(join(pods, 'burstable')), inodeOf(pod)];
      const status = {
        state: 'active',
        detail: `eBPF on ${pods}; 169.254.169.254:80 to 169.254.25.79:2579; behind it nft`,
        problems: [],
        port: 2579,
      };
      assert.deepEqual(await redirect.install(), {
        ...status,
        changed: [
          `repaired: cgroup ${inodeOf(pod)} is not exempt`,
          ...hooks.map((name) => `program ${name} attached`),
          '1 older sockets closed',
          'jump added',
        ],
      });
      assert.deepEqual(await redirect.verify(), status);
      kernel.state.users = [];
      assert.deepEqual((await redirect.install()).changed, ['jump added']);
      assert.equal(redirect.counters()?.redirected, 0n);
    });

    it('ends each step before it begins the next one, and the last before it returns', async () => {
      const { redirect, steps, pinFolder } = open({}, noIp);
      const both = (...names: readonly string[]) =>
        names.flatMap((name) => [`${name} begins`, `${name} ends`]);
      await redirect.install();
      assert.deepEqual(
        steps.filter((each) => !each.startsWith('attach')),
        [...both('ip link add', 'ip addr add', 'ip link set'), 'load', ...both('fallback', 'look')],
      );
      steps.length = 0;
      await redirect.remove();
      assert.deepEqual(steps, both('removal'));
      assert.ok(!existsSync(pinFolder));
    });

    it('attaches again what is lost, and reports it until then', async () => {
      const { redirect, pinFolder } = open();
      await redirect.install();
      rmSync(join(pinFolder, 'link_connect4'));
      const { state, problems } = await redirect.verify();
      assert.deepEqual([state, problems], ['broken', ['program connect4 not attached']]);
      assert.equal((await redirect.install()).state, 'active');
      rmSync(pinFolder, { recursive: true });
      const gone = await redirect.verify();
      assert.deepEqual([gone.state, gone.problems], ['absent', ['no programs installed']]);
    });

    it('checks its programs, cgroups and address without a tool', async () => {
      const { redirect, state, steps, pinFolder } = open();
      assert.equal(await redirect.isFrontWhole(), false, 'not installed');
      await redirect.install();
      await redirect.letThrough([7n]);
      steps.length = 0;
      assert.equal(await redirect.isFrontWhole(), true);
      state.hasAddress = false;
      assert.equal(await redirect.isFrontWhole(), false);
      state.hasAddress = true;
      mock.method(nativeModule(), 'mapSet', () => {
        throw nativeFailure('EPERM', 'write map');
      });
      await assert.rejects(async () => redirect.letThrough([5n]));
      assert.equal(await redirect.isFrontWhole(), false);
      await redirect.letThrough([]);
      assert.equal(await redirect.isFrontWhole(), true);
      rmSync(join(pinFolder, 'link_connect4'));
      assert.equal(await redirect.isFrontWhole(), false);
      assert.deepEqual(steps, []);
    });

    it('points at the port of one of both agents, and stays there unless it is told otherwise', async () => {
      const { redirect, kernel, pinFolder, state } = open();
      assert.equal((await redirect.verify()).port, undefined);
      for (const [wanted, found] of [
        [undefined, 2579],
        [2580, 2580],
        [undefined, 2580],
        [2579, 2579],
      ] as const) {
        const installed = await redirect.install(wanted);
        assert.deepEqual([installed.port, (await redirect.verify()).port], [found, found]);
        assert.match(installed.detail, new RegExp(`to 169\\.254\\.25\\.79:${found};`));
        assert.equal(state.fallbackPort, found);
      }
      // The programs are moved first.
      state.refusal = new RedirectError('BUSY', 'restore', 'the lock is held');
      await assert.rejects(redirect.install(2580), { code: 'BUSY' });
      state.refusal = undefined;
      const { port, problems } = await redirect.verify();
      assert.deepEqual([port, problems], [2580, ['iptables leads to port 2579']]);
      assert.deepEqual((await redirect.install(2580)).problems, []);
      // Programs of an agent with other ports.
      const elsewhere = settingsOf(readPrograms(), { ...defaultTarget, listenPort: 99 }, 99);
      kernel.change(join(pinFolder, 'settings'), { value: elsewhere });
      assert.deepEqual(
        [(await redirect.verify()).port, (await redirect.verify()).state],
        [undefined, 'broken'],
      );
      assert.equal((await redirect.install()).port, 2579);
    });

    it('runs one operation after the other', async () => {
      const { redirect, steps } = open();
      await Promise.all([redirect.install(), redirect.verify(), redirect.remove()]);
      const turns = steps.filter((each) => / (?:begins|ends)$/.test(each));
      assert.deepEqual(
        turns.map((each) => each.split(' ').at(-1)),
        turns.map((_, at) => (at % 2 === 0 ? 'begins' : 'ends')),
      );
      assert.equal(turns.at(-1), 'removal ends');
    });

    it('brings up the address before the listener binds it', async () => {
      const { redirect, steps } = open({}, noIp);
      await redirect.prepare();
      assert.deepEqual([steps[0], steps.at(-1)], ['ip link add begins', 'ip link set ends']);
    });

    it('has the ids of the pods, of two classes and of the network namespace', async () => {
      const { redirect, kernel, pods, pinFolder } = open();
      const classes = ['besteffort', 'burstable'];
      for (const name of classes) mkdirSync(join(pods, name), { recursive: true });
      await redirect.install();
      const settings = kernel.read(join(pinFolder, 'settings'))['value'] as Uint8Array;
      const node = {
        podsRoot: inodeOf(pods),
        qosClasses: classes.map((name) => inodeOf(join(pods, name))),
        netnsCookie: 1n,
      };
      assert.deepEqual(settings, settingsOf(readPrograms(), defaultTarget, 2579, node));
    });

    it('fails where nothing can be pinned', async () => {
      const { redirect, steps } = open({ pinFolder: join(cgroups.path, 'nmi') });
      await assert.rejects(redirect.install(), { code: 'CONFLICT', step: 'BPF file system' });
      assert.ok(!steps.includes('load'));
    });

    it('refuses a target that is not IPv4', () => {
      const target = { ...defaultTarget, listenIp: 'fd00::1' };
      assert.throws(() => open({ target }), RangeError);
    });
  });

  describe('the cgroups that the eBPF mode exempts', () => {
    it('are those of the agent’s pod and of others by name, but not the redirected one', async () => {
      const kernelOf = async (over: (pods: string) => Partial<EbpfRedirectOptions>) => {
        const pods = join(cgroups.path, 'kubepods');
        mkdirSync(pods, { recursive: true });
        const { redirect, kernel, pod } = open(over(pods));
        await redirect.install();
        mock.restoreAll();
        return { exempt: kernel.exempt, pod };
      };
      const alone = await kernelOf(() => ({}));
      assert.deepEqual(alone.exempt, new Set([inodeOf(alone.pod)]));
      const more = await kernelOf((pods) => ({
        otherAgents: () => [7n, inodeOf(pods), inodeOf(cgroups.path)],
      }));
      assert.deepEqual(more.exempt, new Set([inodeOf(more.pod), 7n]));
    });

    it('has at once the pods of the node that are let through, and no others', async () => {
      const { redirect, kernel } = open();
      await redirect.install();
      await redirect.letThrough([5n, 6n]);
      assert.deepEqual(kernel.nodePods, new Set([5n, 6n]));
      await redirect.letThrough([6n]);
      assert.deepEqual(kernel.nodePods, new Set([6n]));
    });

    it('are those of the node’s other agents too, as long as it has them', async () => {
      let otherAgents: readonly bigint[] = [9n];
      const { redirect, kernel, pod } = open({ otherAgents: () => otherAgents });
      kernel.exempt.add(8n);
      await redirect.install();
      assert.deepEqual(kernel.exempt, new Set([inodeOf(pod), 9n]));
      await redirect.letThrough([5n]);
      assert.deepEqual(kernel.exempt, new Set([inodeOf(pod), 9n]));
      otherAgents = [];
      assert.deepEqual((await redirect.verify()).problems, ['cgroup 9 is exempt']);
      await redirect.install();
      assert.deepEqual(kernel.exempt, new Set([inodeOf(pod)]));
    });

    it('have the agent before it listens, if programs of an earlier agent are pinned', async () => {
      const first = open();
      await first.redirect.prepare();
      assert.deepEqual(first.kernel.exempt, new Set());
      await first.redirect.install();
      first.kernel.exempt.clear();
      await first.redirect.prepare();
      assert.deepEqual(first.kernel.exempt, new Set([inodeOf(first.pod)]));
      first.kernel.exempt.clear();
      mock.method(nativeModule(), 'mapSet', () => {
        throw nativeFailure('EPERM', 'write map');
      });
      await first.redirect.prepare();
      mock.method(nativeModule(), 'mapSet', () => {
        throw new TypeError('a bug');
      });
      await assert.rejects(first.redirect.prepare(), /a bug/);
    });

    it('are unknown without a cgroup of the agent’s pod or of any pod', async () => {
      const { redirect, pods, pod, steps } = open();
      rmSync(pod, { recursive: true });
      const nowhere = await redirect.install();
      assert.equal(nowhere.state, 'broken');
      assert.deepEqual(nowhere.problems, [`the agent's pod ${podUid} has no cgroup below ${pods}`]);
      assert.match(nowhere.detail, /^eBPF on no cgroup; /);
      assert.deepEqual(
        steps.filter((each) => each.endsWith('ends')),
        ['fallback ends', 'look ends'],
      );
      assert.ok(!steps.includes('load'));
      rmSync(pods, { recursive: true });
      assert.deepEqual((await redirect.verify()).problems, [
        `no cgroup of pods below ${cgroups.path}`,
      ]);
    });

    it('are unknown where the cgroup to redirect does not exist', async () => {
      const attachTo = join(cgroups.path, 'none');
      const { problems } = await open({ attachTo }).redirect.verify();
      assert.deepEqual(problems, [`no cgroup ${attachTo}`]);
    });
  });

  describe('the eBPF mode whose fallback is refused', () => {
    it('fails after all its steps, and tries again', async () => {
      const { redirect, state, steps } = open();
      state.refusal = new RedirectError('BUSY', 'restore', 'the lock is held');
      await assert.rejects(redirect.install(), { code: 'BUSY' });
      assert.equal(steps.filter((each) => each.startsWith('attach')).length, hooks.length);
      assert.deepEqual(steps.slice(-1), ['fallback ends']);
      await assert.rejects(redirect.remove(), { code: 'BUSY' });
      state.refusal = undefined;
      assert.equal((await redirect.verify()).state, 'absent');
    });
  });

  describe('sockets that are older than the programs of the eBPF mode', () => {
    it('stay open where the kernel cannot list them, which is reported', async () => {
      const { redirect } = open();
      const refuse = (code: string) =>
        mock.method(nativeModule(), 'cutSockets', () => {
          throw nativeFailure(code, 'list sockets');
        });
      refuse('EOPNOTSUPP');
      const { state, detail } = await redirect.install();
      assert.equal(state, 'active');
      assert.match(detail, /; older sockets not closed: list sockets: EOPNOTSUPP$/);
      refuse('EPERM');
      await assert.rejects(redirect.install(), { code: 'NOT_PERMITTED' });
    });
  });
});

describe('the caller of an accepted socket', () => {
  before(freshNative);
  afterEach(() => mock.restoreAll());

  const unanswered = 'no program of this version answers for the sockets of this process';

  /** What the programs answer. */
  function answer(kind: number, cgroupId = 0n): void {
    mock.method(nativeModule(), 'callerOf', (): CallerAnswer => ({ kind, cgroupId }));
  }

  it('is attested by the record of its connect', () => {
    answer(3, 7n);
    assert.deepEqual(attestSocket(9), { kind: 'attested', cgroupId: 7n, isDirect: false });
    answer(4, 8n);
    assert.deepEqual(attestSocket(9), { kind: 'attested', cgroupId: 8n, isDirect: true });
  });

  it('is refused without one, and told to retry where it may have had no chance of one', () => {
    answer(0);
    assert.deepEqual(attestSocket(9), { kind: 'unattested' });
    answer(1);
    const noRoom = attestSocket(9);
    assert.match((noRoom.kind === 'unattested' && noRoom.retryWhy) || '', /no room for a record/);
  });

  it('is unavailable where two sockets of the node have one address and port', () => {
    answer(2);
    const shared = 'another socket of this node has the same address and port';
    assert.deepEqual(attestSocket(9), { kind: 'unavailable', why: shared });
  });

  it('is unavailable without an answer, for a socket that is gone, and without a native module', () => {
    mock.method(nativeModule(), 'callerOf', () => undefined);
    assert.deepEqual(attestSocket(9), { kind: 'unavailable', why: unanswered });
    mock.method(nativeModule(), 'callerOf', () => {
      throw nativeFailure('EBADF', 'ask socket');
    });
    assert.deepEqual(attestSocket(-1), { kind: 'unavailable', why: unanswered });
  });

  it('is known to be unavailable before anybody calls', () => {
    for (const [isAnswered, expected] of [
      [() => true, undefined],
      [() => false, unanswered],
      [
        () => {
          throw nativeFailure('EMFILE', 'open socket');
        },
        unanswered,
      ],
    ] as const) {
      mock.method(nativeModule(), 'isAnswered', isAnswered);
      assert.equal(whyUnanswered(), expected);
    }
  });
});

describe('programs of an earlier mode', () => {
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
      assert.deepEqual(await replacing.verify(), {
        ...active,
        state: 'broken',
        problems: [there()],
      });
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
});
