/**
 * From words to a verb. The only place that knows yargs: its parser splits words, and all of it is
 * loaded to render help, which costs a start 30 ms. Values are judged by the options table, so that
 * all problems are reported together.
 */
import type { Options } from 'yargs';
import { Parser } from 'yargs/helpers';
import { buildInfo } from '../nmi/base/build-info.ts';
import {
  environmentName,
  findIgnored,
  findOption,
  hasFlag,
  ignoredFlags,
  options,
  type Option,
} from '../nmi/config/options.ts';
import { completeBooleans, flagTexts, flagsWithoutValue, type Words } from './flags.ts';
import { exitCodes, type Outside } from './outside.ts';

interface Verb {
  readonly summary: string;
  /** Flags of the verb as yargs takes them; every value is text. */
  readonly flags: Readonly<Record<string, Options>>;
  readonly isBoolean: (flag: string) => boolean;
  readonly positional?: string;
  readonly start: (words: Words, outside: Outside) => Promise<number>;
}

/** Verbs load when they are called: the agent carries none of the others. */
const verbs: Readonly<Record<string, Verb>> = {
  run: {
    summary: 'run the agent of this node (also without a verb)',
    flags: runFlags(() => true),
    isBoolean: isRunBoolean,
    start: async (words, outside) => {
      const stray = words.rest[0];
      if (stray !== undefined) {
        const hint = /^(?:true|false)$/i.test(stray) ? ' (write --flag=value)' : '';
        return usage(outside, `unknown verb or word "${stray}"${hint}`);
      }
      const { run } = await import('./run.ts');
      return run(words.flags, outside);
    },
  },
  redirect: {
    summary: 'install, verify, keep or remove the redirect of this node; probe what it can be',
    positional: '<install|verify|remove|run|probe>',
    flags: {
      ...runFlags(({ isOfRedirect }) => isOfRedirect === true),
      output: { describe: 'Of a probe: text or json.', default: 'text' },
    },
    isBoolean: isRunBoolean,
    start: async (words, outside) => {
      const { redirect } = await import('./redirect.ts');
      return redirect(words, outside);
    },
  },
  demo: {
    summary: 'the sample client: asks for tokens from inside a pod',
    flags: {
      period: { describe: 'Pause between two rounds, as 100s or 5m.', default: '100s' },
      'resource-name': {
        describe: 'Resource to ask a token for.',
        default: 'https://management.azure.com/',
      },
      'identity-client-id': { alias: 'clientid', describe: 'Client id of the identity.' },
      'subscription-id': {
        alias: 'subscriptionid',
        describe: 'With --resource-group: count its virtual machines with the token.',
      },
      'resource-group': { alias: 'resourcegroup', describe: 'See --subscription-id.' },
      once: { describe: 'One round, then exit with its result.' },
    },
    isBoolean: (flag) => flag === 'once',
    start: async (words, outside) => {
      const { demo } = await import('./demo.ts');
      return demo(words, outside);
    },
  },
  explain: {
    summary: 'what a pod of this node gets and why, told by the agent in this container',
    flags: {
      pod: { describe: 'The pod, as NAMESPACE/NAME; without --pod and --ip all pods in a table.' },
      ip: { describe: 'The pod that has this address.' },
      resource: { describe: 'As a request for a token of this resource.' },
      'client-id': { describe: 'As a request that names this identity.' },
      output: { describe: 'text or json.', default: 'text' },
    },
    isBoolean: () => false,
    start: async (words, outside) => {
      const { explain } = await import('./explain.ts');
      return explain(words, outside);
    },
  },
  grants: {
    summary: 'print the AzureIdentityGrants that --identity-owners=enforce needs in this cluster',
    flags: {
      kubeconfig: {
        describe: 'Path of a kubeconfig file; else KUBECONFIG, else the in-cluster configuration.',
      },
    },
    isBoolean: () => false,
    start: async (words, outside) => {
      const { grants } = await import('./grants.ts');
      return grants(words, outside);
    },
  },
  version: {
    summary: 'print the version',
    flags: {},
    isBoolean: () => false,
    start: (_words, outside) => {
      outside.stdout(renderVersion());
      return Promise.resolve(exitCodes.ok);
    },
  },
};

/** In the shape that the replaced system's scripts read. */
function renderVersion(): string {
  const { version, commit, date } = buildInfo;
  return `MIC Version: none - NMI Version: ${version} - Commit: ${commit} - Date: ${date}\n`;
}

/** @param words the command line without the program. @returns the exit code. */
export async function runCli(words: readonly string[], outside: Outside): Promise<number> {
  const [first] = words;
  const named = first !== undefined && Object.hasOwn(verbs, first) ? first : undefined;
  const name = named ?? 'run';
  const verb = verbs[name];
  if (verb === undefined) throw new Error(`the verb table has no row "${name}"`);
  const rest = named === undefined ? words : words.slice(1);
  const isBoolean = (flag: string) => flag === 'help' || flag === 'version' || verb.isBoolean(flag);
  const [bare] = flagsWithoutValue(rest, (flag) => isKnown(verb, flag) && !isBoolean(flag));
  if (bare !== undefined) return usage(outside, `${bare} has no value; write ${bare}=VALUE`);
  const completed = completeBooleans(rest, isBoolean);
  const parsed = parseWords(completed, verb);
  if (parsed.error !== null) return usage(outside, parsed.error.message);
  const text = flagTexts(parsed.argv);
  if ('version' in text.flags && text.flags['version'] === 'true') {
    outside.stdout(renderVersion());
    return exitCodes.ok;
  }
  if (text.flags['help'] === 'true' || text.flags['h'] !== undefined) {
    outside.stdout(await renderHelp(named, verb));
    return exitCodes.ok;
  }
  return verb.start(text, outside);
}

/** Every value is text. */
function parseWords(
  words: readonly string[],
  { flags }: Verb,
): Pick<Parser.DetailedArguments, 'argv' | 'error'> {
  const alias: Record<string, string> = {};
  // A flag without a value is none, and not an empty text.
  const none: Record<string, undefined> = {};
  for (const [flag, shape] of Object.entries(flags)) {
    none[flag] = undefined;
    if (typeof shape.alias === 'string') alias[flag] = shape.alias;
  }
  const argv = { _: [] };
  try {
    return Parser.detailed([...words], {
      ...{ alias, string: Object.keys(flags), default: none },
      configuration: {
        'camel-case-expansion': false,
        'boolean-negation': false,
        'dot-notation': false,
        'duplicate-arguments-array': false,
        'parse-numbers': false,
        'parse-positional-numbers': false,
        'short-option-groups': false,
      },
    });
  } catch (error) {
    // It stumbles over names such as --constructor.
    return { argv, error: error instanceof Error ? error : new Error('unreadable flags') };
  }
}

/** All that `--help` prints. */
async function renderHelp(named: string | undefined, verb: Verb): Promise<string> {
  const { default: yargs } = await import('yargs');
  const parser = yargs([])
    .scriptName(named === undefined ? 'nmi' : `nmi ${named}`)
    .version(false)
    .help(false)
    .wrap(100);
  for (const [flag, shape] of Object.entries(verb.flags)) {
    const isNumber = findOption(flag)?.type.kind === 'integer';
    parser.option(flag, {
      ...shape,
      default: undefined,
      type: verb.isBoolean(flag) ? 'boolean' : isNumber ? 'number' : 'string',
      ...(shape.default === undefined ? {} : { defaultDescription: String(shape.default) }),
    });
  }
  const about =
    named === undefined
      ? [
          'Microsoft Entra tokens for the pods of this Kubernetes node.',
          '',
          'Verbs:',
          ...verbList(),
          '',
        ]
      : [`${verb.summary[0]?.toUpperCase() ?? ''}${verb.summary.slice(1)}.`, ''];
  const place = verb.positional === undefined ? '' : ` ${verb.positional}`;
  const usageLine = named === undefined ? 'Usage: $0 [verb] [flags]' : `Usage: $0${place} [flags]`;
  const text = await parser.usage(usageLine).getHelp();
  const variables = named === undefined || named === 'run' ? environmentHelp() : '';
  return `${about.join('\n')}\n${text}\n${variables}`;
}

function verbList(): readonly string[] {
  return Object.entries(verbs).map(([name, verb]) => `  ${name.padEnd(10)} ${verb.summary}`);
}

function runFlags(isShown: (option: Option) => boolean): Readonly<Record<string, Options>> {
  const flags: Record<string, Options> = {};
  for (const option of options) {
    if (!hasFlag(option)) continue;
    flags[option.name] = {
      describe: describeOption(option),
      group: `${option.group}:`,
      hidden: !isShown(option),
      ...(option.default === '' ? {} : { default: option.default }),
    };
  }
  // The README lists them.
  for (const { name } of ignoredFlags) flags[name] = { hidden: true };
  return flags;
}

function describeOption(option: Option): string {
  const { help, type, old } = option;
  const allowed = type.kind === 'boolean' ? '' : ` Takes ${type.allowed}.`;
  const alias = old === undefined ? '' : ` Also --${old}.`;
  return `${help}${allowed}${alias} [${environmentName(option)}]`;
}

function environmentHelp(): string {
  const rows = options
    .filter((option) => !hasFlag(option))
    .map((option) => `  ${environmentName(option).padEnd(20)} ${option.help}`);
  return `\nSet by the manifest, environment only:\n${rows.join('\n')}\n`;
}

function isRunBoolean(flag: string): boolean {
  return findOption(flag)?.type.kind === 'boolean' || findIgnored(flag)?.isBoolean === true;
}

function isKnown({ flags }: Verb, flag: string): boolean {
  return Object.hasOwn(flags, flag) || Object.values(flags).some(({ alias }) => alias === flag);
}

function usage(outside: Outside, problem: string): number {
  outside.stderr(`nmi: ${problem}; see nmi --help\n`);
  return exitCodes.usage;
}
