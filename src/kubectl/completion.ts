/** What kubectl asks `kubectl_complete-nmi`: the words that may stand at the end of a command line. */
import { Parser } from 'yargs/helpers';
import { stringAt } from '../base/json-value.ts';
import { nameOf } from './base/object.ts';
import type { Io } from './base/io.ts';
import { identityResources } from './cluster/resources.ts';
import { allCodes } from '../nmi/diagnosis/codes.ts';
import { Kubectl, passedFlags, passedOf } from './transport/kubectl.ts';

/** A shell waits for the answer. */
const patience = '3s';

const flagKinds: Readonly<Record<string, string>> = {
  '-n': 'namespaces',
  '--namespace': 'namespaces',
  '--agent-namespace': 'namespaces',
  '--pod': 'pods',
};

const { identities, exceptions } = identityResources;
const nameKinds: Readonly<Record<string, string>> = {
  'explain pod': 'pods',
  'logs pod': 'pods',
  'identity assign': identities,
  'identity federate': identities,
  'identity delete': identities,
  'exception delete': exceptions,
};

const fixedWords: Readonly<Record<string, readonly string[]>> = {
  explain: ['pod', 'ip'],
  logs: ['pod', 'ip'],
  reasons: allCodes,
};

const valueFlags = [
  ...passedFlags,
  ...['namespace', 'agent-namespace', 'pod', 'output', 'client-id', 'resource'],
];

const fileFlags: ReadonlySet<string> = new Set(['-f', '--filename', '--kubeconfig']);

/** Directives of kubectl's shell functions. */
const [asFiles, asWords] = [':0', ':4'] as const;

/** @returns words, one a line, then a directive. */
export async function complete(
  words: readonly string[],
  io: Io,
  askYargs: (words: readonly string[]) => Promise<string>,
): Promise<string> {
  const [before, typed] = splitLast(words);
  const flag = before.at(-1) ?? '';
  if (fileFlags.has(flag)) return `${asFiles}\n`;
  const known =
    (typed.startsWith('-') ? undefined : await findValues(before, io)) ??
    (await askYargs([...before, typed]))
      .split('\n')
      // yargs adds a description for some shells.
      .map((line) => line.split(/[:\t]/)[0] ?? '')
      .filter((word) => word.startsWith('-') === typed.startsWith('-') && !/^--.$/.test(word));
  const found = [...new Set(known)].filter((word) => word !== '' && word.startsWith(typed));
  return [...found, asWords, ''].join('\n');
}

/** `--flag=value` is completed as `--flag value`: the shell keeps what is before the sign. */
function splitLast(words: readonly string[]): [before: readonly string[], typed: string] {
  const last = words.at(-1) ?? '';
  const [, flag, value = ''] = /^(--[a-z-]+)=(.*)$/s.exec(last) ?? [];
  return flag === undefined ? [words.slice(0, -1), last] : [[...words.slice(0, -1), flag], value];
}

/** Undefined where yargs knows the words. */
async function findValues(
  before: readonly string[],
  io: Io,
): Promise<readonly string[] | undefined> {
  const flag = before.at(-1) ?? '';
  const flags = Parser([...before], {
    string: valueFlags,
    alias: { namespace: 'n', output: 'o' },
    configuration: { 'unknown-options-as-args': true, 'parse-positional-numbers': false },
  });
  const path = flags._.filter((word) => !String(word).startsWith('-')).join(' ');
  const kind = flagKinds[flag] ?? nameKinds[path];
  const kubectl = new Kubectl(io, { ...passedOf(flags), 'request-timeout': patience });
  if (flag === '--context') {
    const run = await kubectl.run(['config', 'get-contexts', '--output=name']);
    return run.code === 0 ? run.stdout.split('\n') : [];
  }
  if (kind === undefined) return flag.startsWith('-') ? undefined : fixedWords[path];
  try {
    const own = stringAt(flags, 'namespace') || (await kubectl.currentNamespace());
    const read = await kubectl.list(kind, kind === 'namespaces' ? undefined : own);
    return read.ok ? read.value.map(nameOf) : [];
  } catch {
    // An error would be printed into the command line.
    return [];
  }
}
