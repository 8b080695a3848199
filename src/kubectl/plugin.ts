/** Parses the command line of `kubectl nmi` with yargs and runs its verb. */
import yargs from 'yargs';
import { toLine } from './base/output.ts';
import { exitCodes, type Io } from './base/io.ts';
import { PluginError, type ExitCode } from './base/plugin-error.ts';
import { Kubectl, passedFlags, passedOf } from './transport/kubectl.ts';
import { addAnalyze } from './verbs/analyze.ts';
import { addDoctor } from './verbs/doctor.ts';
import { addGrants } from './verbs/grants.ts';
import { addIdentity } from './verbs/identity/identity.ts';
import { addException } from './verbs/exception.ts';
import { addLogs } from './verbs/logs.ts';
import { addMigrate } from './verbs/migrate.ts';
import { addSysdump } from './verbs/sysdump.ts';
import { addTest } from './verbs/test.ts';
import { addReasons } from './verbs/reasons.ts';
import { addVersion } from './verbs/version.ts';
import { addExplain } from './verbs/explain.ts';
import { refuseLostValues } from './verbs/flag-values.ts';
import { complete } from './completion.ts';
import { toUsageError } from './usage.ts';
import type { AddVerb, Parser, Start } from './verbs/verb.ts';

const addVerbs: readonly AddVerb[] = [
  addExplain,
  addLogs,
  addAnalyze,
  addDoctor,
  addIdentity,
  addException,
  addGrants,
  addMigrate,
  addTest,
  addSysdump,
  addReasons,
  addVersion,
];

/** @returns the exit code. */
export async function runPlugin(words: readonly string[], io: Io): Promise<ExitCode> {
  let code: ExitCode = exitCodes.ok;
  const start: Start = async (flags, work) => {
    code = await work({
      io,
      kubectl: new Kubectl(io, passedOf({ ...flags })),
      agentNamespace: flags['agent-namespace'],
      warn: (text) => io.stderr(`warning: ${toLine(text)}\n`),
      namespace: flags.namespace,
      // No mutation: the verbs that have no such flag do not read it.
      allNamespaces: flags['all-namespaces'] ?? false,
      output: flags.output ?? 'text',
      failOn: flags['fail-on'] ?? 'error',
    });
  };
  try {
    if (words[0] === '__complete') {
      io.stdout(await complete(words.slice(1), io, completeByYargs));
      return exitCodes.ok;
    }
    const output = await parse(
      refuseLostValues(words, createParser(start)),
      joinStandardInput(words),
    );
    if (output !== '') io.stdout(`${output}\n`);
    return code;
  } catch (caught) {
    const error =
      caught instanceof UsageProblem
        ? toUsageError(caught.message, words, await caught.help)
        : caught;
    if (!(error instanceof PluginError)) throw error;
    if (io.stop.aborted) {
      io.stderr('error: interrupted\n');
      return exitCodes.findings;
    }
    io.stderr(`error: ${toLine(error.message)}\n${toLine(error.nextStep)}\n`);
    return error.exitCode;
  }
}

/** For `analyze -f -`, the only verb with that flag: yargs would take the dash for a flag. */
function joinStandardInput(words: readonly string[]): string[] {
  const isFile = (at: number) => words[at] === '-f' || words[at] === '--filename';
  return words.flatMap((word, at) => {
    if (word === '-' && isFile(at - 1)) return [];
    return isFile(at) && words[at + 1] === '-' ? [`${word}=-`] : [word];
  });
}

async function parse(parser: Parser, words: readonly string[]): Promise<string> {
  let text = '';
  await parser.parseAsync([...words], {}, (_error, _argv, output) => {
    text = output;
  });
  return text;
}

/** This flag of yargs is the only way to its completion behind a verb. */
function completeByYargs(words: readonly string[]): Promise<string> {
  const doNothing: Start = () => Promise.resolve();
  return parse(createParser(doNothing), ['--get-yargs-completions', 'nmi', ...words]);
}

class UsageProblem extends Error {
  /** Of the verb that the words begin with, or of all verbs. */
  readonly help: Promise<string>;

  constructor(message: string, help: Promise<string>) {
    super(message);
    this.help = help;
  }
}

function createParser(start: Start) {
  let parser: Parser = yargs([])
    .scriptName('kubectl nmi')
    .usage(
      'Usage: $0 VERB [flags]\n\nEntra Pod Identity: what pods get and why, and the objects behind it.',
    )
    .option('namespace', {
      alias: 'n',
      type: 'string',
      describe: 'Namespace; that of the kubectl context by default.',
    })
    .option('agent-namespace', {
      type: 'string',
      default: 'kube-system',
      requiresArg: true,
      describe: 'Namespace of the agents, and no other.',
    })
    // A flag of kubectl that is negated or has a dot in it would be lost.
    .parserConfiguration({ 'boolean-negation': false, 'dot-notation': false })
    .detectLocale(false)
    .version(false)
    .help('help', 'Show help.')
    .wrap(100)
    .strict()
    .demandCommand(1, 'No verb is given.')
    // kubectl runs `kubectl_complete-nmi`; the script of yargs only supports one-word programs.
    .completion('completion', false)
    .epilogue(
      'Exit codes: 0 fine, 1 errors found (see --fail-on) or failed, 2 usage, 69 out of reach, 74 output lost, 77 no right.',
    )
    .fail((message, error: Error | undefined) => {
      // A missing value is an error of yargs itself; any other error is of a verb.
      if (error !== undefined && error.name !== 'YError') throw error;
      throw new UsageProblem(message, parser.getHelp());
    })
    .exitProcess(false);
  for (const name of passedFlags) {
    parser.option(name, {
      type: 'string',
      describe: 'The same as kubectl’s flag.',
      group: 'Connection:',
    });
  }
  for (const add of addVerbs) parser = add(parser, start);
  return parser;
}
