/** `kubectl nmi exception`: as `az aks pod-identity exception`. */
import { labelsOf, nameOf, specOf } from '../base/object.ts';
import { usageError, type ExitCode } from '../base/plugin-error.ts';
import { asRecord } from '../../base/json-value.ts';
import { printableList } from '../../base/printable.ts';
import { identityResources } from '../cluster/resources.ts';
import { labelValue } from '../../nmi/diagnosis/objects.ts';
import { valueOf } from '../transport/kubectl.ts';
import { pin, type VerbContext } from './context.ts';
import { carryOut, checkName, emptyPlan, planFlags, unlessThere } from './plan.ts';
import { nameArgument, type AddVerb } from './verb.ts';

const resource = identityResources.exceptions;

export const addException: AddVerb = (parser, start) =>
  parser.command(
    'exception',
    'add and delete exceptions: pods that get identities of the node',
    (verb) =>
      verb
        .command(
          'add <name>',
          'an AzurePodIdentityException for pods with these labels',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .option('pod-labels', {
                type: 'string',
                array: true,
                demandOption: true,
                describe: 'Pods that have at least one of them. As app=agent.',
              })
              .options(planFlags)
              .example('$0 exception add agent --pod-labels app=agent', 'for pods with that label'),
          (flags) => start(flags, (context) => add(context, flags.name, flags)),
        )
        .command(
          'delete <name>',
          'an AzurePodIdentityException',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .options(planFlags)
              .example('$0 exception delete agent', 'shows the pods that it is for'),
          (flags) => start(flags, (context) => remove(context, flags.name, flags.apply)),
        )
        .demandCommand(1, 'No verb is given after exception.'),
  );

async function add(
  unpinned: VerbContext,
  name: string,
  flags: { readonly podLabels: readonly string[]; readonly apply: boolean },
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const podLabels = Object.fromEntries(flags.podLabels.map(parseLabel));
  const added = await unlessThere(context, 'AzurePodIdentityException', name, { podLabels });
  const note =
    'These pods get every identity that is assigned to the node; with --identity-owners=enforce that needs a grant with nodeIdentities: true.';
  return carryOut(context, { ...emptyPlan, ...added, notes: [...added.notes, note] }, flags.apply);
}

function parseLabel(text: string): readonly [key: string, value: string] {
  const [key = '', value, ...more] = text.split('=');
  if (key !== '' && value !== undefined && more.length === 0 && labelValue.test(value)) {
    return [key, value];
  }
  throw usageError(`"${text}" is no label`, 'Write it as KEY=VALUE.');
}

async function remove(unpinned: VerbContext, name: string, apply: boolean): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, namespace } = context;
  const read = await kubectl.get(resource, namespace, checkName(name));
  const labels = Object.entries(
    asRecord(specOf(valueOf(read, `get ${resource}`))['podLabels']) ?? {},
  );
  const pods = valueOf(await kubectl.list('pods', namespace), `list pods in namespace ${namespace}`)
    .filter((pod) => labels.some(([key, value]) => labelsOf(pod).get(key) === value))
    .map(nameOf);
  const notes =
    pods.length === 0
      ? []
      : [`Pods whose requests the agent then decides: ${printableList(pods, 5)}.`];
  const changes = [['delete', resource, name, `--namespace=${namespace}`]];
  return carryOut(context, { ...emptyPlan, changes, notes }, apply);
}
