/** The command line of `kubectl nmi explain`. Kinds are named as for kubectl. */
import { usageError } from '../base/plugin-error.ts';
import { explainIp, explainPod, explainWorkload } from './explain.ts';
import { switchFlag, type AddVerb } from './verb.ts';

const kinds: Readonly<Record<string, readonly string[]>> = {
  Pod: ['pod', 'pods', 'po'],
  ip: ['ip'],
  Deployment: ['deployment', 'deployments', 'deploy'],
  StatefulSet: ['statefulset', 'statefulsets', 'sts'],
  DaemonSet: ['daemonset', 'daemonsets', 'ds'],
  Job: ['job', 'jobs'],
  CronJob: ['cronjob', 'cronjobs', 'cj'],
};

export const addExplain: AddVerb = (parser, start) =>
  parser.command(
    'explain <what> [name]',
    'explain what a pod gets, by its name, workload or address, and why',
    (verb) =>
      verb
        .positional('what', {
          type: 'string',
          describe:
            'A kind (pod, deployment, statefulset, daemonset, job, cronjob, ip), or KIND/NAME.',
          // No mutation: the command itself demands it, and only the compiler needs to know that here.
          demandOption: true,
        })
        .positional('name', { type: 'string', describe: 'Name of the object, or the address.' })
        .option('client-id', { type: 'string', describe: 'Client id that the request names.' })
        .option('resource', { type: 'string', describe: 'Resource that the request names.' })
        .option('strict', switchFlag('Exit with 1 if anything was not checked, too.'))
        .option('verbose', { ...switchFlag('Show why something was not checked.'), alias: 'v' })
        .example('$0 explain pod web-7d4b9 -n shop', 'what the pod gets')
        .example('$0 explain deploy/web -n shop', 'the same for the newest pod of a Deployment')
        .example('$0 explain ip 10.244.1.7', 'the same for the pod with that address'),
    (flags) =>
      start(flags, (context) => {
        if (context.allNamespaces) {
          throw usageError(
            'explain is about one object, and -A is given',
            'Give -n, or leave -A out.',
          );
        }
        const [kind, name] = parseTarget(flags.what, flags.name);
        if (kind === 'Pod') return explainPod(context, name, flags);
        if (kind === 'ip') return explainIp(context, name, flags);
        return explainWorkload(context, kind, name, flags);
      }),
  );

/** `pod web`, `pods web`, `pod/web`, `deployments.apps/web`. @throws PluginError */
function parseTarget(
  what: string,
  name: string | undefined,
): readonly [kind: string, name: string] {
  const [word = '', inner, ...more] = what.split('/');
  const names = [inner, name].filter((each) => each !== undefined && each !== '');
  const [plain = ''] = word.toLowerCase().split('.');
  const [kind] = Object.entries(kinds).find(([, words]) => words.includes(plain)) ?? [];
  if (kind === undefined) {
    throw usageError(
      `explain knows no kind ${word}`,
      'Name a pod, deployment, statefulset, daemonset, job, cronjob or ip.',
    );
  }
  const [only] = names;
  if (only !== undefined && names.length === 1 && more.length === 0) return [kind, only];
  throw usageError(
    only === undefined ? `explain ${word} needs a name` : 'explain takes one object',
    `Write: kubectl nmi explain ${word} NAME`,
  );
}
