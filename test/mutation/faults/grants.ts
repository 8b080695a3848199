/** The identity of the caller, and what that pod may get. */
import type { Faults } from '../mutation.ts';

export const grants: Faults = {
  'src/nmi/grants/near-miss.ts': [
    [
      'a refusal names objects of another namespace',
      'if (object.namespace !== namespace) continue;',
      '',
    ],
    [
      'every refused request searches the whole cluster',
      'if (known !== undefined && Math.abs(nowWallMs - known.atWallMs) < keptMs) return known.near;',
      '',
    ],
  ],
  'src/nmi/grants/authorize.ts': [
    ['--host-network=refuse does nothing', "policy.hostNetwork === 'refuse'", 'false'],
    [
      'every pod on the host network is refused',
      "pod.hostNetwork && policy.hostNetwork === 'refuse'",
      'pod.hostNetwork',
    ],
    [
      'a pod without the label gets the node’s identity',
      "if (pod.hostNetwork) return ofNode(pod, query.selector, 'host network', clusterState);",
      "return ofNode(pod, query.selector, 'host network', clusterState);",
    ],
    [
      'candidates by object id are not limited to their resources',
      "ofIdentity(pod, identity, query.resource, 'object_id',",
      "ofIdentity(pod, identity, undefined, 'object_id',",
    ],
    [
      'an identity that no grant gives is served',
      "if (owners.mode !== 'enforce' || decision.kind === 'refused') return decision;",
      'return decision;',
    ],
    [
      'an identity is refused where that is only warned of',
      "if (owners.mode !== 'enforce' || decision.kind === 'refused') return decision;",
      "if (decision.kind === 'refused') return decision;",
    ],
    [
      'an exception without a grant gives the identities of the node',
      "if (owners.mode === 'enforce' && entry !== undefined) {",
      'if (false) {',
    ],
    [
      'a candidate by object id needs no grant',
      "owned(ofIdentity(pod, identity, query.resource, 'object_id', clusterState.upstreams)),",
      "ofIdentity(pod, identity, query.resource, 'object_id', clusterState.upstreams),",
    ],
    ['a grant that is taken away changes no decision', 'owners.generation', '0'],
    ['a pod of a service account names any application', 'if (isOther) {', 'if (false) {'],
    [
      'a node without a metadata service is asked for its identity',
      "if (!upstreams.hasImds) return refused(pod, 'identity_unsupported', { about: 'no-imds' });",
      '',
    ],
    [
      'what may still come is refused for good',
      "return refused(pod, reasonOf(grant), { about: 'grant', grant, near }, isTransient(grant));",
      "return refused(pod, reasonOf(grant), { about: 'grant', grant, near }, false);",
    ],
    [
      'an identity is for any resource',
      'return allowedResources.includes(wanted);',
      'return true;',
    ],
  ],
  'src/nmi/grants/cache-key.ts': [
    ['a token that one Secret got is another’s', ' ${credentialKey(credential)}`', '`'],
    ['a token of another resource is given', '\\n${resource}`', '`'],
    [
      'the Kelvin sign is a k',
      'text.replaceAll(/[A-Z]+/g, (part) => part.toLowerCase())',
      'text.toLowerCase()',
    ],
  ],
  'src/nmi/grants/caller.ts': [
    [
      'a kept connection gets the token of the next pod at its address',
      'return found.pod.uid === this.#ownerUid ? found : outlived;',
      'return found;',
    ],
    [
      'a cgroup is believed from another pod’s address',
      "if (owner.kind === 'pod') return [owner.pod];",
      '',
    ],
    [
      'a static pod takes the cgroup of another',
      'claimants.find((each) => each.uid === uid) ?? claimants[0]',
      'claimants[0]',
    ],
    [
      'a caller is looked up once and for all',
      'if (this.#generation !== pods.generation || this.#caller === misplaced) {',
      'if (this.#generation === -1) {',
    ],
    ['a caller that is at another place never is its pod', ' || this.#caller === misplaced', ''],
    [
      'a caller without a record is known by its address',
      'return { caller: this.attestation, by: undefined };',
      "return { caller: pods.byIp(this.ip), by: 'address' };",
    ],
    [
      'a link that pods share identifies one',
      '!== true) {\n        return onSharedLink',
      '=== null) {\n        return onSharedLink',
    ],
    ['the record of another pod is overruled', ' && this.attestation.ownLink !== undefined', ''],
  ],
  'src/nmi/grants/grant-age.ts': [
    [
      'a young binding gives no grace',
      'newestMs = Math.max(newestMs, binding.createdAtWallMs);',
      '',
    ],
    [
      'a binding of another identity gives grace',
      'if (binding.identityName === identity?.name) {',
      'if (true) {',
    ],
  ],
  'src/nmi/grants/grant.ts': [
    ['strict identity chooses', 'if (policy.strict && identities.length > 1) {', 'if (false) {'],
    ['upstream is asked for the node’s own identity', 'if (!isNamed(identity)) {', 'if (false) {'],
    [
      'a named identity need not be the pod’s',
      "if (identity === undefined) return refuseSelector(grants, selector);\n      return { kind: 'identity', identity, by: 'client_id' };",
      "return { kind: 'identity', identity: identity ?? grants.identities[0]!, by: 'client_id' };",
    ],
    [
      'an excepted pod is refused',
      "case 'exception':\n      return { kind: 'node', exception: grants.exception, selector };",
      "case 'exception':\n      return { kind: 'refused', reason: 'no_binding_label' };",
    ],
    [
      'a wrong clock gives grace for ever',
      'Math.abs(nowWallMs - sinceWallMs) < policy.graceMs',
      'nowWallMs - sinceWallMs < policy.graceMs',
    ],
    [
      'an identity without an id is a candidate',
      'grants.identities.filter(isNamed)',
      'grants.identities',
    ],
  ],
  'src/nmi/grants/identify.ts': [
    [
      'an address is believed that may be another pod’s by now',
      ' && !clusterState.trustsAddresses(by)',
      ' && false',
    ],
    [
      'pods are served before all is known',
      "case 'pod': {\n      if (!clusterState.isSynced()) break;",
      "case 'pod': {",
    ],
    [
      'a connection that outlived its pod may be waited for',
      "{ about: 'outlived' }, false)",
      "{ about: 'outlived' }, true)",
    ],
  ],
  'src/nmi/grants/identities-in-use.ts': [
    ['a pod that has ended keeps its tokens', 'if (hasEnded(pod)) continue;', ''],
    [
      'tokens of excepted pods are dropped',
      'if (this.#isNodes(pod, ofPod)) hasExcepted = true;',
      '',
    ],
    [
      'the second service account of a label has no tokens',
      'if (done.has(pod.serviceAccount)) continue;',
      'if (done.size > 0) continue;',
    ],
    [
      'what is in use is worked out once',
      'if (this.#wanted.generation !== generation)',
      'if (this.#wanted.generation === -1)',
    ],
    [
      'an assertion is dropped that is needed',
      "if (each.kind === 'entra') credentials.add(credentialKey(each.credential));",
      '',
    ],
    [
      'nobody hears that a service account has changed',
      'workloadIdentities?.onChange(listener),',
      '',
    ],
    [
      'tokens stay when the grant of their identity is taken away',
      "if (owners.mode !== 'enforce') return choices;",
      'return choices;',
    ],
    ['nobody hears that a grant is taken away', 'owners.onChange(listener),', ''],
  ],
  'src/nmi/grants/identity-owners.ts': [
    [
      'an application of the agent’s service account is everybody’s',
      'return isOfAgent(upstream.credential)',
      'return false',
    ],
    [
      'a grant for one identity gives all of the node',
      'return this.#index.grantOfNodeIdentities(namespace);',
      'return true;',
    ],
  ],
  'src/nmi/grants/unowned.ts': [
    ['an object is counted for each pod', 'if (seen.has(object)) continue;', ''],
    ['who makes identities fills the log', 'if (found.length >= maxUnowned) return found;', ''],
    ['pods that have ended are reported', 'hasEnded(pod) || ', ''],
  ],
  'src/nmi/grants/refusal-text.ts': [
    [
      'a pod writes into the answer',
      '"${printable(grant.selector.value)}"',
      '"${grant.selector.value}"',
    ],
    [
      'a Secret that is about to come is refused for good',
      "isYoung ? 'credential_pending'",
      "false ? 'credential_pending'",
    ],
    [
      'a federated credential has a minute to be known',
      'Math.max(graceMs, federationGraceMs)',
      'graceMs',
    ],
    ['the wait that the upstream asked for is lost', '{ retryAfterS: failure.retryAfterS }', '{}'],
    [
      'a connection that cannot be served is kept',
      'const close = endsConnection.has(facts.about);',
      'const close = false;',
    ],
  ],
  'src/nmi/grants/resolve-upstream.ts': [
    [
      'an authority is asked that is not allowed',
      'const authority = this.#resolveAuthority(entra.adEndpoint);\n    if (!authority.ok) return invalid(authority.problem);',
      "const authority = this.#resolveAuthority('');\n    if (!authority.ok) return invalid(authority.problem);",
    ],
    [
      'a client id that is no GUID goes upstream',
      "return isGuid(clientId) ? named({ kind: 'client_id', value: clientId }) : invalid(problem);",
      "return named({ kind: 'client_id', value: clientId });",
    ],
    ['a tenant is a path', 'if (isGuid(text)) return true;', 'return true;'],
    [
      'pods of two service accounts share an assertion',
      "const account = isOfPod ? `${pod.namespace}/${pod.serviceAccount}` : '';",
      "const account = '';",
    ],
    [
      'an answer carries any number of tenants',
      'if (auxiliary.length > maxAuxiliaryTenants) {',
      'if (false) {',
    ],
  ],
  'src/nmi/grants/pod-places.ts': [
    [
      'any place is a pod’s',
      "if (entry.place !== 'unknown' && !isSame(entry.place, place)) {",
      'if (false) {',
    ],
    [
      'a neighbor that answers ARP has the pod’s address after a while',
      ' || hasLink(before.port ?? before.link)',
      '',
    ],
    ['a pod that ends moves', ' || pod.terminating || hasLink', ' || hasLink'],
    ['the API server is read at every request', ' || moved.isReading) return;', ') return;'],
    [
      'a pod is read before the kubelet has reported the end of it',
      'if (nowMs - moved.seenAtMs < settleMs || moved.isReading) return;',
      'if (moved.isReading) return;',
    ],
    [
      'another pod of that name confirms the place',
      'now?.uid === pod.uid && !now.terminating',
      'now !== undefined && !now.terminating',
    ],
    [
      'a pod is at a place that it has left while it was read',
      'if (entry.moved !== moved) return;',
      '',
    ],
    [
      'each of two pods with an address has its place',
      "if (owner.kind !== 'pod' || owner.pod.uid !== uid) return;",
      '',
    ],
    [
      'the station of the pod before is taken for that of the pod',
      "const isSure = place !== 'unknown' && (place.port !== undefined || place.mac === undefined);",
      "const isSure = place !== 'unknown';",
    ],
    [
      'a place outlives its pod',
      'if (entry !== undefined && entry.ip !== ip) this.#entries.delete(uid);',
      'if (false) return;',
    ],
    ['any port of a bridge is the same place', 'return one.port === other.port;', 'return true;'],
  ],
  'src/nmi/grants/workload-identities.ts': [
    [
      'an account without an annotation is waited for',
      "if (known === 'missing' || known.clientId === '') return { kind: 'unannotated', account };",
      "if (known === 'missing' || known.clientId === '') return unknown;",
    ],
    [
      'every pod is one of Workload Identity',
      "if (labels[useLabel] !== 'true' || serviceAccount === '') return undefined;",
      '',
    ],
  ],
};
