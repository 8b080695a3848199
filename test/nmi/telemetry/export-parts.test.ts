import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Part } from '../../../src/nmi/base/part.ts';
import { exportParts } from '../../../src/nmi/telemetry/export-parts.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';

describe('the samples and conditions of the parts', () => {
  it('are read at every scrape, with a series for each condition', async () => {
    const metrics = createMetrics();
    let value = 1;
    let problem: string | undefined = 'why';
    const parts: readonly Part[] = [
      {},
      { samples: () => [{ metric: 'nmi_connections', value }] },
      { conditions: [{ name: 'watches', problem: () => problem }] },
    ];
    exportParts(metrics, parts);
    const first = await metrics.render();
    assert.match(first, /^nmi_connections 1$/m);
    assert.match(first, /^nmi_ready\{condition="watches"\} 0$/m);
    value = 2;
    problem = undefined;
    const second = await metrics.render();
    assert.match(second, /^nmi_connections 2$/m);
    assert.match(second, /^nmi_ready\{condition="watches"\} 1$/m);
  });

  it('disappear with the scrape in which the parts no longer have them', async () => {
    const metrics = createMetrics();
    let modes = ['ebpf', 'iptables'];
    const samples = () =>
      modes.map((mode) => ({ metric: 'nmi_redirect_up' as const, labels: { mode }, value: 1 }));
    exportParts(metrics, [
      {
        samples,
        get conditions() {
          return modes.map((name) => ({ name, problem: () => undefined }));
        },
      },
    ]);
    assert.match(await metrics.render(), /mode="iptables"\} 1[^]*condition="iptables"\} 1/);
    modes = ['ebpf'];
    const page = await metrics.render();
    assert.match(page, /mode="ebpf"\} 1[^]*condition="ebpf"\} 1/);
    assert.doesNotMatch(page, /iptables/);
  });
});
