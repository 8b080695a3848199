/**
 * Envoy under Istio's own rules, in pods on both kinds of network and in both modes. If it is not on this
 * machine, and cannot be installed, that is reported as skipped.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openFabric } from '../../../../lab/fabric/fabric.ts';
import type { ScenarioResult } from '../../../../lab/test-bed/scenario.ts';
import { whyNoEbpf } from '../support/ebpf-skip.ts';
import { fabricSkip } from '../support/fabric-pod.ts';
import { envoyScenarios, installEnvoy } from './envoy.ts';

const inner = fileURLToPath(new URL('inner.ts', import.meta.url));
const installed = fabricSkip === false ? installEnvoy() : { missing: fabricSkip };
const folder = installed.missing === undefined ? installed.folder : '';

for (const [redirect, noRedirect] of [
  ['iptables', fabricSkip],
  ['ebpf', whyNoEbpf()],
] as const) {
  const skip = noRedirect || (installed.missing ?? false);
  describe(`callers of other programs, ${redirect}`, { skip }, () => {
    let results: readonly ScenarioResult[] = [];
    before(async () => {
      await using fabric = await openFabric({ name: 'callers' });
      const words = [inner, fabric.prefix, redirect, folder];
      const child = fabric.exec('azure', process.execPath, words, {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let text = '';
      child.stdout?.setEncoding('utf8').on('data', (more: string) => (text += more));
      const [code] = (await once(child, 'close')) as [number | null];
      assert.equal(code, 0, text);
      results = JSON.parse(text) as readonly ScenarioResult[];
    });

    for (const { name } of envoyScenarios(folder)) {
      it(name, () => {
        const result = results.find((each) => each.name === name);
        assert.ok(result?.ok, result?.detail ?? 'the scenario did not run');
      });
    }
  });
}
