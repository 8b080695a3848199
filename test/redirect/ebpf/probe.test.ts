import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, before, describe, it, mock } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import {
  findRefusal,
  kernelAnswers,
  findingOfAnswer,
  probeEbpf,
  summariseFindings,
  type Finding,
} from '../../../src/redirect/ebpf/probe.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { pretendFileSystem } from '../../support/replaced-fs.ts';
import { nativeFailure, openFakeKernel } from './fake-kernel.ts';

const connect = { part: 'programs at connect', since: '4.17' };

const all = { connect: 0, peername: 0, sockOps: 0, socketStorage: 0, cgroupId: 0, cgroupLink: 0 };

describe('the probe of the kernel', () => {
  const [ENOMEM, EPERM, EINVAL] = [12, 1, 22];

  for (const { kernel, connects, asked } of [
    { kernel: 'has all', connects: [0], asked: 1 },
    { kernel: 'lacks something', connects: [EINVAL], asked: 1 },
    { kernel: 'does not let us', connects: [-EPERM], asked: 1 },
    { kernel: 'was short of memory once', connects: [-ENOMEM, 0], asked: 2 },
    { kernel: 'is short of memory', connects: [-ENOMEM, -ENOMEM, -ENOMEM], asked: 3 },
  ]) {
    it(`runs ${asked} times on one that ${kernel}`, () => {
      let times = 0;
      const answers = kernelAnswers(() => {
        times += 1;
        return { ...all, connect: connects[times - 1] ?? 0 };
      });
      assert.equal(answers.connect, connects.at(-1));
      assert.equal(times, asked);
    });
  }
});

describe('loading the programs for a probe', () => {
  before(freshNative);
  afterEach(() => mock.restoreAll());

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
    it(`is tried ${asked} times on a kernel that ${kernel}`, () => {
      const native = nativeModule();
      const loaded: unknown[] = [];
      mock.method(native, 'openMap', () => {
        throw nativeFailure('ENOENT', 'open pin');
      });
      const load = mock.method(native, 'load', () => {
        const error = errors[load.mock.callCount()];
        if (error !== undefined) throw nativeFailure(error, 'load');
        loaded.push(loaded.length);
        return loaded.length as never;
      });
      const close = mock.method(native, 'close', () => undefined);
      assert.equal(findRefusal('/sys/fs/bpf/none')?.code, code);
      assert.equal(load.mock.callCount(), asked);
      assert.equal(close.mock.callCount(), loaded.length);
    });
  }
});

describe('the probe of the eBPF mode', () => {
  before(freshNative);
  afterEach(() => mock.restoreAll());

  function probe(answer: number) {
    using bpffs = pretendFileSystem('bpf');
    using cgroups = pretendFileSystem('cgroup2');
    openFakeKernel();
    mock.method(nativeModule(), 'probe', () => ({ ...all, connect: answer }));
    const ask = (pinFolder: string) =>
      new Map(probeEbpf({ pinFolder, cgroupRoot: cgroups.path }).map((each) => [each.part, each]));
    const empty = ask(join(bpffs.path, 'nmi'));
    mkdirSync(join(cgroups.path, 'kubepods'));
    const found = ask(join(cgroups.path, 'nmi'));
    return { empty, found, bpffs: bpffs.path, cgroups: cgroups.path };
  }

  it('finds what a node has, and what it lacks', () => {
    const { empty, found, bpffs, cgroups } = probe(0);
    const [pins, tree, pods] = ['BPF file system', 'cgroup2 tree', 'pods in the cgroup2 tree'];
    assert.deepEqual(empty.get(pins), { part: pins, support: 'supported', detail: bpffs });
    const detail = `no BPF file system at ${cgroups}, nor an empty folder to mount one at`;
    assert.deepEqual(found.get(pins), { part: pins, support: 'unsupported', detail });
    assert.deepEqual(found.get(tree), { part: tree, support: 'supported', detail: cgroups });
    assert.equal(empty.get(pods)?.support, 'unsupported');
    const path = join(cgroups, 'kubepods');
    assert.deepEqual(found.get(pods), { part: pods, support: 'supported', detail: path });
    assert.equal(found.get('programs of this version')?.support, 'supported');
  });

  it('does not load the programs on a kernel that lacks a part', () => {
    const { found } = probe(22);
    assert.equal(found.get('programs at connect')?.support, 'unsupported');
    assert.equal(found.has('programs of this version'), false);
  });
});

describe('what the kernel answers to a probe', () => {
  it('is one of three: supported, unsupported with the version needed, or unknown', () => {
    assert.equal(findingOfAnswer(connect, 0).support, 'supported');
    const missing = findingOfAnswer(connect, 22);
    assert.equal(missing.support, 'unsupported');
    assert.match(missing.detail, /^Linux 4\.17 or later is needed, this is .* \(EINVAL\)$/);
    const refused = findingOfAnswer(connect, -1);
    assert.equal(refused.support, 'unknown');
    assert.match(refused.detail, /CAP_BPF and CAP_NET_ADMIN/);
    assert.match(findingOfAnswer(connect, -12).detail, /ENOMEM/);
  });

  it('makes the whole unsupported if one part is, otherwise unknown if one part is', () => {
    const of = (...answers: readonly number[]): readonly Finding[] =>
      answers.map((answer) => findingOfAnswer(connect, answer));
    assert.equal(summariseFindings(of(0, 0)), 'supported');
    assert.equal(summariseFindings(of(0, -1, 0)), 'unknown');
    assert.equal(summariseFindings(of(-1, 22, 0)), 'unsupported');
    assert.equal(summariseFindings([]), 'supported');
  });
});
