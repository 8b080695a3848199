/** Arguments, commands and reports of the program of a whole node. */
import type { Options, Rival } from '../core/options.ts';
import type { LoadPlan, LoadReport } from '../load/plan.ts';

export interface FabricPlan {
  readonly prefix: string;
  readonly redirect: 'none' | 'iptables' | 'ebpf';
  readonly executable: string;
  readonly agentFlags: Options['agentFlags'];
  /** In place of the agent. */
  readonly rival: Rival | undefined;
}

/** Said once, when a token has come through. */
export interface FabricReady {
  readonly agentPid: number;
  readonly controlPid: number;
  /** Undefined where Go is not installed. */
  readonly goPid: number | undefined;
  /** Of the identity whose tokens the pod gets. */
  readonly identity: string;
  readonly bodyBytes: number;
}

export type FabricOrder =
  | {
      readonly kind: 'load';
      readonly plan: LoadPlan;
      /** In the pod's network, and in no cgroup that programs are attached to. */
      readonly isOutside: boolean;
    }
  | { readonly kind: 'attest' };

/** Each order has one answer, in turn. */
export type FabricAnswer =
  | { readonly kind: 'report'; readonly report: LoadReport }
  /** Nanoseconds of a look-up, for callers that are known and for others. */
  | {
      readonly kind: 'look-ups';
      readonly knownNs: readonly number[];
      readonly unknownNs: readonly number[];
    };

/** Where the agent and the controls listen when nothing redirects to them. */
export const nodePorts = {
  agent: 2579,
  control: 9000,
  go: 9001,
  probe: 8085,
  metrics: 9090,
} as const;
