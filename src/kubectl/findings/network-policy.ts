/** Whether network policies allow a pod to reach the agent. Only an `ipBlock` matches a node. */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { asRecord, stringAt, type JsonRecord } from '../../base/json-value.ts';
import {
  labelsOf,
  nameOf,
  namespaceOf,
  recordsAt,
  specOf,
  textsAt,
  type RawObject,
} from '../base/object.ts';
import { matchesSelector } from './label-selector.ts';

export interface PolicyTarget {
  readonly ip: string;
  readonly port: number;
}

/**
 * Names of the policies that together forbid the connection; empty when it is allowed.
 * @param isInDoubt whether a block whose CIDR cannot be read allows it: nothing else is known of it.
 */
export function policiesAgainst(
  pod: RawObject,
  policies: readonly RawObject[],
  target: PolicyTarget,
  isInDoubt: boolean,
): readonly string[] {
  const selecting = policies.filter(
    (policy) =>
      namespaceOf(policy) === namespaceOf(pod) &&
      isOfEgress(policy) &&
      matchesSelector(asRecord(specOf(policy)['podSelector']), labelsOf(pod)),
  );
  const isAllowed = selecting.some((policy) =>
    recordsAt(specOf(policy), 'egress').some((rule) => allows(rule, target, isInDoubt)),
  );
  return isAllowed ? [] : selecting.map(nameOf);
}

function isOfEgress(policy: RawObject): boolean {
  const spec = specOf(policy);
  const types = textsAt(spec, 'policyTypes');
  return types.length === 0 ? recordsAt(spec, 'egress').length > 0 : types.includes('Egress');
}

function allows(rule: JsonRecord, { ip, port }: PolicyTarget, isInDoubt: boolean): boolean {
  const [peers, ports] = [recordsAt(rule, 'to'), recordsAt(rule, 'ports')];
  const isInside = (cidr: string, otherwise: boolean) => {
    const [base = '', length = ''] = cidr.split('/');
    if (isIPv6(base)) return false;
    // `${POD_CIDR}/16` of a file; servers accept 010.0.0.0/8, and networks differ in what it is.
    if (!isIPv4(base) || !/^(?:[12]?\d|3[0-2])$/.test(length)) return otherwise;
    const list = new BlockList();
    list.addSubnet(base, Number(length), 'ipv4');
    return list.check(ip);
  };
  const includesIp = (block: JsonRecord | undefined) =>
    block !== undefined &&
    isInside(stringAt(block, 'cidr'), isInDoubt) &&
    !textsAt(block, 'except').some((cidr) => isInside(cidr, !isInDoubt));
  return (
    (peers.length === 0 || peers.some((peer) => includesIp(asRecord(peer['ipBlock'])))) &&
    (ports.length === 0 || ports.some((each) => includesPort(each, port)))
  );
}

function includesPort(each: JsonRecord, port: number): boolean {
  if ((each['protocol'] ?? 'TCP') !== 'TCP') return false;
  const { port: first, endPort: last = first } = each;
  // A named port, which is no number, belongs to a pod, and a policy cannot select the agent as a pod.
  return first === undefined || (port >= Number(first) && port <= Number(last));
}
