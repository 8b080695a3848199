/** `kubectl nmi exception`: pods that keep the identities of their node. */
import { exceptionObject } from '../azure/objects.ts';
import { isExcepted } from '../../cache/index/excepted-labels.ts';
import { labelsOf, nameOf, namespaceOf } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, usageError, type ExitCode } from '../base/plugin-error.ts';
import { renderTable } from '../base/output.ts';
import { hasExceptedLabel, podLabelsOf } from '../cluster/exceptions.ts';
import { identityResources } from '../cluster/resources.ts';
import { valueOf } from '../transport/kubectl.ts';
import { namespaceFor, print, scopeOf, type VerbContext } from './context.ts';
import { carryOut, checkName, emptyPlan, planFlags } from './plan.ts';
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
            start(flags, (context) =>
              write(context, flags.name, flags['pod-labels'], flags.apply, false),
            ),
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
              write(context, flags.name, flags['pod-labels'], flags.apply, true),
            ),
        )
        .command(
          'delete <name>',
          'an exception',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .options({ apply: planFlags.apply })
              .example('$0 exception delete proxy --apply', ''),
          (flags) => start(flags, (context) => remove(context, flags.name, flags.apply)),
        )
        .command(
          'list',
          'exceptions with their pods',
          (sub) => sub.example('$0 exception list -A', ''),
          (flags) => start(flags, list),
        )
        .demandCommand(1, 'No verb is given after exception.'),
  );

async function write(
  context: VerbContext,
  name: string,
  labels: string,
  apply: boolean,
  isThere: boolean,
): Promise<ExitCode> {
  const namespace = await namespaceFor(context);
  const podLabels = parseLabels(labels);
  const objects = [exceptionObject(namespace, checkName(name), podLabels)];
  const [found, pods] = await Promise.all([
    context.kubectl.get(identityResources.exceptions, namespace, name),
    context.kubectl.list('pods', namespace),
  ]);
  if (found.ok !== isThere && (found.ok || found.failure.kind === 'not-found')) {
    const [is, other] = isThere ? ['does not exist', 'add'] : ['exists', 'update'];
    throw failedError(
      `AzurePodIdentityException ${namespace}/${name} ${is}`,
      `Use: kubectl nmi exception ${other} ${name} -n ${namespace} --pod-labels ${labels}`,
    );
  }
  const matching = pods.ok
    ? `now ${pods.value.filter((pod) => isExcepted(Object.fromEntries(labelsOf(pod)), podLabels)).length} of ${pods.value.length}`
    : 'a number that you may not read';
  const notes = [
    `Pods with one of these labels (${matching} in namespace ${namespace}) get every identity of their node, and no binding counts for them.`,
  ];
  return carryOut(context, { ...emptyPlan, objects, notes }, { apply, run: false });
}

async function remove(context: VerbContext, name: string, apply: boolean): Promise<ExitCode> {
  const namespace = await namespaceFor(context);
  valueOf(
    await context.kubectl.get(identityResources.exceptions, namespace, name),
    `get AzurePodIdentityException ${namespace}/${name}`,
  );
  const deletions = [['delete', identityResources.exceptions, `--namespace=${namespace}`, name]];
  return carryOut(context, { ...emptyPlan, deletions }, { apply, run: false });
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
      podLabels: [...podLabelsOf(exception)].map(([key, value]) => `${key}=${value}`),
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
