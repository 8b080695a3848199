/** `kubectl nmi identity federate`: federated credentials for the service accounts of an identity. */
import { stringAt } from '../../../base/json-value.ts';
import {
  idsOf,
  isChain,
  isOfNode,
  planFederation,
  planTrust,
  subjectOf,
  type Subject,
} from '../../azure/federation.ts';
import { planIdentityBinding } from '../../azure/identity-binding.ts';
import { specOf } from '../../base/object.ts';
import { usageError, type ExitCode } from '../../base/plugin-error.ts';
import { trustedOf } from '../../cluster/agents.ts';
import { findIdentity } from '../../cluster/bound.ts';
import { cloudOfAgents, readCredentialTarget } from '../../cluster/issuer.ts';
import { readAgents } from '../../cluster/trusted-agents.ts';
import { pin, type VerbContext } from '../context.ts';
import { carryOut, checkName, emptyPlan } from '../plan.ts';

export async function federate(
  unpinned: VerbContext,
  name: string,
  accounts: readonly string[],
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, namespace } = context;
  const [{ identity, pods }, read] = await Promise.all([
    findIdentity(kubectl, namespace, name),
    readAgents(context),
  ]);
  const agents = trustedOf(read.ok ? read.value : []);
  if (isChain(identity) && isOfNode(identity)) {
    const cloud = cloudOfAgents(agents);
    const notes = [...cloud.notes, ...planTrust(identity, cloud)];
    return carryOut(context, { ...emptyPlan, notes }, false);
  }
  const bound = pods.map((pod) => stringAt(specOf(pod), 'serviceAccountName') || 'default');
  const federation = stringAt(specOf(identity), 'federation');
  const isOfAgent = federation === 'node';
  const subjects: readonly Subject[] = isOfAgent
    ? agents.slice(0, 1)
    : [...new Set(accounts.length > 0 ? accounts : bound)].map((serviceAccount) => ({
        namespace,
        serviceAccount: checkName(serviceAccount),
      }));
  if (subjects.length === 0 && isOfAgent) {
    throw usageError(
      `no verified agent is in namespace ${context.agentNamespace}, so its service account is not known`,
      'Agents in another namespace need --agent-namespace; to verify agents is to list daemonsets.apps there.',
    );
  }
  if (subjects.length === 0) {
    throw usageError(
      `no pod has AzureIdentity ${name} yet, so no service account is known`,
      'Name them: --service-account NAME',
    );
  }
  if (federation === 'binding') {
    const planned = planIdentityBinding(name, idsOf(identity), subjects);
    const notes = ['Azure keeps one federated credential for all clusters that are bound.'];
    return carryOut(context, { ...emptyPlan, ...planned, notes }, false);
  }
  const target = await readCredentialTarget(kubectl, agents);
  const planned = planFederation({ ...target, ...idsOf(identity) }, subjects);
  const notes = [
    ...target.notes,
    ...subjects.map((each) => `subject ${subjectOf(each)}`),
    ...planned.notes,
  ];
  return carryOut(context, { ...emptyPlan, az: planned.az, notes }, false);
}
