import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import {
  changeNodePods,
  cutOlderSockets,
  diffPrograms,
  findRefusal,
  installPrograms,
  joinPinned,
  listOwnPins,
  readCounters,
  removePrograms,
  tryPrograms,
  unpinPrograms,
  type WantedPrograms,
} from '../../../src/redirect/ebpf/programs.ts';
import { settingsOf } from '../../../src/redirect/ebpf/settings.ts';
import { nativeModule, type NativeModule } from '../../../src/redirect/native/addon.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import {
  pretendFileSystem,
  replaceFs,
  type PretendedFileSystem,
} from '../../support/replaced-fs.ts';
import { hooks, inodeOf, nativeFailure, openFakeKernel, type FakeKernel } from './fake-kernel.ts';

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
      ['getsockopt', 'bind6', 'bind4', 'sockops', 'connect4'].map((name) => `replace nmi_${name}`),
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
    assert.deepEqual(state.pins, {}, 'maps of its own');
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
    const { change } = openInstalled();
    const before = readFileSync(join(folder, 'callers'));
    change(join(folder, 'settings'), { value: otherLayout });
    const [first] = installPrograms(wanted());
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
  /** The program uses one map and no other. */
  const limit = (program: string, map: string) => (kernel: FakeKernel) => {
    kernel.change(join(folder, program), { mapIds: [kernel.read(join(folder, map))['id']] });
  };
  const remove = (pin: string) => () => {
    rmSync(join(folder, pin));
  };
  const broken: readonly (readonly [problem: string, breakIt: (kernel: FakeKernel) => void])[] = [
    ['program connect4 not attached', remove('link_connect4')],
    ['link connect4 is of another kind', change('link_connect4', { type: 4 })],
    ['link connect4 is of another kind', change('link_connect4', { attachType: 11 })],
    ['program connect4 detached, its cgroup is gone', change('link_connect4', { cgroupId: 0n })],
    ['program connect4 attached to cgroup 6', change('link_connect4', { cgroupId: 6n })],
    ['program connect4 is not the one we know', change('link_connect4', { programId: 0 })],
    ['program connect4 is not the one we know', remove('program_connect4')],
    ['program connect4 has other settings', limit('program_connect4', 'callers')],
    ['program sockops uses another map of callers', limit('program_sockops', 'settings')],
    ['program getsockopt uses another map of callers', limit('program_getsockopt', 'settings')],
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

  it('does not check whether redirecting programs use the map of callers', () => {
    limit('program_connect4', 'settings')(openInstalled());
    assert.deepEqual(diffPrograms(wanted()), []);
  });

  for (const [pin, problem] of [
    ['settings', 'settings missing'],
    ['callers', 'map of callers missing'],
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

  it('are removed, the redirecting programs first and at once, the folder with the last pin', () => {
    const { calls } = openInstalled();
    const links = hooks.toReversed().map(linkOf);
    removePrograms(folder);
    assert.deepEqual(
      calls,
      links.map((name) => `detach ${name}`),
    );
    assert.deepEqual(readdirSync(bpffs.path), []);
  });

  it('are removed without the capability to detach them, and any other failure is reported', () => {
    openInstalled();
    const refuse = (code: string) =>
      mock.method(nativeModule(), 'detach', () => {
        throw nativeFailure(code, 'detach');
      });
    refuse('EBUSY');
    assert.throws(() => removePrograms(folder), { code: 'BUSY' });
    refuse('EPERM');
    removePrograms(folder);
    assert.deepEqual(readdirSync(bpffs.path), []);
  });

  it('are removed without touching one of another owner', () => {
    openInstalled();
    writeFileSync(join(folder, 'other'), '');
    unpinPrograms(folder);
    assert.deepEqual(readdirSync(folder), ['other']);
  });
});
