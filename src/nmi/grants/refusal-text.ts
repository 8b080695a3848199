/**
 * Texts of refusals: IMDS's own phrase first, where clients search for it, and last the fix. Pure.
 */
import { fullName } from '../../cache/index/object-name.ts';
import { bindingLabel } from '../../cache/index/binding-label.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import { refuse, type Answer } from '../base/answers.ts';
import type { Granted, PodFacts, Refused, Unowned } from './grant.ts';
import type { CallerFacts } from '../callers/identify.ts';
import type { ChoiceRefusal } from './choose-identity.ts';
import type { GrantEntry } from './identity-owners.ts';
import { printable, printableList } from '../../base/printable.ts';
import type { SourceFailure } from '../sources/source.ts';
import { legsOf, placesOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';

/** What is wrong, and what to do about it. Every teller uses these words. */
export interface Words {
  readonly text: string;
  /** Undefined: nothing more exact than what the code table says. */
  readonly fix?: string | undefined;
}

export function renderRefusal(refusal: Refused): Answer {
  const { reason } = refusal;
  const { facts } = refusal;
  const text = inOneText(wordsOf(refusal));
  if (facts.about === 'resources') return refuse(reason, text, { retryAfterS: facts.waitS });
  const close = refusal.pod === undefined && endsConnection.has(refusal.facts.about);
  return refuse(reason, text, close ? { close } : {});
}

export function wordsOf(refusal: Refused): Words {
  if (refusal.pod === undefined) return { text: textOfCaller(refusal.facts) };
  return wordsOfPod(refusal.facts, refusal.pod);
}

export function inOneText({ text, fix }: Words): string {
  return fix === undefined ? text : `${text} ${fix}`;
}

/** Refusals that apply to all requests of a connection. */
const endsConnection: ReadonlySet<CallerFacts['about']> = new Set([
  'unattested',
  'unavailable',
  'outlived',
  'misplaced-address',
]);

function textOfCaller(facts: CallerFacts): string {
  switch (facts.about) {
    case 'unattested':
      return textOfUnattested(facts.refusedBy);
    case 'unavailable':
      return `The agent cannot look up which pod opened this connection: ${facts.why}. Retry.`;
    case 'outlived':
      return 'The address of this connection belongs to another pod now. Connect again.';
    case 'agent-starting':
      return facts.why === undefined
        ? 'The agent is starting and has not read the pods of this node yet. Retry.'
        : `The agent has not read the pods of this node: ${facts.why}. Retry.`;
    case 'stale': {
      const why = facts.why === undefined ? '' : `: ${facts.why}`;
      return `Pod information for this node is stale, so the pod at ${facts.ip} cannot be identified; the agent is reading it from the Kubernetes API${why}. Retry.`;
    }
    case 'shared-address':
      return `More than one running pod of this node has the address ${facts.ip}. Retry later.`;
    case 'unknown-address':
      return `No running pod of this node has the address ${facts.ip}${facts.why === undefined ? '' : `, but ${facts.why}`}. Retry.`;
    case 'other-cgroup':
      return `This connection has the address ${facts.ip}, but a process opened it that is not of the pod with this address: a new pod that the agent has not received yet, or a proxy of another pod. Retry.`;
    case 'misplaced-address':
      return `This connection comes from ${facts.ip}, but by another network link than that of the pod with this address. The agent waits for the Kubernetes API to name its pod. Retry.`;
    case 'unknown-name':
      return 'No such pod on this node. Retry.';
  }
}

function textOfUnattested(refusedBy: 'shared-link' | 'option' | undefined): string {
  const what = 'Access denied: the kernel has no record of who opened this connection';
  switch (refusedBy) {
    case undefined:
      return `${what}, and its source address is not that of a pod.`;
    case 'shared-link':
      return `${what}, as behind a proxy or NAT inside the pod or from a sandboxed runtime, and pods of this node share a network link, so its address proves nothing. Use --redirect=iptables, or a network with a link for each pod.`;
    case 'option':
      return `${what}, as behind NAT inside the pod or from a sandboxed runtime, and this agent refuses such callers (--unrecorded-callers=refuse).`;
  }
}

function notFound(text: string, fix?: string): Words {
  return { text: `Identity not found: ${text}`, ...(fix === undefined ? {} : { fix }) };
}

function wordsOfPod(facts: PodFacts, pod: Pod): Words {
  const who = nameOf(pod);
  switch (facts.about) {
    case 'pod-gone':
      return { text: `Pod ${pod.namespace}/${pod.name} is gone. Retry.` };
    case 'account-pending':
      return { text: 'The service account of this pod is being read. Retry.' };
    case 'old-rights':
      return {
        text: `Without the Kubernetes API no pod of this node gets a token any more: its rights are ${facts.problem}. Retry.`,
      };
    case 'host-network':
      return {
        text: `Access denied: ${who} is on the host network, and such pods get no tokens on this node (--host-network=refuse).`,
      };
    case 'account-unavailable':
      return {
        text: `The service account of this pod, ${fullName(facts.account)}, cannot be read: the Kubernetes API is not available. Retry.`,
      };
    case 'account-unreadable':
      return notFound(
        `the agent may not read service account ${fullName(facts.account)} of ${who}.`,
        'Give it the right "get" on serviceaccounts.',
      );
    case 'account-unannotated':
      return notFound(
        `${who} has no label "${bindingLabel}", and its service account ${fullName(facts.account)} has no annotation "azure.workload.identity/client-id".`,
        'Set one of them.',
      );
    case 'account-selector':
      return notFound(
        `the service account of ${who} does not name the ${facts.selector.kind} "${printable(facts.selector.value)}".`,
      );
    case 'object-id':
      return notFound(`no identity of ${who} has the object_id "${printable(facts.objectId)}".`);
    case 'resource':
      return notFound(
        `${whose(facts.identity, pod)} is not for the resource "${printable(facts.resource)}".`,
        'Add it to spec.allowedResources.',
      );
    case 'unusable':
      return notFound(`${whose(facts.identity, pod)} ${printable(facts.problem)}.`, correctIt);
    case 'not-owned': {
      const { text, fix } = wordsOfUnowned(facts.unowned, pod);
      return notFound(text, fix);
    }
    case 'resources':
      return {
        text: `This pod requested tokens of ${facts.most} new resources within a minute. Retry in ${facts.waitS} s.`,
      };
    case 'choice':
      return wordsOfGrant(facts.choice, facts.meant, pod);
  }
}

export const correctIt = 'Correct it.';

export function wordsOfUnowned({ kind, name, entry }: Unowned, pod: Pod): Words {
  const { namespace } = pod;
  const object = `${kind} ${fullName({ namespace, name })} of ${nameOf(pod)}`;
  return wordsOfLacking(object, entry, namespace);
}

/** @param object its title, the subject of the sentence. */
export function wordsOfLacking(object: string, entry: GrantEntry, namespace: string): Words {
  const ungiven = `which no AzureIdentityGrant gives to namespace ${namespace}.`;
  if (entry.field === 'nodeIdentities') {
    return {
      text: `${object} gives the identities of the node, ${ungiven}`,
      fix: 'A cluster administrator can set spec.nodeIdentities of an AzureIdentityGrant.',
    };
  }
  const word = entry.field === 'clientIDs' ? 'client id' : 'resource id';
  return {
    text: `${object} has the ${word} ${printable(entry.id)}, ${ungiven}`,
    fix: `A cluster administrator can add it to spec.${entry.field} of an AzureIdentityGrant.`,
  };
}

function wordsOfGrant(grant: ChoiceRefusal, meant: string | undefined, pod: Pod): Words {
  const who = nameOf(pod);
  const { namespace, serviceAccount } = pod;
  switch (grant.reason) {
    case 'no_binding_label':
      return notFound(`${who} has no label "${bindingLabel}".`, fixOfLabel(pod));
    case 'binding_missing':
    case 'binding_pending': {
      const { label, foreign } = grant;
      const labelled = `${who} has the label ${bindingLabel}=${label}, and`;
      const [first] = foreign;
      if (first === undefined) {
        return notFound(
          `${labelled} no AzureIdentityBinding in namespace ${namespace} has that selector.`,
          meant === undefined
            ? `Create one: kubectl nmi identity assign IDENTITY -n ${namespace} --selector ${label} --apply`
            : `Did you mean "${printable(meant)}"? Correct the label of the pod template.`,
        );
      }
      return notFound(
        `${labelled} AzureIdentityBinding ${list(foreign.map(({ name }) => name))} with that selector is not for its service account "${printable(serviceAccount)}".`,
        `Run the pod under "${printable(first.serviceAccount)}", or change spec.serviceAccount.`,
      );
    }
    case 'identity_missing':
    case 'identity_pending':
      return notFound(
        `${who} is bound by ${list(grant.bindingNames)}, but namespace ${namespace} has no AzureIdentity ${list(grant.missingIdentityNames)}.`,
        fixOfName(grant.missingIdentityNames[0] ?? '', meant, namespace),
      );
    case 'selector_not_bound': {
      const missing =
        grant.missingIdentityNames.length === 0
          ? ''
          : ` AzureIdentity ${list(grant.missingIdentityNames)} is bound too but does not exist.`;
      return notFound(
        `no identity of ${who} has the ${grant.selector.kind} "${printable(grant.selector.value)}"; bound by label ${bindingLabel}=${grant.label}: ${list(grant.identityNames)}.${missing}`,
      );
    }
    case 'identity_ambiguous':
      return {
        text: `Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request; ${who} is bound to ${list(grant.identityNames)} with client ids ${list(grant.clientIds)}.`,
      };
  }
}

function fixOfLabel({ labels }: Pod): string {
  if (labels[bindingLabel] === '') return `The label ${bindingLabel} is empty; give it a value.`;
  const meant = misnamedLabel(labels);
  return meant === undefined
    ? 'Set it to the selector of an AzureIdentityBinding in the same namespace.'
    : `The label ${printable(meant)} is not read; its name must be ${bindingLabel}.`;
}

export function misnamedLabel(labels: Pod['labels']): string | undefined {
  return Object.keys(labels).find(
    (key) =>
      key !== bindingLabel &&
      key
        .toLowerCase()
        .replaceAll(/[^a-z]/g, '')
        .endsWith(bindingLabel),
  );
}

export function fixOfName(wanted: string, meant: string | undefined, namespace: string): string {
  if (wanted === '') return 'Set spec.azureIdentity to the name of an AzureIdentity.';
  if (meant !== undefined) {
    return `Did you mean AzureIdentity "${printable(meant)}"? Correct spec.azureIdentity.`;
  }
  // Only a name that an object can have goes into a command.
  const name = /^[a-z0-9][-.a-z0-9]*$/.test(wanted) ? wanted : 'NAME';
  return `Create it: kubectl nmi identity add ${name} -n ${namespace} --client-id ID --apply; or correct spec.azureIdentity.`;
}

/** @param graceMs in which an object that the grant lacks may still arrive. */
export function renderFailure(
  failure: SourceFailure,
  authorized: Granted,
  grantAgeMs: number,
  graceMs: number,
): Answer {
  const reason = reasonOf(failure, authorized, grantAgeMs, graceMs);
  const words = wordsOfFailure(failure, authorized);
  if (reason === 'identity_not_assigned') return refuse(reason, inOneText(words));
  return refuse(reason, inOneText(words), {
    ...(failure.error === undefined ? {} : { error: failure.error }),
    ...(failure.retryAfterS === undefined ? {} : { retryAfterS: failure.retryAfterS }),
    ...(failure.details === undefined ? {} : { details: failure.details }),
  });
}

function reasonOf(
  { reason, refusals }: SourceFailure,
  { identity }: Granted,
  grantAgeMs: number,
  graceMs: number,
): SourceFailure['reason'] | 'credential_pending' {
  if (refusals?.isFinal === false) return 'federation_pending';
  const ageMs = Math.abs(grantAgeMs);
  switch (reason) {
    // Nobody assigns the node's own identity.
    case 'identity_not_assigned':
      return identity === undefined ? 'upstream_refused' : reason;
    case 'credential_missing':
      return ageMs < graceMs ? 'credential_pending' : reason;
    default:
      return reason;
  }
}

export function wordsOfFailure(failure: SourceFailure, authorized: Granted): Words {
  const { identity, pod, upstream } = authorized;
  const { description } = failure;
  switch (failure.reason) {
    case 'identity_not_assigned': {
      if (identity === undefined) return { text: description };
      const first = upstream.kind === 'entra' ? 'The managed identity of ' : '';
      // Azure knows neither an identity that is not assigned nor an object id in the place of a client id.
      const isByClientId = legsOf(upstream)[0].kind === 'client_id';
      const orCorrect = isByClientId
        ? '; or correct spec.clientID, if it is no client id but an object id'
        : '';
      return notFound(
        `${first}${whose(identity, pod)} is not assigned to this node.`,
        `Assign it: kubectl nmi identity assign ${identity.name} -n ${identity.namespace} shows the az lines for every node pool${orCorrect}.`,
      );
    }
    case 'upstream_refused':
    case 'upstream_throttled':
      return { text: description };
    case 'upstream_down':
      return { text: `No token for the moment: ${description}. Retry.`, fix: fixOfDown(upstream) };
    default: {
      const owner =
        identity === undefined && upstream.kind !== 'entra'
          ? `the node's identities for ${nameOf(pod)}`
          : whose(identity, pod);
      return { text: `${description} (${owner})` };
    }
  }
}

/** Of an upstream that does not answer. */
export function fixOfDown(upstream: UpstreamIdentity): string {
  const places = placesOf(upstream).join(' and ');
  return `If it lasts, open ${places} from the nodes: firewall, DNS, proxy.`;
}

function whose(identity: Identity | undefined, pod: Pod): string {
  return identity === undefined
    ? `service account ${pod.namespace}/${pod.serviceAccount} of ${nameOf(pod)}`
    : `AzureIdentity ${fullName(identity)} of ${nameOf(pod)}`;
}

function nameOf(pod: Pod): string {
  return `pod ${fullName(pod)}`;
}

function list(names: readonly string[]): string {
  return names.length === 0 ? '(none)' : printableList(names);
}
