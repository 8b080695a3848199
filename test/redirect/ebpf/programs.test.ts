import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import {
  cutOlderSockets,
  diffPrograms,
  installPrograms,
  listOwnPins,
  readCounters,
  removePrograms,
  unpinPrograms,
  type WantedPrograms,
} from '../../../src/redirect/ebpf/programs.ts';
import { encodeSettings, LAYOUT, settingsOf } from '../../../src/redirect/ebpf/settings.ts';
import {
  nativeModule,
  type LinkInfo,
  type NativeModule,
} from '../../../src/redirect/native/addon.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';
import {
  pretendFileSystem,
  replaceFs,
  type PretendedFileSystem,
} from '../../support/replaced-fs.ts';

const hooks = [
  'bind6',
  'bind4',
  'sockops',
  'getpeername4',
  'getpeername6',
  'connect6',
  'connect4',
] as const;
const attachTypes = {
  bind6: 9,
  bind4: 8,
  sockops: 3,
  getpeername4: 29,
  getpeername6: 30,
  connect6: 11,
  connect4: 10,
};
const object = Buffer.from('programs');
const settings = settingsOf(object, DEFAULT_TARGET);
const settingsMap = 1;
const callersMap = 2;

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

function missing(path: string): Error {
  return Object.assign(new Error(`no ${path}`), { code: 'ENOENT', errno: 2, step: 'open' });
}

/** A kernel whose pins are files, with links and programs of the test. */
function openKernel() {
  const calls: string[] = [];
  const links: Record<string, LinkInfo> = {};
  const programs: Record<string, { id: number; mapIds: number[] }> = {};
  const exempt = new Set<bigint>();
  const state = { settings: encodeSettings(settings), users: [] as bigint[], open: 0 };
  const nameOf = (pin: string): string => pin.slice(folder.length + 1);
  const there = (pin: string): string => {
    if (!readdirSync(folder).includes(nameOf(pin))) throw missing(pin);
    return nameOf(pin);
  };
  const find = <T>(table: Record<string, T>, pin: string): T => {
    const found = table[nameOf(pin)];
    if (found === undefined) throw missing(pin);
    return found;
  };
  const bytesOf = (id: bigint): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(id);
    return bytes;
  };
  const write = (pin: string): void => writeFileSync(pin, '', { mode: 0o600 });
  const fake: Partial<Record<keyof NativeModule, (...args: never[]) => unknown>> = {
    openMap: (pin: string) => {
      const name = there(pin);
      state.open++;
      return name;
    },
    close: () => state.open--,
    mapInfo: (map: string) => ({ id: map === 'settings' ? settingsMap : callersMap, valueSize: 1 }),
    mapGet: (map: string) => {
      if (map === 'settings') return state.settings;
      const counters = Buffer.alloc(64);
      for (let index = 0; index < 8; index++) counters.writeBigUInt64LE(BigInt(index), 8 * index);
      return counters;
    },
    mapKeys: () => [...exempt].map(bytesOf),
    mapSet: (_map: string, key: Uint8Array) => exempt.add(Buffer.from(key).readBigUInt64LE()),
    mapDelete: (_map: string, key: Uint8Array) => exempt.delete(Buffer.from(key).readBigUInt64LE()),
    linkInfo: (pin: string) => find(links, pin),
    programInfo: (pin: string) => find(programs, pin),
    load: (_object: Uint8Array, _settings: Uint8Array, pins: Record<string, string>) => {
      calls.push('load');
      state.open++;
      // Pinned maps are shared.
      for (const pin of Object.values(pins)) if (!existsSync(pin)) write(pin);
      return {};
    },
    pinProgram: (_programs: unknown, _name: string, pin: string) => write(pin),
    attach: (_programs: unknown, name: string, cgroup: string, pin: string) => {
      calls.push(`attach ${name} to ${cgroup}`);
      write(pin);
    },
    replace: (_programs: unknown, name: string) => calls.push(`replace ${name}`),
    detach: (pin: string) => calls.push(`detach ${nameOf(pin)}`),
    socketCgroups: () => state.users,
    cutSockets: (_dialled: unknown, ids: readonly bigint[]) => {
      calls.push(`cut ${ids.join(' ')}`);
      return ids.length;
    },
  };
  const native = nativeModule();
  for (const [name, work] of Object.entries(fake)) {
    mock.method(native, name as keyof NativeModule, work as never);
  }
  return { calls, links, programs, exempt, state };
}

const wanted = (): WantedPrograms => ({
  pinFolder: folder,
  object,
  settings,
  cgroup: { path: bpffs.path, id: 5n },
  exempt: [7n],
});

/** The state that an installation left. */
function openInstalled() {
  const kernel = openKernel();
  for (const [at, name] of hooks.entries()) {
    kernel.links[`link_${name}`] = {
      id: at,
      programId: 100 + at,
      type: 3,
      attachType: attachTypes[name],
      cgroupId: 5n,
    };
    kernel.programs[`program_${name}`] = { id: 100 + at, mapIds: [settingsMap, callersMap] };
    for (const pin of [`link_${name}`, `program_${name}`]) writeFileSync(join(folder, pin), '');
  }
  for (const pin of ['settings', 'callers', 'counters', 'dials', 'exempt', 'loads']) {
    writeFileSync(join(folder, pin), '');
  }
  kernel.exempt.add(7n);
  return kernel;
}

describe('installing the programs', () => {
  it('attaches the programs that record callers before those that redirect, and pins all', () => {
    const { calls, exempt, state } = openKernel();
    writeFileSync(join(folder, 'next_left_by_a_crash'), '');
    assert.deepEqual(installPrograms(wanted()), [
      'repaired: cgroup 7 is not exempt',
      ...hooks.map((name) => `program ${name} attached`),
    ]);
    assert.deepEqual(calls, [
      'load',
      ...['bind6', 'bind4', 'sockops', 'peername4', 'peername6', 'connect6', 'connect4'].map(
        (name) => `attach nmi_${name} to ${bpffs.path}`,
      ),
    ]);
    assert.deepEqual(exempt, new Set([7n]));
    assert.deepEqual(
      readdirSync(folder).toSorted(),
      [
        ...['callers', 'counters', 'dials', 'exempt', 'loads', 'settings'],
        ...hooks.flatMap((name) => [`link_${name}`, `program_${name}`]),
      ].toSorted(),
    );
    assert.equal(state.open, 0, 'nothing is left open');
  });

  it('replaces programs of correct links, and makes the other links anew', () => {
    const { calls, links } = openInstalled();
    const link = links['link_connect6'];
    assert.ok(link !== undefined);
    links['link_connect6'] = { ...link, cgroupId: 6n };
    const changes = installPrograms(wanted());
    assert.deepEqual(
      calls.filter((call) => !call.startsWith('replace')),
      ['load', `attach nmi_connect6 to ${bpffs.path}`],
    );
    assert.deepEqual(
      calls.filter((call) => call.startsWith('replace')),
      ['bind6', 'bind4', 'sockops', 'peername4', 'peername6', 'connect4'].map(
        (name) => `replace nmi_${name}`,
      ),
    );
    assert.ok(changes.includes('program connect4 replaced'));
    assert.ok(changes.includes('program connect6 attached'));
    assert.ok(!changes.some((change) => change.startsWith('maps')));
  });

  it('shares no map with programs of another layout', () => {
    const { state } = openInstalled();
    writeFileSync(join(folder, 'callers'), 'of another layout');
    state.settings = encodeSettings({ ...settings, layout: LAYOUT + 1 });
    const [first] = installPrograms(wanted());
    assert.equal(first, 'maps of another layout left behind');
    assert.equal(readFileSync(join(folder, 'callers'), 'utf8'), '');
  });

  it('leaves nothing open when the kernel refuses', () => {
    const { state } = openKernel();
    mock.method(nativeModule(), 'attach', () => {
      throw Object.assign(new Error('no'), { code: 'EPERM', errno: 1, step: 'attach' });
    });
    assert.throws(() => installPrograms(wanted()), { code: 'NOT_PERMITTED', step: 'attach' });
    assert.equal(state.open, 0);
  });
});

describe('reading the programs back', () => {
  it('finds nothing where nothing is pinned, and no problem where all is correct', () => {
    openKernel();
    assert.equal(diffPrograms(wanted()), 'absent');
    openInstalled();
    assert.deepEqual(diffPrograms(wanted()), []);
  });

  type Kernel = ReturnType<typeof openInstalled>;
  const changeLink = (change: Partial<LinkInfo>) => (kernel: Kernel) => {
    const link = kernel.links['link_connect4'];
    assert.ok(link !== undefined);
    kernel.links['link_connect4'] = { ...link, ...change };
  };
  const changeMaps = (name: string, mapIds: number[]) => (kernel: Kernel) => {
    const program = kernel.programs[`program_${name}`];
    assert.ok(program !== undefined);
    kernel.programs[`program_${name}`] = { ...program, mapIds };
  };
  const broken: readonly (readonly [problem: string, breakIt: (kernel: Kernel) => void])[] = [
    ['program connect4 not attached', ({ links }) => delete links['link_connect4']],
    ['link connect4 is of another kind', changeLink({ type: 4 })],
    ['link connect4 is of another kind', changeLink({ attachType: 11 })],
    ['program connect4 detached, its cgroup is gone', changeLink({ cgroupId: 0n })],
    ['program connect4 attached to cgroup 6', changeLink({ cgroupId: 6n })],
    ['program connect4 is not the one we know', changeLink({ programId: 7 })],
    [
      'program connect4 is not the one we know',
      ({ programs }) => delete programs['program_connect4'],
    ],
    ['program connect4 has other settings', changeMaps('connect4', [callersMap])],
    ['callers are filed in another map', changeMaps('sockops', [settingsMap])],
    ['cgroup 7 is not exempt', ({ exempt }) => exempt.clear()],
    [
      'programs of another version',
      ({ state }) => {
        state.settings = encodeSettings({ ...settings, digest: '00'.repeat(32) });
      },
    ],
  ];
  for (const [problem, breakIt] of broken) {
    it(`finds: ${problem}`, () => {
      breakIt(openInstalled());
      assert.deepEqual(diffPrograms(wanted()), [problem]);
    });
  }

  it('does not check whether redirecting programs use the map of callers', () => {
    changeMaps('connect4', [settingsMap])(openInstalled());
    assert.deepEqual(diffPrograms(wanted()), []);
  });

  for (const [pin, problem] of [
    ['settings', 'settings missing'],
    ['callers', 'map of callers missing'],
    ['exempt', 'map of exempt cgroups missing'],
  ] as const) {
    it(`finds: ${problem}`, () => {
      openInstalled();
      rmSync(join(folder, pin));
      assert.deepEqual(diffPrograms(wanted()), [problem]);
    });
  }

  it('hides no refusal of the kernel', () => {
    openInstalled();
    mock.method(nativeModule(), 'linkInfo', () => {
      throw Object.assign(new Error('no'), { code: 'EACCES', errno: 13, step: 'open' });
    });
    assert.throws(() => diffPrograms(wanted()), { code: 'NOT_PERMITTED' });
  });

  it('returns counters, and none where nothing is installed', () => {
    openKernel();
    assert.equal(readCounters(folder), undefined);
    openInstalled();
    assert.deepEqual(readCounters(folder), {
      redirected: 0n,
      redirectedMapped: 1n,
      exempt: 2n,
      filed: 3n,
      forgotten: 4n,
      refused: 5n,
      unfiled: 6n,
      unfiledAtNs: 7n,
      direct: 0n,
    });
  });
});

describe('sockets that are older than the programs', () => {
  it('are closed where their cgroup is redirected, and no others', () => {
    const { calls, state } = openInstalled();
    const { ino } = bigintStat(folder);
    state.users = [ino, 1n, 7n];
    const cgroup = { path: bpffs.path, id: bigintStat(bpffs.path).ino };
    assert.equal(cutOlderSockets({ ...wanted(), cgroup }), 1);
    assert.deepEqual(calls, [`cut ${ino}`]);
  });

  it('are kept below an exempt cgroup, and where no socket matches', () => {
    const { calls, state, exempt } = openInstalled();
    const cgroup = { path: bpffs.path, id: bigintStat(bpffs.path).ino };
    assert.equal(cutOlderSockets({ ...wanted(), cgroup }), 0);
    const { ino } = bigintStat(folder);
    exempt.add(ino);
    state.users = [ino];
    assert.equal(cutOlderSockets({ ...wanted(), cgroup }), 0);
    assert.deepEqual(calls, []);
  });
});

describe('our own pins', () => {
  it('are recognized by their names, and never in another file system', () => {
    const own = ['callers', 'settings', 'link_connect4', 'program_sockops', 'next_loads'];
    for (const name of [...own, 'link_other', 'other', 'next_other', 'callers2']) {
      writeFileSync(join(folder, name), '');
    }
    assert.deepEqual(listOwnPins(folder).toSorted(), own.toSorted());
    assert.deepEqual(listOwnPins(join(folder, 'nothing')), []);
    using _ordinary = replaceFs({ statfsSync: (() => ({ type: 0xef53 })) as never });
    assert.deepEqual(listOwnPins(folder), []);
  });

  it('are removed, the redirecting programs first and at once, the folder with the last pin', () => {
    const { calls } = openInstalled();
    removePrograms(folder);
    assert.deepEqual(
      calls,
      hooks.toReversed().map((name) => `detach link_${name}`),
    );
    assert.deepEqual(readdirSync(bpffs.path), []);
  });

  it('are removed without the capability to detach them, and any other failure is reported', () => {
    openInstalled();
    const refuse = (code: string) =>
      mock.method(nativeModule(), 'detach', () => {
        throw Object.assign(new Error('no'), { code, errno: 1, step: 'detach' });
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

function bigintStat(path: string): { readonly ino: bigint } {
  return statSync(path, { bigint: true });
}
