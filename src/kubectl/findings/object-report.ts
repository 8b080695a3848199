/** Everything about an AzureIdentity or an AzureIdentityBinding: its pods, and what they get. Pure. */
import { matchesPod } from '../../cache/index/binding-label.ts';
import { stringAt } from '../../base/json-value.ts';
import { renderFindings, sortFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import { parseBinding, parsePod } from '../../nmi/kube/watch/parse.ts';
import { nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { renderTable } from '../base/output.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import type { Unread } from '../cluster/unread.ts';
import { assessPod } from './assessment.ts';
import type { AgentContexts } from './contexts.ts';
import { examineObjects } from './objects.ts';

export type ObjectKind = 'AzureIdentity' | 'AzureIdentityBinding';

/** The JSON of `explain identity` and `explain binding`. */
export interface ObjectReport {
  readonly kind: `${ObjectKind}Explanation`;
  readonly name: string;
  readonly spec: RawObject;
  readonly bindings: readonly RawObject[];
  readonly pods: readonly { readonly pod: string; readonly gets: string }[];
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
}

export function reportObject(
  kind: ObjectKind,
  object: RawObject,
  snapshot: Snapshot,
  contexts: AgentContexts,
): ObjectReport {
  const bindings = snapshot.bindings.filter((each) =>
    kind === 'AzureIdentity' ? isOf(each, object) : titleOf(each) === titleOf(object),
  );
  const parsed = bindings.flatMap((each) => {
    const binding = parseBinding(each);
    return binding.ok ? [binding.value] : [];
  });
  const bound = snapshot.pods.filter((each) => {
    const pod = parsePod(each);
    return pod.ok && parsed.some((binding) => matchesPod(binding, pod.value));
  });
  const pods = bound.flatMap((each) => {
    const assessed = assessPod(each, contexts, { selector: { kind: 'none' }, resource: undefined });
    if (assessed === undefined) return [];
    const { explanation, verdict } = assessed;
    const has = explanation.identities.some(({ name }) => name === nameOf(object));
    const isRow = kind === 'AzureIdentityBinding' || has;
    return isRow ? [{ pod: nameOf(each), gets: verdict.summary.replace(/^gets /, '') }] : [];
  });
  const title = `${kind} ${titleOf(object)}`;
  const all = contexts.all().flatMap(examineObjects);
  const byText = new Map(
    all.filter((each) => each.object === title).map((each) => [`${each.code} ${each.text}`, each]),
  );
  return {
    kind: `${kind}Explanation`,
    name: titleOf(object),
    spec: specOf(object),
    bindings: bindings.map((each) => ({ name: nameOf(each), ...specOf(each) })),
    pods,
    findings: sortFindings([...byText.values()]),
    unread: snapshot.unread,
  };
}

function isOf(binding: RawObject, identity: RawObject): boolean {
  return (
    namespaceOf(binding) === namespaceOf(identity) &&
    stringAt(specOf(binding), 'azureIdentity') === nameOf(identity)
  );
}

export function renderObjectReport(report: ObjectReport): readonly string[] {
  const { kind, name, spec, bindings, pods, findings } = report;
  const fields = Object.entries(spec).map(([key, field]) => `  ${key}: ${JSON.stringify(field)}`);
  const found = renderFindings(findings);
  return [
    `${kind.replace(/Explanation$/, '')} ${name}`,
    ...fields,
    '',
    ...(kind === 'AzureIdentityExplanation' ? renderBindings(bindings) : []),
    ...(pods.length === 0
      ? ['No pod has it.']
      : renderTable(
          ['POD', 'GETS'],
          pods.map(({ pod, gets }) => [pod, gets]),
        )),
    ...(found.length === 0 ? [] : ['', 'Findings:', ...found]),
  ];
}

function renderBindings(bindings: readonly RawObject[]): readonly string[] {
  if (bindings.length === 0) return ['No binding names it.'];
  const lines = bindings.map(
    (each) => `  ${stringAt(each, 'name')}, selector ${stringAt(each, 'selector')}`,
  );
  return ['Bindings:', ...lines];
}
