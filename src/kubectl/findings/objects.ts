/** Mistakes in the objects themselves, independent of pods. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { fullName } from '../../cache/index/object-name.ts';
import type { Pod } from '../../cache/index/objects.ts';
import { labelsOf, nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { hasExceptedLabel, podLabelsOf } from '../cluster/exceptions.ts';
import { createFinding, type Finding } from './finding.ts';
import type { PodContext } from './pods.ts';

export function examineObjects(context: PodContext): readonly Finding[] {
  return [
    ...ofUnusable(context),
    ...ofFields(context),
    ...ofIdentities(context),
    ...ofBindings(context),
    ...ofExceptions(context),
  ];
}

function ofUnusable({ view }: PodContext): readonly Finding[] {
  return view.unusable.map(({ kind, title, reason }) =>
    createFinding('object_unusable', {
      object: `${kind} ${title}`,
      text: `The agent ignores it: ${reason}.`,
    }),
  );
}

const fields = {
  AzureIdentity: [
    ...['type', 'resourceID', 'clientID', 'clientPassword', 'tenantID', 'auxiliaryTenantIDs'],
    ...['adResourceID', 'adEndpoint', 'federation', 'allowedResources', 'replicas', 'metadata'],
  ],
  AzureIdentityBinding: ['azureIdentity', 'selector', 'serviceAccount', 'weight', 'metadata'],
  AzurePodIdentityException: ['podLabels', 'metadata'],
} as const;

/** Unknown fields. An API server drops them, so they are found in files only. */
function ofFields({ snapshot }: PodContext): readonly Finding[] {
  const lists = [
    ['AzureIdentity', snapshot.identities],
    ['AzureIdentityBinding', snapshot.bindings],
    ['AzurePodIdentityException', snapshot.exceptions],
  ] as const;
  return lists.flatMap(([kind, objects]) =>
    objects.flatMap((object) =>
      Object.keys(specOf(object)).flatMap((key) => {
        const known: readonly string[] = fields[kind];
        if (known.includes(key)) return [];
        const meant = known.find((each) => each.toLowerCase() === key.toLowerCase());
        return [
          createFinding('field_unknown', {
            object: `${kind} ${titleOf(object)}`,
            text: `It has the field spec.${key}, which does not exist.`,
            fix:
              meant === undefined
                ? 'Remove the field.'
                : `Write spec.${meant}; the case of letters counts.`,
          }),
        ];
      }),
    ),
  );
}

function ofIdentities({ snapshot, view }: PodContext): readonly Finding[] {
  const { grants, upstreams } = view.clusterState;
  const bound = new Set(
    [...grants.allBindings()].map(({ namespace, identityName }) => `${namespace}/${identityName}`),
  );
  return [...grants.allIdentities()].flatMap((identity) => {
    if (!isInScope(identity.namespace, snapshot)) return [];
    const object = `AzureIdentity ${fullName(identity)}`;
    const choice = upstreams.of(identity, anyPodOf(identity.namespace));
    const unusable =
      choice.kind === 'unusable'
        ? [
            createFinding(choice.reason, {
              object,
              text: `It ${choice.problem}.`,
              fix: 'Correct the field.',
            }),
          ]
        : [];
    if (bound.has(fullName(identity))) return unusable;
    return [
      ...unusable,
      createFinding('identity_unbound', {
        object,
        text: 'No AzureIdentityBinding of its namespace names it.',
        fix: `Bind it: kubectl nmi identity assign ${identity.name} -n ${identity.namespace} --apply`,
      }),
    ];
  });
}

function ofBindings({ snapshot, view }: PodContext): readonly Finding[] {
  const { grants } = view.clusterState;
  const identities = new Set([...grants.allIdentities()].map(fullName));
  const labels = new Set(
    snapshot.pods.map((pod) => `${namespaceOf(pod)}/${labelsOf(pod).get(bindingLabel) ?? ''}`),
  );
  return [...grants.allBindings()].flatMap((binding) => {
    const { namespace, name, identityName, selector } = binding;
    if (!isInScope(namespace, snapshot)) return [];
    const object = `AzureIdentityBinding ${fullName(binding)}`;
    const dangling = identities.has(`${namespace}/${identityName}`)
      ? []
      : [
          createFinding('binding_dangling', {
            object,
            text: `It names AzureIdentity ${identityName === '' ? '(none)' : identityName}, and namespace ${namespace} has none of that name.`,
            details: nearIdentities(snapshot.identities, namespace, identityName),
          }),
        ];
    if (selector === '') {
      return [
        ...dangling,
        createFinding('binding_without_selector', {
          object,
          text: 'Its spec.selector is empty: it matches no pod.',
        }),
      ];
    }
    if (labels.has(`${namespace}/${selector}`)) return dangling;
    return [
      ...dangling,
      createFinding('binding_unused', {
        object,
        text: `No pod of namespace ${namespace} has the label ${bindingLabel}=${selector}.`,
        fix: `Label the pod template of what is meant to have it, or delete it: kubectl -n ${namespace} delete azureidentitybinding ${name}`,
      }),
    ];
  });
}

function nearIdentities(
  identities: readonly RawObject[],
  namespace: string,
  wanted: string,
): readonly string[] {
  return identities
    .filter((each) => nameOf(each).toLowerCase() === wanted.toLowerCase())
    .map((each) =>
      namespaceOf(each) === namespace
        ? `The one there is called ${nameOf(each)}.`
        : `There is one in namespace ${namespaceOf(each)}, and only one in namespace ${namespace} counts.`,
    );
}

function ofExceptions({ snapshot }: PodContext): readonly Finding[] {
  return snapshot.exceptions.flatMap((exception) => {
    const namespace = namespaceOf(exception);
    if (!isInScope(namespace, snapshot)) return [];
    const object = `AzurePodIdentityException ${titleOf(exception)}`;
    if (podLabelsOf(exception).size === 0) {
      return [
        createFinding('exception_without_labels', {
          object,
          text: 'Its spec.podLabels is empty: it matches no pod.',
        }),
      ];
    }
    const isUsed = snapshot.pods.some(
      (pod) => namespaceOf(pod) === namespace && hasExceptedLabel(pod, exception),
    );
    if (isUsed) return [];
    return [
      createFinding('exception_unused', {
        object,
        text: `No pod of namespace ${namespace} has one of its labels.`,
      }),
    ];
  });
}

/** Objects of other namespaces are read for near misses only. */
function isInScope(namespace: string, { scope }: PodContext['snapshot']): boolean {
  return scope === undefined || scope === namespace;
}

/** For an identity that is checked without a pod. */
function anyPodOf(namespace: string): Pod {
  return {
    namespace,
    name: 'any',
    uid: 'any',
    resourceVersion: '',
    cgroupUid: 'any',
    ips: [],
    labels: {},
    phase: 'Running',
    hostNetwork: false,
    serviceAccount: 'default',
    terminating: false,
    createdAtWallMs: 0,
  };
}
