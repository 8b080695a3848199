/**
 * Texts of errors that users read: each names its object, and those that end a program name the
 * remedy. Read from the arguments of `new …Error(…)`; the tests of other files check texts made
 * elsewhere.
 */
import { parseSync, Visitor, type ESTree } from 'rolldown/utils';
import type { SourceFile } from './tree.ts';
import { findBannedWords, findSubjectless } from './language.ts';

export interface ErrorTexts {
  /** Location of the expression. */
  readonly where: string;
  readonly error: string;
  /** Arguments in order; `…` is a value, undefined for an argument that is not a text. */
  readonly texts: readonly (string | undefined)[];
}

/** Checks the argument at `index`; `check` returns what is wrong, undefined for nothing. */
interface Rule {
  readonly index: number;
  readonly check: (text: string) => string | undefined;
}

/** Something to look up or to type: a flag, a variable, a path, a command, an object or a setting. */
const place = /--\w|-[nA]\b|\b[A-Z]{2,}[A-Z_]+\b|\/|…|\bnmi \w|\bkubectl\b|\baz \w|\bKEY=|\bpod\b/;
/** Begins with a verb in the imperative, or with a reference. */
const imperative =
  /^(?:…|[A-Z][a-z]+(?:,|:| )|(?:check|correct|install|mount|name|omit|see|set|run)\b|--)/;

const remedy = (text: string): string | undefined =>
  place.test(text) || /^(?:check|install|mount)\b/i.test(text)
    ? undefined
    : 'names no flag, file, command or object';

const rules: Readonly<Record<string, readonly Rule[]>> = {
  StartError: [{ index: 2, check: remedy }],
  PluginError: [
    {
      index: 2,
      check: (text) => (imperative.test(text) ? undefined : 'is no next step'),
    },
  ],
  RedirectError: [
    {
      index: 1,
      check: (text) =>
        /^(?:…|[a-z]+ \S)/.test(text) ? undefined : 'is no step with a verb and an object',
    },
  ],
};

/** Index of the text that names the problem. */
const problemIndex: Readonly<Record<string, number>> = {
  CodedError: 1,
  EntraNetworkError: 1,
  KubeError: 1,
  LabError: 1,
  PluginError: 1,
  RedirectError: 2,
  StartError: 1,
};

/** Every problem of the texts, with location and text. */
export function checkErrorTexts(errors: readonly ErrorTexts[]): readonly string[] {
  return errors.flatMap(({ where, error, texts }) => {
    const broken = (rules[error] ?? []).flatMap(({ index, check }) => {
      const text = texts[index];
      if (text === undefined) return [];
      const problem = check(text);
      return problem === undefined ? [] : [`${where}: "${text}" ${problem}`];
    });
    const problem = texts[problemIndex[error] ?? -1];
    if (problem === undefined) return broken;
    const said = [{ where, text: problem }];
    return [...broken, ...findBannedWords(said), ...findSubjectless(said), ...findNameless(said)];
  });
}

/** A pronoun is no object: the reader sees only this text. */
function findNameless(
  texts: readonly { readonly where: string; readonly text: string }[],
): string[] {
  return texts
    .filter(({ text }) => /^(?:it|they|something|nothing|nobody|somebody)\b/i.test(text))
    .map(({ where, text }) => `${where}: "${text}" names no object`);
}

/** @throws Error if the file does not parse. */
export function errorTextsOf({ path, text }: SourceFile): readonly ErrorTexts[] {
  const { program, errors } = parseSync(path, text, { lang: 'ts', sourceType: 'module' });
  if (errors[0] !== undefined) throw new Error(`${path}: ${errors[0].message}`);
  const found: ErrorTexts[] = [];
  new Visitor({
    NewExpression({ callee, arguments: values, start }) {
      if (callee.type !== 'Identifier' || !callee.name.endsWith('Error')) return;
      const line = text.slice(0, start).split('\n').length;
      found.push({ where: `${path}:${line}`, error: callee.name, texts: values.map(textOf) });
    },
  }).visit(program);
  return found;
}

/** Undefined for a value that is not written as a text. */
function textOf(node: ESTree.Argument | ESTree.Expression): string | undefined {
  if (node.type === 'Literal') return typeof node.value === 'string' ? node.value : undefined;
  if (node.type === 'TemplateLiteral') {
    return node.quasis.map(({ value }) => value.cooked ?? '').join('…');
  }
  if (node.type !== 'BinaryExpression') return undefined;
  const sides = [node.left, node.right].map((side) =>
    side.type === 'PrivateIdentifier' ? undefined : textOf(side),
  );
  return sides.every((side) => side === undefined)
    ? undefined
    : sides.map((side) => side ?? '…').join('');
}
