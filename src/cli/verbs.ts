/** The verbs of `nmi`: their flags, examples and code. */
import type { Options } from 'yargs';
import { renderVersion } from '../nmi/base/build-info.ts';
import {
  environmentName,
  hasFlag,
  ignoredFlags,
  options,
  type Option,
} from '../nmi/config/options.ts';
import type { Args } from './flags.ts';
import { exitCodes, type Io } from './io.ts';

export interface Verb {
  readonly summary: string;
  /** Flags of the verb in the form that yargs accepts; text where it has no type. */
  readonly flags: Readonly<Record<string, Options>>;
  /** Words that may follow the verb, and what each does. */
  readonly actions?: Readonly<Record<string, string>>;
  readonly examples: readonly string[];
  readonly insteadOfWord?: string;
  readonly start: (args: Args, io: Io) => Promise<number>;
}

/** Verbs load when they are called: the agent loads none of the others. */
export const verbs: Readonly<Record<string, Verb>> = {
  run: {
    summary: 'Run the agent of this node. The default verb.',
    examples: ['nmi run --node=NODE', 'nmi --node=NODE --redirect=iptables --log-format=text'],
    flags: runFlags(({ group }) => group !== 'Conditions'),
    start: async (args, io) => (await import('./run.ts')).run(args.flags, io),
  },
  redirect: {
    summary: 'Install, verify, maintain or remove the redirect of this node.',
    actions: {
      install: 'Install the redirect once.',
      verify: 'Read the redirect back and report drift. Exit code 1 if it is not in place.',
      remove: 'Remove the redirect. This opens the node: pods reach the real metadata service.',
      run: 'Maintain the redirect for an agent with --redirect=pinned, until a signal.',
      'guard-boot':
        'Keep pods off the metadata service from each boot until the agent has started.',
      'unguard-boot': 'Undo guard-boot.',
    },
    examples: ['nmi redirect verify', 'nmi redirect remove'],
    flags: runFlags(({ isOfRedirect }) => isOfRedirect === true),
    start: async (args, io) => (await import('./redirect.ts')).redirect(args, io),
  },
  conditions: {
    summary: 'Write status conditions on AzureIdentities and their bindings. Once in a cluster.',
    examples: ['nmi conditions --agent-namespace=kube-system --identity-owners=enforce'],
    flags: runFlags(({ isOfConditions }) => isOfConditions === true),
    start: async (args, io) => (await import('./conditions.ts')).conditions(args.flags, io),
  },
  demo: {
    summary: 'Sample client: request tokens from inside a pod.',
    examples: [
      'nmi demo --once',
      'nmi demo --identity-client-id=CLIENT_ID --resource-name=https://vault.azure.net',
    ],
    flags: {
      period: { describe: 'Time between two rounds.', default: '100s' },
      'resource-name': {
        describe: 'Resource of the token.',
        default: 'https://management.azure.com/',
      },
      'identity-client-id': { alias: 'clientid', describe: 'Client id of the identity.' },
      // Of the replaced system, without effect: it counted virtual machines with the token.
      'subscription-id': { alias: 'subscriptionid', hidden: true },
      'resource-group': { alias: 'resourcegroup', hidden: true },
      once: { type: 'boolean', describe: 'Run one round and exit with its result.' },
      'outside-pod': {
        type: 'boolean',
        describe: 'Run although this does not look like a pod.',
      },
    },
    start: async (args, io) => (await import('./demo.ts')).demo(args, io),
  },
  explain: {
    summary: 'Explain what a pod of this node gets, and why. Asks the agent in this container.',
    insteadOfWord: 'name a pod with --pod NAMESPACE/NAME',
    examples: [
      'nmi explain',
      'nmi explain --pod team-a/reporter',
      'nmi explain --pod team-a/reporter --resource https://vault.azure.net -o json',
    ],
    flags: {
      pod: { describe: 'The pod, as NAMESPACE/NAME. Default: all pods, in a table.' },
      resource: { describe: 'Resource to simulate in the request.' },
      'client-id': { describe: 'Client ID to simulate in the request.' },
      output: { alias: 'o', describe: 'Output format: text or json.', default: 'text' },
    },
    start: async (args, io) => (await import('./explain.ts')).explain(args, io),
  },
  ready: {
    summary: 'Report whether the agent in this container is ready. Exit code 1 if it is not.',
    examples: ['nmi ready'],
    flags: {},
    start: async (_, io) => (await import('./ready.ts')).ready(io),
  },
  version: {
    summary: 'Print the version.',
    examples: ['nmi version'],
    flags: {},
    start: (_words, io) => {
      io.stdout(renderVersion());
      return Promise.resolve(exitCodes.ok);
    },
  },
};

function runFlags(isShown: (option: Option) => boolean): Readonly<Record<string, Options>> {
  const flags: Record<string, Options> = {};
  for (const option of options) {
    if (!hasFlag(option)) continue;
    const { name, old, type } = option;
    const kind =
      type.kind === 'integer' ? 'number' : type.kind === 'boolean' ? type.kind : 'string';
    if (old !== undefined) flags[old] = { type: kind, hidden: true };
    flags[name] = {
      type: kind,
      describe: describeOption(option),
      group: `${option.group}:`,
      hidden: !isShown(option),
      ...(type.choices === undefined ? {} : { choices: type.choices }),
      ...(option.default === '' ? {} : { default: option.default }),
    };
  }
  // docs/flags.md lists them.
  for (const { name, isBoolean } of ignoredFlags) {
    flags[name] = { type: isBoolean ? 'boolean' : 'string', hidden: true };
  }
  return flags;
}

function describeOption(option: Option): string {
  const { help, type, old } = option;
  const takes = hasTellingType(option) ? '' : ` Takes ${type.allowed}.`;
  const alias = old === undefined ? '' : ` Also --${old}.`;
  return `${help}${takes}${alias} [${environmentName(option)}]`;
}

/** Help shows that it is a boolean, or the choices, or that it is any string. */
function hasTellingType({ type }: Option): boolean {
  if (type.kind === 'boolean' || type.choices !== undefined) return true;
  return type.allowed === 'text' || type.allowed === 'a path';
}
