/** Every scenario, in order; those with equal agent flags are adjacent. */
import type { Scenario } from '../test-bed/scenario.ts';
import { addressScenarios } from './pods/addresses.ts';
import { addressStormScenarios } from './pods/address-storm.ts';
import { agentUpdateScenarios } from './node/agent-updates.ts';
import { agentLifeScenarios } from './node/agent-life.ts';
import { agentUpgradeScenarios } from './node/agent-upgrade.ts';
import { attackScenarios } from './pods/attacks.ts';
import { chainScenarios } from './tokens/chains.ts';
import { changeScenarios } from './pods/changes.ts';
import { connectionScenarios } from './pods/connections.ts';
import { crowdScenarios } from './pods/crowd.ts';
import { demoScenarios } from './tokens/demo.ts';
import { entraScenarios } from './tokens/entra.ts';
import { exceptionScenarios } from './tokens/exceptions.ts';
import { freshNodeScenarios } from './node/fresh-nodes.ts';
import { gonePodScenarios } from './pods/gone-pods.ts';
import { identityBindingScenarios } from './tokens/identity-bindings.ts';
import { identityScenarios } from './tokens/identities.ts';
import { imdsRestrictionScenarios } from './node/imds-restriction.ts';
import { kubeOutageScenarios } from './pods/kube-outage.ts';
import { lateObjectScenarios } from './pods/late-objects.ts';
import { ownerScenarios } from './tokens/owners.ts';
import { nodeSurfaceScenarios } from './node/node-surface.ts';
import { privilegeSplitScenarios } from './node/privilege-split.ts';
import { rawFrameScenarios } from './node/raw-frames.ts';
import { redirectScenarios } from './node/redirect.ts';
import { driftScenarios } from './node/drift.ts';
import { hostileScenarios } from './translated/hostile.ts';
import { linkScenarios } from './translated/links.ts';
import { insideScenarios } from './translated/inside.ts';
import { stormScenarios } from './pods/storms.ts';
import { proxyScenarios } from './translated/proxies.ts';
import { shapeScenarios } from './pods/shapes.ts';
import { attestedScenarios } from './pods/attested.ts';
import { nodePodScenarios } from './pods/node-pods.ts';
import { canaryScenarios, upstreamScenarios } from './tokens/upstream.ts';
import { wireScenarios } from './tokens/wire.ts';

export const scenarios: readonly Scenario[] = [
  ...identityScenarios,
  ...exceptionScenarios,
  ...ownerScenarios,
  ...lateObjectScenarios,
  ...addressScenarios,
  ...wireScenarios,
  ...demoScenarios,
  ...upstreamScenarios,
  ...entraScenarios,
  ...chainScenarios,
  ...identityBindingScenarios,
  ...changeScenarios,
  ...driftScenarios,
  ...agentUpdateScenarios,
  ...agentLifeScenarios,
  ...agentUpgradeScenarios,
  ...freshNodeScenarios,
  ...crowdScenarios,
  ...redirectScenarios,
  ...imdsRestrictionScenarios,
  ...attestedScenarios,
  ...nodePodScenarios,
  ...shapeScenarios,
  ...rawFrameScenarios,
  ...attackScenarios,
  ...stormScenarios,
  ...connectionScenarios,
  ...gonePodScenarios,
  ...addressStormScenarios,
  // After the attacks, which measure: the kernel removes the namespaces of these in the background.
  ...proxyScenarios,
  ...insideScenarios,
  ...hostileScenarios,
  ...linkScenarios,
  ...privilegeSplitScenarios,
  ...nodeSurfaceScenarios,
  ...kubeOutageScenarios,
  ...canaryScenarios,
];
