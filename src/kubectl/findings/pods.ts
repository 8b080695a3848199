/** What a pod gets, by the agent's own code, and why it does not get what its author intended. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { isExcepted } from '../../cache/index/excepted-labels.ts';
import { asRecord, stringAt, type JsonRecord } from '../../base/json-value.ts';
import { type Finding, oneFinding } from '../../nmi/diagnosis/finding.ts';
import type { IdentityView, PodExplanation, RefusalView } from '../../nmi/explain/explanation.ts';
import type { Config } from '../../nmi/config/config.ts';
import { portsOf } from '../../redirect/target.ts';
import {
  annotationsOf,
  labelsOf,
  nameOf,
  namespaceOf,
  recordsAt,
  specOf,
  statusOf,
  stringsAt,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { anyRequest, type ClusterView, type PodRequest } from '../cluster/cluster-state.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import { policiesAgainst } from './network-policy.ts';
import { findOwnerLabels, ownersOf } from './owners.ts';
import { sourceRefusalOf, type SourceRefusal } from './source-refusals.ts';
import { findingsOfStatus } from './status.ts';

export interface PodContext {
  readonly snapshot: Snapshot;
  readonly view: ClusterView;
  readonly config: Config;
  /** False if `config` is what an agent has by default. */
  readonly knowsOptions: boolean;
}

export const workloadIdentityLabel = 'azure.workload.identity/use';

/** Undefined for an object that the agent does not accept as a pod. */
export function examinePod(pod: RawObject, context: PodContext, request: PodRequest = anyRequest) {
  const explanation = context.view.explainPod(pod, request);
  if (explanation === undefined) return undefined;
  if (isServed(explanation) && isOnWindows(pod, context.snapshot)) {
    return { explanation, findings: ofWindows(pod) };
  }
  const isNamed = environmentOf(pod, 'AZURE_CLIENT_ID').length > 0;
  const findings: readonly Finding[] = [
    ...findOwnerLabels(ownersOf(pod, context.snapshot.workloads)),
    ...explanation.findings.filter(({ code }) => code !== 'identity_by_age' || !isNamed),
    ...checks.flatMap((check) => check(pod, explanation, context, request)),
  ];
  return { explanation, findings };
}

/** Whether the pod's author wanted an identity; other pods are not reported. */
export function wantsIdentity(pod: RawObject, findings: readonly Finding[]): boolean {
  return (
    labelsOf(pod).has(bindingLabel) ||
    findings.some(({ code, details }) => code !== 'no_binding_label' || details.length > 0)
  );
}

/** The refusal of the last request, which is the one in question. */
export function refusalOf(explanation: PodExplanation): RefusalView | undefined {
  const outcome = explanation.requests.at(-1)?.outcome;
  return outcome?.kind === 'refused' ? outcome.refusal : undefined;
}

/** What the last request gets a token of; undefined for the host network too. */
export function identityOf({ requests, identities }: PodExplanation): IdentityView | undefined {
  const outcome = requests.at(-1)?.outcome;
  const chosen = outcome?.kind === 'granted' ? outcome.identity : undefined;
  return identities.find(({ name }) => name === chosen);
}

/** The identity that SDKs in the pod name; undefined when they name none, or several. */
export function namedClientId(pod: RawObject): string | undefined {
  const values = new Set(environmentOf(pod, 'AZURE_CLIENT_ID').map(({ value }) => value));
  const [only] = values;
  return values.size === 1 && !isWorkloadIdentity(pod) ? only : undefined;
}

export function hasEnded(pod: RawObject): boolean {
  const phase = stringAt(statusOf(pod), 'phase');
  return phase === 'Succeeded' || phase === 'Failed';
}

export function podLabelsOf(exception: RawObject): ReadonlyMap<string, string> {
  return stringsAt(specOf(exception), 'podLabels');
}

/** The exception also has to be in the pod's namespace. */
export function hasExceptedLabel(pod: RawObject, exception: RawObject): boolean {
  const [labels, podLabels] = [labelsOf(pod), podLabelsOf(exception)];
  // No mutation: an equal label is equal in either order.
  return isExcepted(Object.fromEntries(labels), Object.fromEntries(podLabels));
}

type Check = (
  pod: RawObject,
  explanation: PodExplanation,
  context: PodContext,
  request: PodRequest,
) => readonly Finding[];

function objectOf(pod: RawObject): string {
  return `Pod ${titleOf(pod)}`;
}

/** SDKs name the identity of AZURE_CLIENT_ID in their requests. */
const ofClientIds: Check = (pod, explanation, { view }, { selector: asked }) => {
  const isBound = explanation.identities.some(({ kind }) => kind === 'azure-identity');
  return environmentOf(pod, 'AZURE_CLIENT_ID').flatMap(({ container, value }) => {
    // The user asks about a request with another client id, which a program can name itself.
    const isOther = asked.kind === 'client_id' && asked.value !== value;
    if (isOther || isWorkloadIdentity(pod)) return [];
    const object = `${objectOf(pod)} container ${container}`;
    if (!isBound) {
      if (isServed(explanation)) return [];
      return oneFinding('client_id_without_binding', {
        object,
        text: `The container has AZURE_CLIENT_ID=${value}, and the pod has no label ${bindingLabel}.`,
        fix: `Give the pod template the label ${bindingLabel} of a binding of the AzureIdentity with that client id.`,
      });
    }
    const selector = { kind: 'client_id', value } as const;
    const explained = view.explainPod(pod, { selector, resource: undefined });
    const refusal = explained === undefined ? undefined : refusalOf(explained);
    if (refusal?.reason !== 'selector_not_bound') return [];
    const bound = explanation.identities.map(
      ({ name, clientId }) => `${name} has ${clientId || 'none'}`,
    );
    return oneFinding('selector_not_bound', {
      object,
      text: `AZURE_CLIENT_ID=${value} names no identity that the pod is bound to: its requests get 400.`,
      fix:
        bound.length === 1
          ? `Set AZURE_CLIENT_ID to ${explanation.identities[0]?.clientId ?? ''} in the pod template, or remove it there.`
          : 'Set AZURE_CLIENT_ID to one of the client ids above in the pod template, or bind the identity that it names.',
      details: bound,
    });
  });
};

/** Those that keep the pod from the agent. @param isInDoubt as of `policiesAgainst`. */
export function policiesOf(
  pod: RawObject,
  explanation: PodExplanation,
  { snapshot, config }: PodContext,
  isInDoubt: boolean,
): readonly string[] {
  // Policies do not apply to the network of the node.
  if (explanation.pod.hostNetwork || !isServed(explanation)) return [];
  const { policies } = snapshot;
  const against = portsOf(config).flatMap((port) =>
    policiesAgainst(pod, policies, { ip: config.listenIp, port }, isInDoubt),
  );
  return [...new Set(against)];
}

const ofNetworkPolicies: Check = (pod, explanation, context) => {
  const against = policiesOf(pod, explanation, context, true);
  if (against.length === 0) return [];
  const { listenIp } = context.config;
  const numbers = portsOf(context.config);
  const ports = numbers.join(' and ');
  const rule = `{to: [{ipBlock: {cidr: ${listenIp}/32}}], ports: [${numbers.map((port) => `{port: ${port}}`).join(', ')}]}`;
  return oneFinding('network_policy', {
    object: objectOf(pod),
    text: `NetworkPolicy ${against.join(', ')} does not allow TCP to ${listenIp}, ports ${ports}, where the agents answer: requests time out.`,
    fix: `Add to spec.egress of a NetworkPolicy in namespace ${namespaceOf(pod)}: ${rule}`,
  });
};

const ofWorkloadIdentity: Check = (pod, { label, pod: { serviceAccount } }, { snapshot }) => {
  if (!isWorkloadIdentity(pod)) return [];
  const account = named(snapshot.accounts, serviceAccount, pod);
  const clientId = annotationsOf(account ?? {}).get('azure.workload.identity/client-id');
  if (account !== undefined && (clientId ?? '') === '') {
    return oneFinding('workload_identity_incomplete', {
      object: objectOf(pod),
      text: `The pod has the label ${workloadIdentityLabel}, and its service account ${serviceAccount} has no annotation azure.workload.identity/client-id.`,
    });
  }
  if (label === undefined) return [];
  return oneFinding('workload_identity_too', {
    object: objectOf(pod),
    text: `The pod has the label ${bindingLabel} and is set up for Workload Identity as well: SDKs take the application of its service account${clientId === undefined ? '' : ` (${clientId})`} first.`,
  });
};

const ofExceptionElsewhere: Check = (pod, explanation, { snapshot }) => {
  if (refusalOf(explanation) === undefined) return [];
  return snapshot.exceptions.flatMap((exception) => {
    if (namespaceOf(exception) === namespaceOf(pod)) return [];
    // Only an exception that shares a label with this pod may be meant for it.
    if (!hasExceptedLabel(pod, exception)) return [];
    const wanted = [...podLabelsOf(exception)].map(([key, value]) => `${key}=${value}`).join(',');
    return oneFinding('exception_elsewhere', {
      object: objectOf(pod),
      text: `AzurePodIdentityException ${titleOf(exception)} has labels of this pod, and counts in namespace ${namespaceOf(exception)} only.`,
      fix: `Create one in namespace ${namespaceOf(pod)}, with spec.podLabels ${wanted}.`,
    });
  });
};

/** Of each bound identity; a warning for one that the request does not get. */
const ofStatus: Check = (pod, explanation, { snapshot, knowsOptions }) => {
  const used = identityOf(explanation)?.name;
  const isDecided = knowsOptions && snapshot.grants !== undefined;
  return explanation.identities
    .filter(({ kind, refusal }) => kind === 'azure-identity' && refusal === undefined)
    .flatMap(({ name }) => {
      const identity = named(snapshot.identities, name, pod);
      const found = identity === undefined ? [] : findingsOfStatus(identity, isDecided);
      return name === used
        ? found
        : found.map((each) => ({ ...each, severity: 'warning' as const }));
    });
};

/** Of each bound identity; a warning for one that the request does not get. */
const ofSource: Check = (pod, explanation, { snapshot }) => {
  const used = identityOf(explanation)?.name;
  return explanation.identities.flatMap((view) => {
    const refused = view.refusal === undefined ? refusalOfSource(pod, view, snapshot) : undefined;
    if (refused === undefined) return [];
    const { finding } = refused;
    return [view.name === used ? finding : { ...finding, severity: 'warning' as const }];
  });
};

/** By the reports of agents, of what the request gets. */
export function refusalOfSource(
  pod: RawObject,
  view: IdentityView | undefined,
  { identities, reports }: Snapshot,
): SourceRefusal | undefined {
  if (view === undefined || view.kind === 'node') return undefined;
  const isObject = view.kind === 'azure-identity';
  const identity = isObject ? named(identities, view.name, pod) : undefined;
  return isObject && identity === undefined ? undefined : sourceRefusalOf(pod, identity, reports);
}

/** By the pod itself, or by its node if that is among the objects. */
export function isOnWindows(pod: RawObject, { nodes = [] }: Pick<Snapshot, 'nodes'>): boolean {
  const spec = specOf(pod);
  const label = 'kubernetes.io/os';
  const node = nodes.find((each) => nameOf(each) === stringAt(spec, 'nodeName'));
  return [
    stringAt(asRecord(spec['os']), 'name'),
    stringsAt(spec, 'nodeSelector').get(label),
    labelsOf(node ?? {}).get(label),
  ].includes('windows');
}

/** Nothing else that is wrong with the pod matters there. */
export function ofWindows(pod: RawObject): readonly Finding[] {
  const text =
    'The pod is for Windows nodes, where no agent runs: its requests reach the identity of the node.';
  return oneFinding('pod_on_windows', { object: objectOf(pod), text });
}

const checks: readonly Check[] = [
  ofClientIds,
  ofNetworkPolicies,
  ofWorkloadIdentity,
  ofExceptionElsewhere,
  ofStatus,
  ofSource,
];

/** The object of that name in the namespace of the pod. */
export function named(objects: readonly RawObject[], name: string | undefined, pod: RawObject) {
  return objects.find((each) => nameOf(each) === name && namespaceOf(each) === namespaceOf(pod));
}

/** Whether the agent has anything for the pod. */
function isServed({ label, exception }: PodExplanation): boolean {
  return label !== undefined || exception !== undefined;
}

export function isWorkloadIdentity(pod: RawObject): boolean {
  return labelsOf(pod).get(workloadIdentityLabel) === 'true';
}

/** Only values in the pod itself: those of ConfigMaps and Secrets are not read. */
function environmentOf(pod: RawObject, name: string) {
  return containersOf(pod).flatMap((container) =>
    variablesOf(container, name).flatMap((each) => {
      const value = stringAt(each, 'value');
      if (value === '' || isExpanded(value)) return [];
      return [{ container: stringAt(container, 'name'), value }];
    }),
  );
}

/** Containers in which the variable has, or may have, a value that is not in the pod; and what would show it. */
export function hiddenEnvironmentOf(pod: RawObject, name: string) {
  return containersOf(pod).flatMap((container) => {
    const variables = variablesOf(container, name);
    const hidden = [
      ...variables.map(({ value, valueFrom }) =>
        typeof value === 'string' && isExpanded(value)
          ? `work out ${value}`
          : sourceOf(asRecord(valueFrom)),
      ),
      // A variable of its own comes before those of a whole object.
      ...(variables.length > 0 ? [] : recordsAt(container, 'envFrom'))
        .filter((each) => name.startsWith(stringAt(each, 'prefix')))
        .map(sourceOf),
    ];
    return hidden.flatMap((what) =>
      what === undefined ? [] : [{ container: stringAt(container, 'name'), what }],
    );
  });
}

function sourceOf(source: JsonRecord | undefined): string | undefined {
  for (const [key, kind, field] of [
    ['configMapKeyRef', 'ConfigMap', 'name'],
    ['configMapRef', 'ConfigMap', 'name'],
    ['secretKeyRef', 'Secret', 'name'],
    ['secretRef', 'Secret', 'name'],
    ['fieldRef', 'the field', 'fieldPath'],
  ] as const) {
    const found = asRecord(source?.[key]);
    if (found !== undefined) return `read ${kind} ${stringAt(found, field)}`;
  }
  return undefined;
}

/** Kubernetes puts other variables in the place of such a reference. */
function isExpanded(value: string): boolean {
  return value.includes('$(');
}

function variablesOf(container: RawObject, name: string): readonly RawObject[] {
  return recordsAt(container, 'env').filter((each) => stringAt(each, 'name') === name);
}

function containersOf(pod: RawObject): readonly RawObject[] {
  const spec = specOf(pod);
  return ['initContainers', 'containers'].flatMap((key) => recordsAt(spec, key));
}
