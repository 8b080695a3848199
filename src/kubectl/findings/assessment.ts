/** Everything about one pod: what it gets, what is wrong, and what is not known. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { type Finding, oneFinding, sortFindings } from '../../nmi/diagnosis/finding.ts';
import { findingOfIgnored } from '../../nmi/diagnosis/objects.ts';
import type { PodExplanation } from '../../nmi/explain/explanation.ts';
import { namespaceOf, specOf, type RawObject } from '../base/object.ts';
import type { AgentView } from '../cluster/agents.ts';
import type { PodRequest } from '../cluster/cluster-state.ts';
import type { Unread } from '../cluster/unread.ts';
import { ofAgent, ofReleases } from './agents.ts';
import type { AgentContexts } from './contexts.ts';
import { notCheckedOf } from './not-checked.ts';
import {
  examinePod,
  identityOf,
  isOnWindows,
  ofWindows,
  refusalOfSource,
  type PodContext,
} from './pods.ts';
import { variantsOf } from './variants.ts';
import { verdictOf, type Verdict } from './verdict.ts';

export interface Assessment {
  readonly verdict: Verdict;
  readonly explanation: PodExplanation;
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
}

/** @param more findings that took a question to the server. */
export function assessPod(
  pod: RawObject,
  contexts: AgentContexts,
  request: PodRequest,
  more: readonly Finding[] = [],
): Assessment | undefined {
  const context = contexts.of(pod);
  const examined = examinePod(pod, context, request);
  if (examined === undefined) return undefined;
  const { explanation } = examined;
  const agent = contexts.agentOf(pod);
  const findings = isOnWindows(pod, context.snapshot)
    ? ofWindows(pod)
    : sortFindings([
        ...withoutDouble(examined.findings),
        ...findingsOfAgent(pod, agent, context),
        ...findingsOfIgnored(pod, context),
        ...more,
      ]);
  const variants = variantsOf(pod, request, contexts);
  const refused = refusalOfSource(pod, identityOf(explanation), context.snapshot);
  const verdict = verdictOf(pod, explanation, findings, variants, refused);
  const unread = notCheckedOf(pod, explanation, verdict, agent, context);
  return { verdict, explanation, findings, unread };
}

/** A refusal for AZURE_CLIENT_ID is reported once, by the finding that shows where to change it. */
function withoutDouble(findings: readonly Finding[]): readonly Finding[] {
  const isDouble = ({ code, object }: Finding): boolean =>
    code === 'selector_not_bound' &&
    findings.some(
      (other) => other.code === code && other.object.startsWith(`${object} container `),
    );
  return findings.filter((finding) => !isDouble(finding));
}

function findingsOfAgent(
  pod: RawObject,
  agent: AgentView | undefined,
  { snapshot }: PodContext,
): readonly Finding[] {
  const node = stringAt(specOf(pod), 'nodeName');
  if (snapshot.agents === undefined || node === '') return [];
  const old = snapshot.agents.find((each) => each.isOldNmi && each.node === node);
  if (agent === undefined && old !== undefined) return ofAgent(old);
  if (agent === undefined) {
    const object = `Node ${node}`;
    const text =
      'No pod of the agent is on the node of this pod: requests are refused, or reach the identity of the node where no agent ever ran or the node was opened.';
    return oneFinding('agent_missing', { object, text });
  }
  return [...ofAgent(agent), ...ofReleases(node, snapshot.agents)];
}

/** Objects that the agent ignores but that may be intended for this pod. */
function findingsOfIgnored(pod: RawObject, { view }: PodContext): readonly Finding[] {
  return view.unusable
    .filter(({ object, kind }) => kind !== 'Pod' && namespaceOf(object) === namespaceOf(pod))
    .map(({ kind, title, reason }) => ({
      ...findingOfIgnored(`${kind} ${title}`, reason),
      severity: 'warning',
    }));
}
