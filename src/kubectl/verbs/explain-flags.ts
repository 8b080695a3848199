/** The command line of `kubectl nmi explain`. */
import { explainIp, explainObject, explainPod } from './explain.ts';
import { nameArgument, switchFlag, type AddVerb } from './verb.ts';

export const addExplain: AddVerb = (parser, start) =>
  parser.command(
    'explain <what> <name>',
    'explain what a pod, identity, binding or address gets, and why',
    (verb) =>
      verb
        .positional('what', {
          choices: ['pod', 'identity', 'binding', 'ip'] as const,
          // No mutation: the command itself demands it, and only the compiler needs to know that here.
          demandOption: true,
        })
        .positional('name', nameArgument)
        .option('client-id', { type: 'string', describe: 'Client id that the request names.' })
        .option('resource', { type: 'string', describe: 'Resource that the request names.' })
        .option(
          'live',
          switchFlag('Add what the agent of the node reports; needs exec on its pod.'),
        )
        .example('$0 explain pod web-7d4b9 -n shop', 'what the pod gets')
        .example('$0 explain ip 10.244.1.7', 'the same for the pod with that address'),
    (flags) =>
      start(flags, (context) => {
        const { what, name } = flags;
        switch (what) {
          case 'pod':
            return explainPod(context, name, flags);
          case 'ip':
            return explainIp(context, name, flags);
          default:
            return explainObject(context, what, name);
        }
      }),
  );
