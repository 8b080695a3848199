/** What a pod gets, as one value. It is never better than what the user may see. Pure. */
import { asRecord, stringAt } from '../../base/json-value.ts';
import { refusals } from '../../nmi/base/answers.ts';
import { rowOf, type Code } from '../../nmi/diagnosis/codes.ts';
import type { Finding } from '../../nmi/diagnosis/finding.ts';
import type { Outcome, PodExplanation } from '../../nmi/explain/explanation.ts';
import { conditionOf, recordsAt, statusOf, type RawObject } from '../base/object.ts';
import { identityOf, refusalOf } from './pods.ts';
import type { SourceRefusal } from './source-refusals.ts';

export interface Verdict {
  readonly kind: 'granted' | 'refused' | 'not-ready' | 'unknown';
  /** Completes "the pod", in one line. */
  readonly summary: string;
  /** Of a refusal of new tokens: until when cached ones are valid. */
  readonly cachedUntil?: string;
}

/** What the pod would get if something were so that is not known. */
export interface Variant {
  /** As `the agent has --strict-identity`. */
  readonly when: string;
  readonly explanation: PodExplanation;
}

/** Nothing answers the pod, whatever its objects say. */
const unanswered: ReadonlySet<Code> = new Set([
  'agent_missing',
  'agent_not_ready',
  'image_not_pulled',
]);
/** About pods that its owner has yet to create. */
const ofOthers: ReadonlySet<Code> = new Set(['label_on_owner']);

export function verdictOf(
  pod: RawObject,
  explanation: PodExplanation,
  findings: readonly Finding[],
  variants: readonly Variant[],
  refusedBySource: SourceRefusal | undefined,
): Verdict {
  const { phase } = explanation.pod;
  if (phase === 'Succeeded' || phase === 'Failed') {
    return notReady(`has ended (${phase}) and sends no requests`);
  }
  const codes = new Set(findings.map(({ code }) => code));
  if (codes.has('pod_on_windows')) return notReady('is not served: pod_on_windows');
  if (codes.has('old_nmi')) {
    const by = 'the NMI of aad-pod-identity, the only one on its node';
    return { kind: 'unknown', summary: `is answered by ${by}: old_nmi` };
  }
  const gets = summaryOf(explanation);
  const differing = variants.find((each) => keyOf(each.explanation) !== keyOf(explanation));
  const other = differing === undefined ? '' : summaryOf(differing.explanation);
  const unsure = `${gets}; ${other} if ${differing?.when ?? ''}`;
  const refusal = refusalOf(explanation);
  if (refusal !== undefined) {
    const mayBeGranted = differing !== undefined && refusalOf(differing.explanation) === undefined;
    if (mayBeGranted) return { kind: 'unknown', summary: unsure };
    if (refusal.reason.endsWith('_pending')) return notReady(`${gets}: not yet`);
    return refusal.reason === 'upstream_down' ? notReady(gets) : { kind: 'refused', summary: gets };
  }
  if (refusedBySource !== undefined) {
    const refused = verdictOfSource(refusedBySource);
    if (refused !== undefined) return refused;
  }
  const errors = findings.filter(
    ({ severity, code }) => severity === 'error' && !ofOthers.has(code),
  );
  const broken = errors.find(({ code }) => !unanswered.has(code));
  if (broken !== undefined) {
    const { status } = rowOf(broken.code);
    const what = status === undefined ? 'no token:' : status;
    return { kind: 'refused', summary: `gets ${what} ${broken.code}` };
  }
  const [silent] = errors;
  if (silent !== undefined) return notReady(`is not served: ${silent.code}`);
  if (phase !== 'Running') return notReady(`gets nothing yet: it is ${phase}${waitingFor(pod)}`);
  if (differing !== undefined) return { kind: 'unknown', summary: unsure };
  return { kind: kindOf(outcomeOf(explanation)), summary: gets };
}

/** Undefined if it does not count for the pod. */
function verdictOfSource({ code, finding, cachedUntil }: SourceRefusal): Verdict | undefined {
  const { severity } = finding;
  const gets = `gets ${refusals[code].status} ${code}`;
  const kind = code === 'upstream_down' ? 'not-ready' : 'refused';
  if (cachedUntil !== undefined && severity === 'error') {
    const summary = `${gets} for new tokens; cached ones are valid until ${cachedUntil}`;
    return { kind, summary, cachedUntil };
  }
  if (code.endsWith('_pending')) return notReady(`${gets}: not yet`);
  return severity === 'error' ? { kind, summary: gets } : undefined;
}

function summaryOf(explanation: PodExplanation): string {
  const outcome = outcomeOf(explanation);
  const refusal = refusalOf(explanation);
  if (refusal !== undefined) return `gets ${refusal.status} ${refusal.reason}`;
  if (isTakenForNode(outcome)) return 'gets the answer of the node (host network)';
  if (outcome?.kind !== 'granted') return 'gets nothing yet: it has no address';
  const { identity, by } = outcome;
  const found = identityOf(explanation);
  if (found === undefined || found.kind === 'node')
    return `gets a token of the node's own identities (${by})`;
  const title =
    found.kind === 'service-account' ? 'the application of service account' : 'AzureIdentity';
  const how =
    by === 'only' ? 'the only one bound' : by === 'default' ? 'the oldest bound' : `by ${by}`;
  const id =
    found.clientId === '' ? `resource id ${found.resourceId}` : `client id ${found.clientId}`;
  return `gets a token of ${title} ${identity}, ${id} (${how})`;
}

function kindOf(outcome: Outcome | undefined): Verdict['kind'] {
  if (outcome?.kind === 'granted') return 'granted';
  return isTakenForNode(outcome) ? 'unknown' : 'not-ready';
}

/** The agent does not answer such pods. */
function isTakenForNode(outcome: Outcome | undefined): boolean {
  return outcome?.kind === 'unreachable' && outcome.why === 'host-network';
}

function notReady(summary: string): Verdict {
  return { kind: 'not-ready', summary };
}

function outcomeOf({ requests }: PodExplanation): Outcome | undefined {
  return requests.at(-1)?.outcome;
}

/** Equal for outcomes that are the same to the pod. */
function keyOf(explanation: PodExplanation): string {
  const outcome = outcomeOf(explanation);
  if (outcome?.kind === 'refused') return outcome.refusal.reason;
  if (outcome?.kind === 'granted' && outcome.by !== 'host network') return `of ${outcome.identity}`;
  return 'of the node';
}

function waitingFor(pod: RawObject): string {
  const status = statusOf(pod);
  const states = ['initContainerStatuses', 'containerStatuses'].flatMap((key) =>
    recordsAt(status, key),
  );
  const waiting = states.map((each) => asRecord(asRecord(each['state'])?.['waiting']));
  const reasons = waiting.map((each) => stringAt(each, 'reason')).filter((each) => each !== '');
  const scheduled = conditionOf(pod, 'PodScheduled');
  const unscheduled = scheduled?.['status'] === 'False' ? stringAt(scheduled, 'message') : '';
  const why = reasons[0] ?? unscheduled;
  return why === '' ? '' : ` (${why})`;
}
