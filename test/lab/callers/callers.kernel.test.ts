/**
 * Envoy under Istio's own rules, and gVisor, in pods on both kinds of network and in both modes.
 * What is not on this machine, and cannot be installed, is reported as skipped.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { before, describe, it } from 'node:test';
import { openFabric } from '../../../lab/fabric/fabric.ts';
import type { ScenarioResult } from '../../../lab/test-bed/scenario.ts';
import { whyNoEbpf } from '../support/ebpf-skip.ts';
import { fabricSkip } from '../support/fabric-pod.ts';
import { installEnvoy } from './envoy.ts';
import { whyNoGvisor } from './gvisor.ts';
import { envoyScenarios, gvisor } from './scenarios.ts';

const inner = fileURLToPath(new URL('inner.ts', import.meta.url));

const installed = fabricSkip === false ? installEnvoy() : { missing: fabricSkip };
const folder = installed.missing === undefined ? installed.folder : '';
const missing = new Map<string, string | undefined>([
  ...envoyScenarios(folder).map(({ name }) => [name, installed.missing] as const),
  [gvisor.name, whyNoGvisor()],
]);
const present = [...missing].filter(([, why]) => why === undefined).map(([name]) => name);

for (const [redirect, skip] of [
  ['iptables', fabricSkip],
  ['ebpf', whyNoEbpf()],
] as const) {
  describe(`callers of other programs, ${redirect}`, { skip }, () => {
    let results: readonly ScenarioResult[] = [];
    before(async () => {
      if (present.length > 0) results = await runInner(redirect);
    });

    for (const [name, why] of missing) {
      if (why !== undefined && skip === false) {
        process.stderr.write(`NOT TESTED: ${name}, ${redirect}: ${why}\n`);
      }
      it(name, { skip: why ?? false }, () => {
        const result = results.find((each) => each.name === name);
        assert.ok(result?.ok, result?.detail ?? 'the scenario did not run');
      });
    }
  });
}

async function runInner(redirect: string): Promise<readonly ScenarioResult[]> {
  await using fabric = await openFabric({ name: 'callers' });
  const words = [inner, fabric.prefix, redirect, folder, ...present];
  const child = fabric.exec('azure', process.execPath, words, {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (more: string) => (text += more));
  const [code] = (await once(child, 'close')) as [number | null];
  assert.equal(code, 0, text);
  return JSON.parse(text) as readonly ScenarioResult[];
}
