/** The view of each agent: its options decide what the pods of its node get. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { specOf, type RawObject } from '../base/object.ts';
import { commonConfig, defaultConfig, type AgentView } from '../cluster/agents.ts';
import { createClusterState } from '../cluster/cluster-state.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import type { Config } from '../../nmi/config/config.ts';
import type { PodContext } from './pods.ts';

export class AgentContexts {
  readonly #snapshot: Snapshot;
  readonly #nowWallMs: number;
  readonly #agents: ReadonlyMap<string, AgentView>;
  /** By the options of the agents: most clusters have the same on every node. */
  readonly #contexts = new Map<string, PodContext>();

  constructor(snapshot: Snapshot, nowWallMs: number) {
    this.#snapshot = snapshot;
    this.#nowWallMs = nowWallMs;
    const own = (snapshot.agents ?? []).filter(({ isOldNmi }) => !isOldNmi);
    this.#agents = new Map(own.map((agent) => [agent.node, agent]));
  }

  /** Undefined if none is on the node, or the user may not read the agents. */
  agentOf(pod: RawObject): AgentView | undefined {
    return this.#agents.get(stringAt(specOf(pod), 'nodeName'));
  }

  of(pod: RawObject): PodContext {
    return this.#with(this.agentOf(pod));
  }

  /** One for each set of options that an agent has. */
  all(): readonly PodContext[] {
    const agents = [...this.#agents.values()].filter(({ config }) => config !== undefined);
    return [
      ...new Set((agents.length === 0 ? [undefined] : agents).map((each) => this.#with(each))),
    ];
  }

  /** With one option changed. */
  variant({ config }: PodContext, change: Partial<Config>): PodContext {
    return this.#create({ ...config, ...change }, true);
  }

  /** The options of a pod that only looks like an agent prove nothing. */
  #with(agent: AgentView | undefined): PodContext {
    const knowsOptions = agent?.config !== undefined && agent.isVerified;
    const config = agent?.config ?? commonConfig(this.#snapshot.agents) ?? defaultConfig;
    const key = JSON.stringify([knowsOptions, config]);
    const known = this.#contexts.get(key);
    if (known !== undefined) return known;
    const created = this.#create(config, knowsOptions);
    this.#contexts.set(key, created);
    return created;
  }

  #create(config: Config, knowsOptions: boolean): PodContext {
    const view = createClusterState(this.#snapshot, config, this.#nowWallMs);
    return { snapshot: this.#snapshot, view, config, knowsOptions };
  }
}
