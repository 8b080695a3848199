import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { noRedirect } from '../../../src/redirect/none.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';
import { defaultTarget, describeTarget, reachableTarget } from '../../../src/redirect/target.ts';
import { summariseVerifierLog } from '../../../src/redirect/native/addon.ts';

describe('no redirect', () => {
  it('is off, whatever is called', async () => {
    const redirect = noRedirect();
    await redirect.prepare();
    assert.equal((await redirect.install()).state, 'off');
    assert.equal((await redirect.verify()).state, 'off');
    await redirect.remove();
    assert.deepEqual(redirect.mode, 'none');
  });
});

describe('a failure at the boundary of the kernel', () => {
  it('names its step and keeps its cause', () => {
    const cause = new Error('errno');
    const error = new RedirectError('BUSY', 'write rules', 'locked', cause);
    assert.deepEqual(
      [error.name, error.code, error.step, error.message],
      ['RedirectError', 'BUSY', 'write rules', 'write rules: locked'],
    );
    assert.equal(error.cause, cause);
    assert.ok(!('cause' in new RedirectError('BUSY', 'write rules', 'locked')));
  });
});

describe('the target of a redirect', () => {
  it('is the address of the agent’s own link if it listens on all addresses', () => {
    const target = { ...defaultTarget, listenIp: '0.0.0.0', listenPort: 4000 };
    assert.deepEqual(reachableTarget(target), { ...defaultTarget, listenPort: 4000 });
  });

  it('is otherwise the configured one', () => {
    const target = { ...defaultTarget, listenIp: '10.0.0.4', metadataPort: 1, listenPort: 65534 };
    assert.deepEqual(reachableTarget(target), target);
  });

  it('must be IPv4 and have valid ports', () => {
    for (const wrong of [
      { listenIp: 'fd00::1' },
      { metadataIp: '::' },
      { metadataIp: 'metadata' },
      { listenPort: 0 },
      { listenPort: 1.5 },
      { metadataPort: 65536 },
    ]) {
      assert.throws(() => reachableTarget({ ...defaultTarget, ...wrong }), RangeError);
    }
  });

  it('is described with both addresses', () => {
    assert.equal(describeTarget(defaultTarget), '169.254.169.254:80 to 169.254.25.79:2579');
  });
});

const log = `func#0 @0
0: R1=ctx() R10=fp0
; __u64 id = bpf_get_current_cgroup_id();
0: (85) call bpf_get_current_cgroup_id#80
1: (7b) *(u64 *)(r10 -516) = r0
invalid write to stack R10 off=-516 size=8
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0
verification time 12 usec
`;

describe('the summary of a verifier log', () => {
  it('ends with the reason and leaves the statistics out', () => {
    assert.equal(
      summariseVerifierLog(log),
      '0: (85) call bpf_get_current_cgroup_id#80 | 1: (7b) *(u64 *)(r10 -516) = r0 | ' +
        'invalid write to stack R10 off=-516 size=8',
    );
  });

  it('keeps a single line whole', () => {
    assert.equal(summariseVerifierLog('libbpf: no such map\n'), 'libbpf: no such map');
    assert.equal(summariseVerifierLog('processed 2 insns\n'), 'processed 2 insns');
    assert.equal(summariseVerifierLog('unknown func\nprocessed 2 insns\n'), 'unknown func');
  });

  it('is short, and never empty unless the log is', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 2000 }), (text) => {
        const summary = summariseVerifierLog(text);
        assert.ok(summary.length < 600);
        assert.equal(summary === '', text.trim() === '');
      }),
    );
  });
});
