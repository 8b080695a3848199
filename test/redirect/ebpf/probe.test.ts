import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  kernelAnswers,
  findingOfAnswer,
  summariseFindings,
  type Finding,
} from '../../../src/redirect/ebpf/probe.ts';

const connect = { part: 'programs at connect', since: '4.17' };

describe('the probe of the kernel', () => {
  const all = { connect: 0, peername: 0, sockOps: 0, socketStorage: 0, cgroupId: 0, cgroupLink: 0 };
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
