/** Errors of yargs in our own words, with the flag or verb that was probably meant. */
import { nearest } from '../base/nearest.ts';
import { usageError, type PluginError } from './base/plugin-error.ts';

/** @param help the help of the verb that the words begin with, or of all verbs. */
export function toUsageError(message: string, words: readonly string[], help: string): PluginError {
  // As `kubectl nmi identity assign`.
  const [verb = 'kubectl nmi'] =
    /kubectl nmi(?: [a-z][a-z-]*)*/.exec(help.split('\n')[0] ?? '') ?? [];
  return usageError(describe(message, words, verb, help), `See ${verb} --help`);
}

function describe(message: string, words: readonly string[], verb: string, help: string): string {
  const name = verb.replace(/^kubectl nmi ?/, '');
  const [, list] = /^Unknown arguments?: (.+)$/.exec(message) ?? [];
  if (list !== undefined) return describeUnknown(list.split(', '), words, verb, help);
  if (message.startsWith('Not enough non-option arguments')) {
    return `${name} needs ${(help.split('\n')[0]?.match(/<[^>]+>/g) ?? []).join(' ')}`;
  }
  const [, missing] = /^Missing required argument: (\S+)$/.exec(message) ?? [];
  if (missing !== undefined) return `${name} needs ${toFlag(missing)}`;
  const [, argument, given = '', choices = ''] =
    /Argument: ([\w-]+), Given: "(.*)", Choices: (.+)/.exec(message) ?? [];
  if (argument !== undefined) return describeChoice(argument, given, choices);
  const [, empty] = /^Not enough arguments following: (.+)$/.exec(message) ?? [];
  if (empty !== undefined) return `${toFlag(empty)} has no value`;
  return message;
}

function toFlag(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

function withHint(problem: string, meant: string | undefined): string {
  return meant === undefined ? problem : `${problem}; did you mean ${meant}?`;
}

/** @param unknown flags without their hyphens, or words; yargs adds flags in camel case. */
function describeUnknown(
  unknown: readonly string[],
  words: readonly string[],
  verb: string,
  help: string,
): string {
  const typed = words.map((word) => word.split('=')[0]);
  const flag = unknown.map(toFlag).find((each) => typed.includes(each));
  if (flag === undefined) {
    const [word = ''] = unknown;
    if (!/^Commands:$/m.test(help)) return `the word ${word} has no meaning here`;
    const verbs = [...help.matchAll(new RegExp(`^ +${verb} ([a-z-]+)`, 'gm'))].map(
      ([, name = '']) => name,
    );
    return withHint(`unknown verb ${word}`, nearest(word, verbs));
  }
  const known = [...help.matchAll(/(?<=^|\s)--?[a-zA-Z][\w-]*/g)].map(([each]) => each);
  return withHint(`unknown flag ${flag}`, nearest(flag, known));
}

/** Only flags have them. @param choices as yargs prints them: each in quotes. */
function describeChoice(argument: string, given: string, choices: string): string {
  const known = [...choices.matchAll(/"([^"]*)"/g)].map(([, each = '']) => each);
  const list = new Intl.ListFormat('en-GB', { type: 'disjunction' }).format(known);
  const problem = `--${argument} is "${given}", and takes ${list}`;
  return withHint(problem, nearest(given, known));
}
