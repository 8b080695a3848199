import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import { diffCgroups, readCgroups, syncCgroups } from '../../../src/redirect/ebpf/cgroup-sets.ts';
import {
  ensurePinFolder,
  isBpffs,
  listPins,
  promotePin,
  removePinFolder,
  tryPinFolder,
  unpin,
} from '../../../src/redirect/ebpf/pins.ts';
import {
  changeNodePods,
  cutOlderSockets,
  diffPrograms,
  findRefusal,
  installPrograms,
  joinPinned,
  listOwnPins,
  readCounters,
  tryPrograms,
  unpinPrograms,
  type WantedPrograms,
} from '../../../src/redirect/ebpf/programs.ts';
import {
  diffSettings,
  listenPortOf,
  mapLayout,
  settingsOf,
} from '../../../src/redirect/ebpf/settings.ts';
import { nativeModule, type NativeModule } from '../../../src/redirect/native/addon.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import {
  hooks,
  inodeOf,
  nativeFailure,
  openFakeKernel,
  type FakeKernel,
} from '../../support/fake-kernel.ts';
import {
  pretendFileSystem,
  refusal,
  replaceFs,
  type PretendedFileSystem,
} from '../../support/replaced-fs.ts';

describe('the programs', () => {
  const object = Buffer.from('programs');
  const settings = settingsOf(object, defaultTarget, 2579);
  const otherLayout = Uint8Array.from(settings).fill(99, 0, 1);

  let bpffs: PretendedFileSystem;
  let folder = '';
  beforeEach(() => {
    bpffs = pretendFileSystem('bpf');
    folder = join(bpffs.path, 'nmi');
    mkdirSync(folder);
  });
  afterEach(() => {
    mock.restoreAll();
    bpffs[Symbol.dispose]();
  });

  const wanted = (): WantedPrograms => ({
    pinFolder: folder,
    object,
    settings,
    cgroup: { path: bpffs.path, id: inodeOf(bpffs.path) },
    agent: { path: folder, id: inodeOf(folder) },
    exempt: [7n],
  });

  /** The name of a link's pin. */
  const linkOf = (hook: string): string =>
    hook === 'getsockopt' ? `link_getsockopt_${inodeOf(folder)}` : `link_${hook}`;

  /** The state that an installation left. */
  function openInstalled(): FakeKernel {
    const kernel = openFakeKernel();
    installPrograms(wanted());
    kernel.calls.length = 0;
    return kernel;
  }

  describe('pods on the host network', () => {
    const told = (...nodePods: readonly bigint[]): WantedPrograms => ({ ...wanted(), nodePods });

    it('are let through, and cut when they are not any more', () => {
      const { nodePods, state, calls } = openInstalled();
      state.users = [inodeOf(bpffs.path)];
      changeNodePods(told(5n, 6n), defaultTarget);
      assert.deepEqual(nodePods, new Set([5n, 6n]));
      calls.length = 0;
      changeNodePods(told(6n, 5n), defaultTarget);
      assert.deepEqual(calls, []);
      changeNodePods(told(6n), defaultTarget);
      assert.deepEqual(nodePods, new Set([6n]));
      assert.deepEqual(calls, [`cut ${inodeOf(bpffs.path)}`]);
    });

    it('keep their connections', () => {
      const { state, calls } = openInstalled();
      state.users = [inodeOf(bpffs.path)];
      changeNodePods(told(inodeOf(bpffs.path)), defaultTarget);
      assert.deepEqual(calls, []);
    });

    it('stay as they are until the agent knows them', () => {
      const { nodePods } = openInstalled();
      nodePods.add(5n);
      assert.deepEqual(diffPrograms(wanted()), []);
      assert.deepEqual(diffPrograms(told(6n)), [
        'cgroup 6 is not let through',
        'cgroup 5 is let through',
      ]);
      installPrograms(wanted());
      assert.deepEqual(nodePods, new Set([5n]));
      installPrograms(told());
      assert.deepEqual(nodePods, new Set());
    });

    it('change together with the exempt cgroups, which one agent of the node maintains', () => {
      const { nodePods, exempt } = openInstalled();
      exempt.add(9n);
      changeNodePods(told(5n), defaultTarget);
      assert.deepEqual([nodePods, exempt], [new Set([5n]), new Set([7n])]);
    });

    it('wait for the programs', () => {
      const { nodePods } = openFakeKernel();
      changeNodePods(told(5n), defaultTarget);
      assert.deepEqual(nodePods, new Set());
    });
  });

  describe('installing the programs', () => {
    it('attaches the programs that record callers before those that redirect, and pins all', () => {
      const { calls, exempt, state } = openFakeKernel();
      writeFileSync(join(folder, 'next_left_by_a_crash'), '');
      assert.deepEqual(installPrograms(wanted()), [
        'repaired: cgroup 7 is not exempt',
        ...hooks.map((name) => `program ${name} attached`),
      ]);
      assert.deepEqual(calls, [
        'load',
        `attach nmi_getsockopt to ${folder}`,
        ...['bind6', 'bind4', 'sockops', 'connect6', 'connect4'].map(
          (name) => `attach nmi_${name} to ${bpffs.path}`,
        ),
      ]);
      assert.deepEqual(exempt, new Set([7n]));
      assert.deepEqual(
        readdirSync(folder).toSorted(),
        [
          ...[
            'callers',
            'counters',
            'dials',
            'exempt',
            'loads',
            'node_pods',
            'sequences',
            'settings',
          ],
          ...hooks.flatMap((name) => [linkOf(name), `program_${name}`]),
        ].toSorted(),
      );
      assert.equal(state.open, 0, 'nothing is left open');
    });

    it('replaces programs of correct links, and makes the other links anew', () => {
      const { calls, change } = openInstalled();
      change(join(folder, 'link_connect6'), { cgroupId: 6n });
      const changes = installPrograms(wanted());
      assert.deepEqual(
        calls.filter((call) => !call.startsWith('replace')),
        ['load', `attach nmi_connect6 to ${bpffs.path}`],
      );
      assert.deepEqual(
        calls.filter((call) => call.startsWith('replace')),
        ['getsockopt', 'bind6', 'bind4', 'sockops', 'connect4'].map(
          (name) => `replace nmi_${name}`,
        ),
      );
      assert.ok(changes.includes('program connect4 replaced'));
      assert.ok(changes.includes('program connect6 attached'));
      assert.ok(!changes.some((each) => each.startsWith('maps')));
    });

    it('answers a second agent in its own cgroup, and the first one as long as it runs', () => {
      const { calls, read } = openInstalled();
      const next = { path: bpffs.path, id: inodeOf(bpffs.path) };
      const first = read(join(folder, linkOf('getsockopt')));
      const isAnswered = (id: bigint) => readdirSync(folder).includes(`link_getsockopt_${id}`);
      assert.deepEqual(diffPrograms({ ...wanted(), agent: next }), [
        'program getsockopt not attached',
      ]);
      const both = { ...wanted(), agent: next, exempt: [7n, inodeOf(folder)] };
      installPrograms(both);
      assert.ok(calls.includes(`attach nmi_getsockopt to ${next.path}`));
      assert.deepEqual(read(join(folder, linkOf('getsockopt'))), first);
      assert.ok(isAnswered(next.id));
      assert.deepEqual(diffPrograms(both), []);
      installPrograms({ ...wanted(), agent: next });
      assert.deepEqual([inodeOf(folder), next.id].map(isAnswered), [false, true]);
    });

    it('adds a second agent to programs of the same layout before it installs its own', () => {
      const { calls, exempt } = openInstalled();
      const next = { path: bpffs.path, id: inodeOf(bpffs.path) };
      joinPinned({ ...wanted(), agent: next });
      assert.deepEqual(exempt, new Set([7n]));
      assert.deepEqual(calls, [`attach nmi_getsockopt to ${next.path}`]);
      assert.deepEqual(diffPrograms({ ...wanted(), agent: next }), []);
      joinPinned({ ...wanted(), agent: next });
      assert.equal(calls.length, 1);
    });

    it('answers a second agent of another layout by a program that knows no caller yet', () => {
      const { calls, change, state } = openInstalled();
      const next = { path: bpffs.path, id: inodeOf(bpffs.path) };
      change(join(folder, 'settings'), { value: otherLayout });
      const pins = readdirSync(folder);
      const programs = readFileSync(join(folder, 'program_getsockopt'));
      writeFileSync(join(folder, 'next_program_getsockopt'), 'left by a crash');
      joinPinned({ ...wanted(), agent: next });
      assert.deepEqual(calls, ['load', `attach nmi_getsockopt to ${next.path}`]);
      assert.deepEqual(state.pins, { counters: join(folder, 'next_counters') }, 'maps of its own');
      assert.deepEqual(state.unrecordedAtNs, [2n ** 62n], 'no record there means to try again');
      assert.deepEqual(
        readdirSync(folder).toSorted(),
        [...pins, `link_getsockopt_${next.id}`].toSorted(),
      );
      assert.deepEqual(readFileSync(join(folder, 'program_getsockopt')), programs);
      installPrograms({ ...wanted(), agent: next });
      assert.ok(calls.includes('replace nmi_getsockopt'));
      assert.deepEqual(diffPrograms({ ...wanted(), agent: next }), []);
    });

    it('shares no map with programs of another layout', () => {
      const { change, state } = openInstalled();
      const before = readFileSync(join(folder, 'callers'));
      change(join(folder, 'settings'), { value: otherLayout });
      const startNs = process.hrtime.bigint();
      const [first] = installPrograms(wanted());
      const [left, begun] = state.unrecordedAtNs;
      assert.equal(left, 2n ** 62n, 'for agents that read the maps left behind');
      assert.ok(begun !== undefined && begun >= startNs && begun <= process.hrtime.bigint());
      assert.equal(first, 'maps of another layout left behind');
      assert.notDeepEqual(readFileSync(join(folder, 'callers')), before);
    });

    it('leaves nothing open when the kernel refuses', () => {
      const { state } = openFakeKernel();
      mock.method(nativeModule(), 'attach', () => {
        throw nativeFailure('EPERM', 'attach');
      });
      assert.throws(() => installPrograms(wanted()), { code: 'NOT_PERMITTED', step: 'attach' });
      assert.equal(state.open, 0);
    });
  });

  describe('trying whether the kernel accepts the programs', () => {
    it('uses the pinned maps of the same layout, and leaves nothing behind', () => {
      const { state, change } = openInstalled();
      const pins = readdirSync(folder);
      tryPrograms(folder, object);
      const shared = ['callers', 'counters', 'dials', 'exempt', 'loads', 'node_pods', 'sequences'];
      assert.deepEqual(
        state.pins,
        Object.fromEntries(shared.map((name) => [name, join(folder, name)])),
      );
      change(join(folder, 'settings'), { value: otherLayout });
      tryPrograms(folder, object);
      assert.deepEqual(state.pins, {});
      rmSync(join(folder, 'settings'));
      tryPrograms(folder, object);
      assert.deepEqual(state.pins, {});
      assert.equal(state.open, 0);
      assert.deepEqual(
        readdirSync(folder),
        pins.filter((pin) => pin !== 'settings'),
      );
    });
  });

  describe('what the kernel refuses of the programs', () => {
    for (const { kernel, errors, code, asked } of [
      { kernel: 'accepts them', errors: [], code: undefined, asked: 1 },
      { kernel: 'refuses them', errors: ['EINVAL'], code: 'UNSUPPORTED', asked: 1 },
      { kernel: 'does not let us', errors: ['EPERM'], code: 'NOT_PERMITTED', asked: 1 },
      { kernel: 'was short of memory once', errors: ['ENOMEM'], code: undefined, asked: 2 },
      {
        kernel: 'is short of memory',
        errors: ['ENOMEM', 'ENOMEM', 'ENOMEM'],
        code: 'KERNEL_REFUSED',
        asked: 3,
      },
    ]) {
      it(`is asked ${asked} times of a kernel that ${kernel}`, () => {
        freshNative();
        const { state } = openFakeKernel();
        const native = { ...nativeModule() };
        const tried = mock.method(
          nativeModule(),
          'load',
          (...args: Parameters<NativeModule['load']>) => {
            const error = errors[tried.mock.callCount()];
            if (error !== undefined) throw nativeFailure(error, 'load');
            return native.load(...args);
          },
        );
        assert.equal(findRefusal(folder)?.code, code);
        assert.equal(tried.mock.callCount(), asked);
        assert.equal(state.open, 0);
      });
    }
  });

  describe('reading the programs back', () => {
    it('finds nothing where nothing is pinned, and no problem where all is correct', () => {
      openFakeKernel();
      assert.equal(diffPrograms(wanted()), 'absent');
      openInstalled();
      assert.deepEqual(diffPrograms(wanted()), []);
    });

    const change =
      (pin: string, fields: Parameters<FakeKernel['change']>[1]) => (kernel: FakeKernel) => {
        kernel.change(join(folder, pin), fields);
      };
    const remove = (pin: string) => () => {
      rmSync(join(folder, pin));
    };
    const broken: readonly (readonly [problem: string, breakIt: (kernel: FakeKernel) => void])[] = [
      ['program connect4 not attached', remove('link_connect4')],
      ['link connect4 is of another kind', change('link_connect4', { attachType: 11 })],
      ['link connect4 is of another kind', change('link_connect4', { attachType: Number.NaN })],
      ['program connect4 detached, its cgroup is gone', change('link_connect4', { cgroupId: 0n })],
      ['program connect4 attached to cgroup 6', change('link_connect4', { cgroupId: 6n })],
      ['program connect4 is not the one we know', change('link_connect4', { programId: 0 })],
      ['program connect4 is not the one we know', remove('program_connect4')],
      [
        'an installation has not ended',
        () => copyFileSync(join(folder, 'settings'), join(folder, 'next_settings')),
      ],
      ['cgroup 7 is not exempt', ({ exempt }) => exempt.clear()],
      [
        'programs of another version or configuration',
        change('settings', { value: Uint8Array.from(settings).fill(0, 64, 92) }),
      ],
    ];
    for (const [problem, breakIt] of broken) {
      it(`finds: ${problem}`, () => {
        breakIt(openInstalled());
        assert.deepEqual(diffPrograms(wanted()), [problem]);
      });
    }

    for (const [pin, problem] of [
      ['settings', 'settings missing'],
      ['callers', 'map callers missing'],
      ['exempt', 'map exempt missing'],
      ['node_pods', 'map node_pods missing'],
    ] as const) {
      it(`finds: ${problem}`, () => {
        openInstalled();
        rmSync(join(folder, pin));
        assert.deepEqual(diffPrograms({ ...wanted(), nodePods: [] }), [problem]);
      });
    }

    it('hides no refusal of the kernel', () => {
      openInstalled();
      mock.method(nativeModule(), 'linkInfo', () => {
        throw nativeFailure('EACCES', 'open');
      });
      assert.throws(() => diffPrograms(wanted()), { code: 'NOT_PERMITTED' });
    });

    it('returns counters, and none where nothing is installed', () => {
      openFakeKernel();
      assert.equal(readCounters(folder), undefined);
      const { state } = openInstalled();
      const all = {
        redirected: 0n,
        redirectedMapped: 1n,
        exempt: 2n,
        recorded: 3n,
        deleted: 4n,
        refused: 5n,
        unrecorded: 6n,
        unrecordedAtNs: 7n,
        direct: 8n,
        tooFast: 9n,
      };
      assert.deepEqual(readCounters(folder), all);
      state.counters = 8;
      const ofEarlier = { ...all, direct: 0n, tooFast: 0n };
      assert.deepEqual(readCounters(folder), ofEarlier, 'programs of an earlier version');
    });
  });

  describe('sockets that are older than the programs', () => {
    it('are closed where their cgroup is redirected, and no others', () => {
      const { calls, state } = openInstalled();
      const ino = inodeOf(folder);
      state.users = [ino, 1n, 7n];
      const cgroup = { path: bpffs.path, id: inodeOf(bpffs.path) };
      assert.equal(cutOlderSockets({ ...wanted(), cgroup }, defaultTarget), 1);
      assert.deepEqual(calls, [`cut ${ino}`]);
    });

    it('are kept below an exempt cgroup, and where no socket matches', () => {
      const { calls, state, exempt } = openInstalled();
      const cgroup = { path: bpffs.path, id: inodeOf(bpffs.path) };
      assert.equal(cutOlderSockets({ ...wanted(), cgroup }, defaultTarget), 0);
      const ino = inodeOf(folder);
      exempt.add(ino);
      state.users = [ino];
      assert.equal(cutOlderSockets({ ...wanted(), cgroup }, defaultTarget), 0);
      assert.deepEqual(calls, []);
    });
  });

  describe('our own pins', () => {
    it('are recognized by their names, and never in another file system', () => {
      const own = [
        ...['callers', 'settings', 'link_connect4', 'link_getsockopt_7', 'program_sockops'],
        ...['next_link_getsockopt_7', 'next_loads'],
      ];
      for (const name of [
        ...own,
        'link_other',
        'link_getsockopt_',
        'other',
        'next_other',
        'callers2',
      ]) {
        writeFileSync(join(folder, name), '');
      }
      assert.deepEqual(listOwnPins(folder).toSorted(), own.toSorted());
      assert.deepEqual(listOwnPins(join(folder, 'nothing')), []);
      using _ordinary = replaceFs({ statfsSync: (() => ({ type: 0xef53 })) as never });
      assert.deepEqual(listOwnPins(folder), []);
    });

    it('are removed, the redirecting programs first, the folder with the last pin', () => {
      openInstalled();
      const links = hooks.toReversed().map(linkOf);
      const unlinked: string[] = [];
      {
        using _seen = replaceFs({
          unlinkSync: ((path: string) => {
            unlinked.push(basename(path));
            rmSync(path);
          }) as never,
        });
        unpinPrograms(folder);
      }
      assert.deepEqual(unlinked.slice(0, links.length), links);
      assert.deepEqual(readdirSync(bpffs.path), []);
    });

    it('are removed without touching one of another owner', () => {
      openInstalled();
      writeFileSync(join(folder, 'other'), '');
      unpinPrograms(folder);
      assert.deepEqual(readdirSync(folder), ['other']);
    });
  });
});

describe('the folder of the pins', () => {
  let work = '';
  beforeEach(() => {
    work = mkdtempSync(join(tmpdir(), 'nmi-pins-'));
  });
  afterEach(() => {
    rmSync(work, { recursive: true });
  });

  describe('the BPF file system', () => {
    it('is recognized by its type', () => {
      using bpffs = pretendFileSystem('bpf');
      assert.ok(isBpffs(bpffs.path));
      assert.ok(!isBpffs(work) && !isBpffs(join(work, 'nothing')));
    });

    it('is not mounted by the agent', () => {
      const none = { code: 'CONFLICT', message: /: no BPF file system is mounted at .*$/ };
      assert.throws(() => ensurePinFolder(join(work, 'nmi')), none);
      assert.deepEqual(readdirSync(work), []);
    });

    it('is used as it is, with a folder of ours made once', () => {
      using bpffs = pretendFileSystem('bpf');
      const folder = join(bpffs.path, 'nmi');
      ensurePinFolder(folder);
      ensurePinFolder(folder);
      assert.deepEqual(readdirSync(bpffs.path), ['nmi']);
      const tooLong = join(bpffs.path, 'x'.repeat(256));
      assert.throws(() => ensurePinFolder(tooLong), { code: 'KERNEL_REFUSED' });
    });
  });

  describe('trying to pin', () => {
    it('leaves nothing where a folder can be made', () => {
      using bpffs = pretendFileSystem('bpf');
      tryPinFolder(join(bpffs.path, 'nmi'));
      assert.deepEqual(readdirSync(bpffs.path), []);
    });

    it('fails in another file system, and where a folder is refused', () => {
      const none = { message: `BPF file system: no BPF file system is mounted at ${work}` };
      assert.throws(() => tryPinFolder(join(work, 'nmi')), none);
      using bpffs = pretendFileSystem('bpf');
      for (const code of ['EACCES', 'EPERM', 'EROFS']) {
        using _refusing = replaceFs({
          mkdirSync: () => {
            throw refusal(code);
          },
        });
        assert.throws(() => tryPinFolder(join(bpffs.path, 'nmi')), { code: 'NOT_PERMITTED' });
      }
    });
  });

  describe('pins', () => {
    it('are listed by name, and none in a missing folder', () => {
      writeFileSync(join(work, 'callers'), '');
      assert.deepEqual(listPins(work), ['callers']);
      assert.deepEqual(listPins(join(work, 'none')), []);
      assert.throws(() => listPins(join(work, 'callers')), { code: 'KERNEL_REFUSED' });
    });

    it('are removed once', () => {
      writeFileSync(join(work, 'callers'), '');
      assert.deepEqual([unpin(work, 'callers'), unpin(work, 'callers')], [true, false]);
      mkdirSync(join(work, 'folder'));
      assert.throws(() => unpin(work, 'folder'), { name: 'RedirectError' });
    });

    it('replace the previous ones in one step', () => {
      writeFileSync(join(work, 'settings'), 'old');
      writeFileSync(join(work, 'next_settings'), 'new!');
      promotePin(work, 'settings');
      assert.deepEqual(readdirSync(work), ['settings']);
      assert.equal(statSync(join(work, 'settings')).size, 4);
      assert.throws(() => promotePin(work, 'settings'), { code: 'BUSY' });
      writeFileSync(join(work, 'next_link'), '');
      mkdirSync(join(work, 'link'));
      assert.throws(() => promotePin(work, 'link'), { code: 'KERNEL_REFUSED' });
    });

    it('that may not be touched are reported as missing permission', () => {
      for (const code of ['EPERM', 'EACCES', 'EROFS', 'EIO']) {
        const refuseAll = (): never => {
          throw refusal(code);
        };
        using _refusing = replaceFs({
          readdirSync: refuseAll,
          unlinkSync: refuseAll,
          renameSync: refuseAll,
          chmodSync: refuseAll,
          rmdirSync: refuseAll,
        });
        const expected = {
          code: code === 'EIO' ? 'KERNEL_REFUSED' : 'NOT_PERMITTED',
          message: `BPF file system: ${code}: refused`,
        };
        assert.throws(() => listPins(work), expected);
        assert.throws(() => unpin(work, 'callers'), expected);
        assert.throws(() => promotePin(work, 'callers'), expected);
        assert.throws(() => removePinFolder(work), expected);
      }
    });

    it('leave an empty folder, which is removed, or one with a pin of another owner, which is kept', () => {
      const folder = join(work, 'nmi');
      mkdirSync(folder);
      writeFileSync(join(folder, 'other'), '');
      removePinFolder(folder);
      assert.deepEqual(readdirSync(folder), ['other']);
      unpin(folder, 'other');
      removePinFolder(folder);
      removePinFolder(folder);
      assert.deepEqual(readdirSync(work), []);
    });
  });
});

describe('the settings of the programs', () => {
  const node = { podsRoot: 2n ** 40n + 7n, qosClasses: [8n, 9n], netnsCookie: 4n };
  const programs = Buffer.from('programs');
  const settings = settingsOf(programs, defaultTarget, 2579, node);

  it('are bytes in the order of the C structure, addresses and ports in network order', () => {
    assert.equal(settings.length, 96);
    assert.deepEqual(
      [...settings.subarray(0, 64)],
      [
        ...[mapLayout, 0, 0, 0],
        ...[169, 254, 169, 254],
        ...[169, 254, 25, 79],
        ...[0, 80],
        ...[2579 >> 8, 2579 & 255],
        ...[128, 2, 0, 0],
        ...[128, 0, 0, 0],
        ...[0, 2, 0, 0],
        ...[0x40, 0x42, 0x0f, 0],
        ...[7, 0, 0, 0, 0, 1, 0, 0],
        ...[8, 0, 0, 0, 0, 0, 0, 0],
        ...[9, 0, 0, 0, 0, 0, 0, 0],
        ...[4, 0, 0, 0, 0, 0, 0, 0],
      ],
    );
    // FNV-1a of the bytes, and their number.
    const version = [0xa8, 0xb3, 0x6d, 0x8f, 8, 0, 0, 0, ...Array<number>(20).fill(0)];
    const ports = [2579 >> 8, 2579 & 255, 2580 >> 8, 2580 & 255];
    assert.deepEqual([...settings.subarray(64)], [...version, ...ports]);
  });

  it('differ by layout first, then by port', () => {
    assert.equal(diffSettings(settings, settings), undefined);
    const moved = settingsOf(programs, defaultTarget, 2580, node);
    assert.deepEqual([settings, moved].map(listenPortOf), [2579, 2580]);
    assert.equal(diffSettings(moved, settings), 'programs redirect to port 2580');
    for (let at = 4; at < settings.length; at++) {
      if (at === 14 || at === 15) continue;
      const present = Uint8Array.from(settings).fill(0x5a, at, at + 1);
      assert.equal(
        diffSettings(present, settings),
        'programs of another version or configuration',
        `byte ${at}`,
      );
    }
    for (const present of [Uint8Array.from(settings).fill(9, 0, 1), settings.subarray(1)]) {
      assert.equal(diffSettings(present, settings), 'programs of another layout');
    }
  });
});

/** A kernel map with these keys, as read from their bytes. */
function nativeWith(...ids: readonly bigint[]) {
  const keyOf = (bytes: Uint8Array): bigint => Buffer.from(bytes).readBigUInt64LE();
  const bytesOf = (id: bigint): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(id);
    return bytes;
  };
  const map = new Set(ids);
  const opened: unknown[] = [];
  const maps: number[] = [];
  const open = (): number => maps.filter((each) => existsSync(`/proc/self/fd/${each}`)).length;
  const native = {
    openPin: (pin: string, readOnly: boolean) => {
      opened.push([pin, readOnly]);
      maps.push(openSync('/dev/null', 'r'));
      return maps.at(-1);
    },
    mapKeys: () => [...map].map(bytesOf),
    mapSet: (_map: unknown, key: Uint8Array) => map.add(keyOf(key)),
    mapDelete: (_map: unknown, key: Uint8Array) => map.delete(keyOf(key)),
  } as unknown as NativeModule;
  return { native, map, opened, open };
}

const large = 2n ** 63n + 5n;

describe('cgroups that are not redirected', () => {
  it('are the keys of the map, which is opened for reading only', () => {
    const { native, opened, open } = nativeWith(1n, large);
    assert.deepEqual(readCgroups(native, '/pins', 'exempt'), [1n, large]);
    assert.deepEqual(opened, [['/pins/exempt', true]]);
    assert.equal(open(), 0);
  });

  it('become the wanted ones, and no others', () => {
    const { native, map, opened, open } = nativeWith(1n, 2n);
    assert.deepEqual(syncCgroups(native, '/pins', 'exempt', [2n, large]), [
      `repaired: cgroup ${large} is not exempt`,
      'repaired: cgroup 1 is exempt',
    ]);
    assert.deepEqual(map, new Set([2n, large]));
    assert.deepEqual(opened.at(-1), ['/pins/exempt', false]);
    assert.equal(open(), 0);
    assert.deepEqual(syncCgroups(native, '/pins', 'exempt', [large, 2n]), []);
  });

  it('of pods on the host network have a map and words of their own', () => {
    const { native, map, opened } = nativeWith(1n);
    assert.deepEqual(syncCgroups(native, '/pins', 'node_pods', [2n]), [
      'repaired: cgroup 2 is not let through',
      'repaired: cgroup 1 is let through',
    ]);
    assert.deepEqual(map, new Set([2n]));
    assert.deepEqual(opened.at(-1), ['/pins/node_pods', false]);
  });

  it('are compared one by one', () => {
    assert.deepEqual(diffCgroups('exempt', [], []), []);
    assert.deepEqual(diffCgroups('exempt', [1n, 2n], [2n, 3n]), [
      'cgroup 3 is not exempt',
      'cgroup 1 is exempt',
    ]);
  });
});
