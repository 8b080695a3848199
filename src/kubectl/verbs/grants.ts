/** `kubectl nmi grants`: the AzureIdentityGrants that the objects of the cluster need, as YAML. */
import type { ObjectRef } from '../../cache/index/objects.ts';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  type Parse,
} from '../../nmi/kube/watch/parse.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { identityGrants, identityResources, workloadResources } from '../cluster/resources.ts';
import { renderGrants } from '../findings/grants-yaml.ts';
import { neededGrants } from '../findings/needed-grants.ts';
import { valueOf, type Kubectl } from '../transport/kubectl.ts';
import { exitOf, type VerbContext } from './context.ts';
import type { AddVerb } from './verb.ts';

export const addGrants: AddVerb = (parser, start) =>
  parser.command(
    'grants',
    'print the AzureIdentityGrants that --identity-owners=enforce needs in this cluster',
    (verb) => verb.example('$0 grants > grants.yaml', 'to review and apply'),
    (flags) => start(flags, grants),
  );

async function grants(context: VerbContext): Promise<ExitCode> {
  const { kubectl, io } = context;
  const readRaw = async (resource: string) =>
    valueOf(await kubectl.list(resource, undefined), `list ${resource}`);
  const [identities, bindings, exceptions, existing] = await Promise.all([
    readAll(kubectl, identityResources.identities, parseIdentity),
    readAll(kubectl, identityResources.bindings, parseBinding),
    readAll(kubectl, identityResources.exceptions, parseException),
    readAll(kubectl, identityGrants, parseIdentityGrant),
  ]);
  const [pods, accounts, nodes, ...workloads] = await Promise.all([
    readRaw('pods'),
    readRaw('serviceaccounts'),
    readRaw('nodes'),
    ...workloadResources.map(readRaw),
  ]);
  const needed = neededGrants({
    identities,
    bindings,
    exceptions,
    grants: existing,
    pods,
    accounts,
    nodes,
    workloads: workloads.flat(),
  });
  if (needed.grants.length > 0) io.stdout(renderGrants(needed));
  else io.stderr('every identity in use has a grant\n');
  return exitOf(context, needed.grants.length === 0);
}

/** Without the objects that the agent cannot use. Only the kind of the grants may be missing. */
async function readAll<T extends ObjectRef>(
  kubectl: Kubectl,
  resource: string,
  parse: Parse<T>,
): Promise<readonly T[]> {
  const read = await kubectl.list(resource, undefined);
  if (!read.ok && read.failure.kind === 'no-kind' && resource === identityGrants) return [];
  return valueOf(read, `list ${resource}`).flatMap((object) => {
    const parsed = parse(object);
    return parsed.ok ? [parsed.value] : [];
  });
}
