/** `kubectl nmi grants`: the AzureIdentityGrants that the objects of the cluster need, as YAML. */
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
import { valueOf } from '../transport/kubectl.ts';
import { exitOf, refuseUnknownNamespace, type VerbContext } from './context.ts';
import { failFlags, type AddVerb } from './verb.ts';

export const addGrants: AddVerb = (parser, start) =>
  parser.command(
    'grants',
    'print the AzureIdentityGrants that --identity-owners=enforce needs in this cluster, or with -n in a namespace',
    (verb) =>
      verb
        .options(failFlags)
        .example('$0 grants > grants.yaml', 'to review and apply')
        .example('$0 grants --fail-on warning', 'in CI: is each identity in use granted?'),
    (flags) => start(flags, grants),
  );

async function grants(context: VerbContext): Promise<ExitCode> {
  const { kubectl, io, namespace } = context;
  const readRaw = async (resource: string) => {
    const read = await kubectl.list(resource, undefined);
    // Only the kind of the grants may be missing.
    const isMissing = !read.ok && read.failure.kind === 'no-kind' && resource === identityGrants;
    return isMissing ? [] : valueOf(read, `list ${resource}`);
  };
  // Without the objects that the agent cannot use.
  const readAll = async <T>(resource: string, parse: Parse<T>) =>
    (await readRaw(resource)).flatMap((object) => {
      const parsed = parse(object);
      return parsed.ok ? [parsed.value] : [];
    });
  const [identities, bindings, exceptions, existing] = await Promise.all([
    readAll(identityResources.identities, parseIdentity),
    readAll(identityResources.bindings, parseBinding),
    readAll(identityResources.exceptions, parseException),
    readAll(identityGrants, parseIdentityGrant),
  ]);
  const [pods, accounts, nodes, ...workloads] = await Promise.all([
    readRaw('pods'),
    readRaw('serviceaccounts'),
    readRaw('nodes'),
    ...workloadResources.map(readRaw),
  ]);
  const { grants: all, knowsKubelet } = neededGrants({
    identities,
    bindings,
    exceptions,
    grants: existing,
    pods,
    accounts,
    nodes,
    workloads: workloads.flat(),
  });
  const needed = all.filter((each) => namespace === undefined || each.namespace === namespace);
  if (needed.length > 0) {
    io.stdout(renderGrants({ grants: needed, knowsKubelet }));
  } else {
    if (namespace !== undefined) await refuseUnknownNamespace(context, namespace);
    const where = namespace === undefined ? '' : ` of namespace ${namespace}`;
    io.stderr(`every identity in use${where} has a grant\n`);
  }
  return exitOf(context, (limit) => limit === 'warning' && needed.length > 0);
}
