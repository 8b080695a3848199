/** Every scenario, in the order they run: those with equal flags of the agent side by side. */
import type { Scenario } from '../scenario.ts';
import { addressModeScenarios } from './address-mode.ts';
import { addressScenarios } from './addresses.ts';
import { addressStormScenarios } from './address-storm.ts';
import { agentLifeScenarios } from './agent-life.ts';
import { agentUpgradeScenarios } from './agent-upgrade.ts';
import { changeScenarios } from './changes.ts';
import { crowdScenarios } from './crowd.ts';
import { demoScenarios } from './demo.ts';
import { entraScenarios } from './entra.ts';
import { exceptedDirectScenarios } from './excepted-direct.ts';
import { exceptionScenarios } from './exceptions.ts';
import { gonePodScenarios } from './gone-pods.ts';
import { identityScenarios } from './identities.ts';
import { kubeOutageScenarios } from './kube-outage.ts';
import { lateObjectScenarios } from './late-objects.ts';
import { nodeSurfaceScenarios } from './node-surface.ts';
import { privilegeSplitScenarios } from './privilege-split.ts';
import { rawFrameScenarios } from './raw-frames.ts';
import { redirectScenarios } from './redirect.ts';
import { selfTestScenarios } from './self-test.ts';
import { strangerScenarios } from './strangers.ts';
import { attestedScenarios } from './attested.ts';
import { canaryScenarios, upstreamScenarios } from './upstream.ts';
import { wireScenarios } from './wire.ts';

export const scenarios: readonly Scenario[] = [
  ...identityScenarios,
  ...exceptionScenarios,
  ...lateObjectScenarios,
  ...addressScenarios,
  ...wireScenarios,
  ...demoScenarios,
  ...upstreamScenarios,
  ...entraScenarios,
  ...changeScenarios,
  ...strangerScenarios,
  ...agentLifeScenarios,
  ...agentUpgradeScenarios,
  ...crowdScenarios,
  ...redirectScenarios,
  ...attestedScenarios,
  ...rawFrameScenarios,
  ...exceptedDirectScenarios,
  ...gonePodScenarios,
  ...addressStormScenarios,
  ...selfTestScenarios,
  ...privilegeSplitScenarios,
  ...addressModeScenarios,
  ...nodeSurfaceScenarios,
  ...kubeOutageScenarios,
  ...canaryScenarios,
];
