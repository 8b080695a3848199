/**
 * The caller's pod, or why there is none. A request may wait for a pod the watch has not
 * delivered yet; what cannot change by waiting is refused at once.
 */
import type { Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import { refuse, type Answer } from '../base/answers.ts';
import type { CallerConnection } from './caller.ts';

/** What the watches have delivered. */
export interface Knowledge {
  readonly pods: PodIndex;
  /** All watches have listed at least once. */
  isSynced(): boolean;
  /** What is known of pods is new enough to say whose an address is. */
  trustsAddresses(): boolean;
}

export interface Refused {
  readonly kind: 'refused';
  readonly answer: Answer;
  /** A watch event may turn it: the request is worth holding for a moment. */
  readonly isPending: boolean;
  /** Known when the refusal is about a known pod. */
  readonly pod: Pod | undefined;
}

export type Identified = { readonly kind: 'pod'; readonly pod: Pod } | Refused;

export function identify(connection: CallerConnection, knowledge: Knowledge): Identified {
  const caller = connection.resolve(knowledge.pods);
  switch (caller.kind) {
    case 'unattested':
      return refused(
        refuse(
          'caller_unattested',
          'Access denied: this connection did not come through the redirect of this node.',
          { close: true },
        ),
        false,
      );
    case 'outlived':
      return refused(
        refuse(
          'connection_outlived_pod',
          'The address of this connection belongs to another pod now. Connect again.',
          { close: true },
        ),
        false,
      );
    case 'pod':
      if (!knowledge.isSynced()) break;
      if (connection.attestation.kind === 'by-address' && !knowledge.trustsAddresses()) {
        return refused(
          refuse(
            'agent_not_synced',
            'The agent has heard nothing of the pods of this node for so long that it cannot tell ' +
              `whether ${connection.ip} is still the same pod’s. It asks the Kubernetes API. Retry.`,
          ),
          true,
        );
      }
      return { kind: 'pod', pod: caller.pod };
    case 'ambiguous':
      return refused(
        refuse(
          'pod_ambiguous',
          `More than one running pod of this node has the address ${connection.ip}. Retry later.`,
        ),
        true,
      );
    case 'unknown':
      break;
  }
  if (!knowledge.isSynced()) {
    return refused(
      refuse('agent_not_synced', 'The agent is starting and does not know the pods yet. Retry.'),
      true,
    );
  }
  return refused(
    refuse('pod_unknown', `No running pod of this node has the address ${connection.ip}. Retry.`),
    true,
  );
}

function refused(answer: Answer, isPending: boolean): Refused {
  return { kind: 'refused', answer, isPending, pod: undefined };
}
