/** The view of each agent: its options decide what the pods of its node get. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { specOf, type RawObject } from '../base/object.ts';
import { commonConfig, defaultConfig, servingAgents, type AgentView } from '../cluster/agents.ts';
import { createClusterState, type ClusterView } from '../cluster/cluster-state.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import type { Config } from '../../nmi/config/config.ts';
import type { PodContext } from './pods.ts';

export interface AgentContexts {
  /** Undefined if none is on the node, or the user may not read the agents. */
  agentOf(pod: RawObject): AgentView | undefined;
  of(pod: RawObject): PodContext;
  /** One for each set of options that an agent has. */
  all(): readonly PodContext[];
  /** What its pods would get with other options; by owners, grants that cannot be read count as none. */
  variant(context: PodContext, change: Partial<Config>): ClusterView;
}

export function createContexts(snapshot: Snapshot, nowWallMs: number): AgentContexts {
  const agents = servingAgents(snapshot.agents);
  /** By the options of the agents: most clusters have the same on every node. */
  const contexts = new Map<string, PodContext>();
  const agentOf = (pod: RawObject) => agents.get(stringAt(specOf(pod), 'nodeName'));
  const viewWith = (config: Config, grants = snapshot.grants) =>
    createClusterState({ ...snapshot, grants }, config, nowWallMs);
  /** The options of a pod that only looks like an agent prove nothing. */
  const contextWith = (agent: AgentView | undefined): PodContext => {
    const knowsOptions = agent?.config !== undefined && agent.isVerified;
    const config = agent?.config ?? commonConfig(snapshot.agents) ?? defaultConfig;
    const key = JSON.stringify([knowsOptions, config]);
    const known = contexts.get(key);
    const context = known ?? { snapshot, view: viewWith(config), config, knowsOptions };
    contexts.set(key, context);
    return context;
  };
  return {
    agentOf,
    of: (pod) => contextWith(agentOf(pod)),
    all() {
      const known = [...agents.values()].filter(({ config }) => config !== undefined);
      return [...new Set((known.length === 0 ? [undefined] : known).map(contextWith))];
    },
    variant: ({ config }, change) =>
      viewWith(
        { ...config, ...change },
        change.identityOwners === undefined ? snapshot.grants : (snapshot.grants ?? []),
      ),
  };
}
