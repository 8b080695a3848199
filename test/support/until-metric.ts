import assert from 'node:assert/strict';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { LoopbackAgent } from './loopback-agent.ts';

/** Resolves when the agent reports this value. @param series with its labels. */
export async function untilMetric(
  { adminPort }: Pick<LoopbackAgent, 'adminPort'>,
  series: string,
  value: number,
): Promise<void> {
  await eventually(async () => {
    const page = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text();
    assert.ok(page.includes(`\n${series} ${value}\n`), `${series} is not ${value}`);
  }, 30_000);
}
