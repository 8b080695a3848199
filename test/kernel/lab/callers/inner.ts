/**
 * The lab of the real proxies, inside the azure namespace: runs the scenarios and prints their results as
 * one JSON array.
 *
 *   inner.ts PREFIX REDIRECT ENVOY-FOLDER
 */
import { attachFabric } from '../../../../lab/fabric/fabric.ts';
import { openFabricEnvironment } from '../../../../lab/test-bed/fabric-environment.ts';
import { runScenarios } from '../../../../lab/test-bed/scenario.ts';
import { TestBed } from '../../../../lab/test-bed/test-bed.ts';
import { agentCommand } from '../../../support/agent-command.ts';
import { envoyScenarios } from './envoy.ts';

const [prefix = '', redirect = '', folder = ''] = process.argv.slice(2);
const fabric = attachFabric(prefix);
await using environment = await openFabricEnvironment(fabric, redirect, agentCommand);
await using testBed = new TestBed(environment, () => undefined);
// From its sources, on a busy machine, the first start may take longer than the agent is given.
await testBed.startAgent().catch(() => testBed.startAgent());
const { scenarios } = await runScenarios({
  testBed,
  scenarios: envoyScenarios(folder),
  stop: new AbortController().signal,
  onStart: () => undefined,
  onEnd: () => undefined,
});
process.stdout.write(JSON.stringify(scenarios));
