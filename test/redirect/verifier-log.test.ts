import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { summariseVerifierLog } from '../../src/redirect/verifier-log.ts';

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
