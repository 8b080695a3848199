/** `kubectl nmi exception`: pods that keep the identities of their node. */
import { exceptionObject } from '../azure/objects.ts';
import { isExcepted } from '../../cache/index/excepted-labels.ts';
import { labelsOf, metadataOf, nameOf, namespaceOf, type RawObject } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, usageError, type ExitCode } from '../base/plugin-error.ts';
import { renderTable } from '../base/output.ts';
import { hasExceptedLabel, podLabelsOf } from '../cluster/exceptions.ts';
import { refuseOtherOwners } from '../cluster/other-owners.ts';
import { identityResources } from '../cluster/resources.ts';
import { valueOf } from '../transport/kubectl.ts';
import {
  nmiCommand,
  pin,
  print,
  scopeOf,
  type PinnedContext,
  type VerbContext,
} from './context.ts';
import {
  asOurselves,
  carryOut,
  checkName,
  emptyPlan,
  planFlags,
  removalFlags,
  unlessThere,
  type PlanFlags,
} from './plan.ts';
import { nameArgument, type AddVerb } from './verb.ts';

const writeFlags = {
  'pod-labels': {
    type: 'string',
    demandOption: true,
    describe: 'KEY=VALUE, comma separated; a pod needs one of them.',
  },
  apply: planFlags.apply,
} as const;

export const addException: AddVerb = (parser, start) =>
  parser.command(
    'exception',
    'add, update, delete and list exceptions: pods that keep the identities of their node',
    (verb) =>
      verb
        .command(
          'add <name>',
          'an AzurePodIdentityException',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .options(writeFlags)
              .example('$0 exception add proxy -n web --pod-labels app=proxy --apply', ''),
          (flags) =>
            start(flags, (context) => add(context, flags.name, flags['pod-labels'], flags.apply)),
        )
        .command(
          'update <name>',
          'other labels for an exception that exists',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .options(writeFlags)
              .example('$0 exception update proxy --pod-labels app=proxy,tier=edge --apply', ''),
          (flags) =>
            start(flags, (context) =>
              update(context, flags.name, flags['pod-labels'], flags.apply),
            ),
        )
        .command(
          'delete <name>',
          'an exception',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .options(removalFlags)
              .example('$0 exception delete proxy --apply --yes', ''),
          (flags) => start(flags, (context) => remove(context, flags.name, flags)),
        )
        .command(
          'list',
          'exceptions with their pods',
          (sub) => sub.example('$0 exception list -A', ''),
          (flags) => start(flags, list),
        )
        .demandCommand(1, 'No verb is given after exception.'),
  );

const kind = 'AzurePodIdentityException';
const resource = identityResources.exceptions;

async function noteOf(
  { kubectl, namespace }: PinnedContext,
  podLabels: ReturnType<typeof parseLabels>,
): Promise<string> {
  const pods = await kubectl.list('pods', namespace);
  const matching = pods.ok
    ? `now ${pods.value.filter((pod) => isExcepted(Object.fromEntries(labelsOf(pod)), podLabels)).length} of ${pods.value.length}`
    : 'a number that you may not read';
  return `Pods with one of these labels (${matching} in namespace ${namespace}) get every identity of their node, and no binding counts for them.`;
}

async function add(
  unpinned: VerbContext,
  name: string,
  labels: string,
  apply: boolean,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { namespace } = context;
  const podLabels = parseLabels(labels);
  const made = exceptionObject(namespace, checkName(name), podLabels);
  const instead = nmiCommand(context, 'exception', 'update', name, '--pod-labels', labels);
  const added = await unlessThere(context, resource, name, made, `Use: ${instead}`);
  const plan = {
    ...emptyPlan,
    objects: added.objects,
    notes: [...added.notes, await noteOf(context, podLabels)],
  };
  return carryOut(context, plan, { apply });
}

async function update(
  unpinned: VerbContext,
  name: string,
  labels: string,
  apply: boolean,
): Promise<ExitCode> {
  const podLabels = parseLabels(labels);
  const context = await pin(unpinned);
  const instead = nmiCommand(context, 'exception', 'add', name, '--pod-labels', labels);
  const present = await readOne(context, name, `Use: ${instead}`);
  if (apply) await refuseOtherOwners(context.kubectl, { ...context, resource, name });
  const former = renderLabels(present);
  const patch = [
    // Refused by the server if somebody changed it since it was shown.
    {
      op: 'test',
      path: '/metadata/resourceVersion',
      value: metadataOf(present)['resourceVersion'],
    },
    { op: 'add', path: '/spec/podLabels', value: podLabels },
  ];
  const change = [
    ...['patch', resource, `--namespace=${context.namespace}`, name, '--type=json'],
    ...[`--patch=${JSON.stringify(patch)}`, asOurselves],
  ];
  const plan = {
    ...emptyPlan,
    changes: [change],
    notes: [`spec.podLabels was ${former.join(',') || 'empty'}.`, await noteOf(context, podLabels)],
  };
  return carryOut(context, plan, { apply });
}

async function remove(unpinned: VerbContext, name: string, flags: PlanFlags): Promise<ExitCode> {
  const context = await pin(unpinned);
  await readOne(context, name);
  const { namespace } = context;
  const deletions = [{ resource, namespace, name }];
  return carryOut(context, { ...emptyPlan, deletions }, flags);
}

async function readOne(
  { kubectl, namespace }: PinnedContext,
  name: string,
  nextStep = 'List them: kubectl nmi exception list',
): Promise<RawObject> {
  const found = await kubectl.get(resource, namespace, name);
  const title = `${kind} ${namespace}/${name}`;
  if (found.ok || found.failure.kind !== 'not-found') return valueOf(found, `get ${title}`);
  throw failedError(`${title} does not exist`, nextStep);
}

function renderLabels(exception: RawObject): readonly string[] {
  return [...podLabelsOf(exception)].map(([key, value]) => `${key}=${value}`);
}

async function list(context: VerbContext): Promise<ExitCode> {
  const scope = await scopeOf(context);
  const [read, pods] = await Promise.all([
    context.kubectl.list(identityResources.exceptions, scope),
    context.kubectl.list('pods', scope),
  ]);
  const exceptions = valueOf(read, 'list exceptions').map((exception) => {
    const matching = valueOf(pods, 'list pods').filter(
      (pod) => namespaceOf(pod) === namespaceOf(exception) && hasExceptedLabel(pod, exception),
    );
    return {
      namespace: namespaceOf(exception),
      name: nameOf(exception),
      podLabels: renderLabels(exception),
      pods: matching.map(nameOf),
    };
  });
  print(context, { kind: 'ExceptionList', exceptions }, () =>
    renderTable(
      ['NAMESPACE', 'NAME', 'POD-LABELS', 'PODS'],
      exceptions.map((each) => [
        each.namespace,
        each.name,
        each.podLabels.join(','),
        each.pods.join(','),
      ]),
    ),
  );
  return exitCodes.ok;
}

/** @throws PluginError */
function parseLabels(text: string): Readonly<Record<string, string>> {
  const pairs = text.split(',').map((each) => /^\s*([\w./-]+)=([\w.-]*)\s*$/.exec(each));
  const labels = pairs.flatMap((pair) =>
    pair === null ? [] : [[pair[1] ?? '', pair[2] ?? ''] as const],
  );
  if (
    labels.length === pairs.length &&
    new Set(labels.map(([key]) => key)).size === labels.length
  ) {
    return Object.fromEntries(labels);
  }
  throw usageError(
    `--pod-labels has the value "${text}"`,
    'Write KEY=VALUE, comma separated, each key once: app=proxy,tier=edge',
  );
}
