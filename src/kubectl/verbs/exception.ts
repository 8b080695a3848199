/** `kubectl nmi exception`: pods that keep the identities of their node. */
import { isExcepted } from '../../cache/index/excepted-labels.ts';
import { labelsOf } from '../base/object.ts';
import { usageError, type ExitCode } from '../base/plugin-error.ts';
import { pin, type PinnedContext, type VerbContext } from './context.ts';
import { carryOut, emptyPlan, planFlags, unlessThere } from './plan.ts';
import { nameArgument, type AddVerb } from './verb.ts';

export const addException: AddVerb = (parser, start) =>
  parser.command(
    'exception',
    'add exceptions: pods that keep the identities of their node',
    (verb) =>
      verb
        .command(
          'add <name>',
          'an AzurePodIdentityException',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .option('pod-labels', {
                type: 'string',
                demandOption: true,
                describe: 'KEY=VALUE, comma separated; a pod needs one of them.',
              })
              .options(planFlags)
              .example('$0 exception add proxy -n web --pod-labels app=proxy --apply', ''),
          (flags) =>
            start(flags, (context) => add(context, flags.name, flags['pod-labels'], flags.apply)),
        )
        .demandCommand(1, 'No verb is given after exception.'),
  );

async function add(
  unpinned: VerbContext,
  name: string,
  labels: string,
  apply: boolean,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const podLabels = parseLabels(labels);
  const added = await unlessThere(context, 'AzurePodIdentityException', name, { podLabels });
  const notes = [...added.notes, await noteOf(context, podLabels)];
  return carryOut(context, { ...emptyPlan, objects: added.objects, notes }, apply);
}

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
