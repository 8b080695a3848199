/** Names, marks and uses that are forbidden in the code of this repository. */
import { basename } from 'node:path';
import { readSyntax, type MemberUse } from './syntax.ts';
import { typescriptIn, type SourceFile } from './tree.ts';

const codeRoots = ['src', 'lab', 'test', 'scripts', 'bench', 'docs'] as const;

/** File names without a meaning. */
const emptyNames = new Set(['util', 'utils', 'common', 'helper', 'helpers', 'misc']);

const testFunctions = new Set(['describe', 'it', 'test', 'suite']);

/** Files other than the entries: what each may touch of the process, and why. */
const processUsers: readonly {
  readonly path: string;
  readonly property: string;
  readonly reason: string;
}[] = [
  {
    path: 'lab/fabric/fabric.ts',
    property: 'once',
    reason: 'takes namespaces and links away when the process exits without having closed the lab',
  },
];

/** Each owns its process. */
const mains: ReadonlySet<string> = new Set(['src/main.ts', 'src/kubectl/main.ts', 'lab/main.ts']);

const ownedByMain = new Set(['abort', 'argv', 'exit', 'exitCode', 'reallyExit']);
const subscriptions = new Set(['addListener', 'on', 'once', 'prependListener']);
const ownedEvents = /^(?:SIG|exit$|beforeExit$|uncaughtException|unhandledRejection$|warning$)/;

/** Code files that are not kebab-case or have a meaningless name. */
export function checkNames(files: readonly SourceFile[]): readonly string[] {
  const kebab = /^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+)*\.ts$/;
  return typescriptIn(files, ...codeRoots).flatMap(({ path }) => {
    const name = basename(path);
    if (!kebab.test(name)) return [`${path} is not kebab-case`];
    const empty = name.split(/[.-]/).find((part) => emptyNames.has(part));
    return empty === undefined ? [] : [`${path} is called after nothing: ${empty}`];
  });
}

/** Default exports. */
export function checkExports(files: readonly SourceFile[]): readonly string[] {
  return typescriptIn(files, ...codeRoots).flatMap((file) =>
    readSyntax(file).defaultExports.map((line) => `${file.path}:${line} has a default export`),
  );
}

/**
 * Regular expressions of the product that take quadratic time in the length of the text, or worse:
 * one that may begin anywhere and runs to the end (`/\\/+$/`), or a repetition of repetitions.
 * Users of a namespace write those texts.
 */
export function checkPatterns(files: readonly SourceFile[]): readonly string[] {
  return typescriptIn(files, 'src').flatMap((file) =>
    readSyntax(file)
      .patterns.filter(({ pattern }) => isSlow(pattern))
      .map(({ pattern, line }) => `${file.path}:${line} backtracks: /${pattern}/`),
  );
}

function isSlow(pattern: string): boolean {
  // Character classes repeat nothing by themselves.
  const bare = pattern.replaceAll(/\\./g, 'x').replaceAll(/\[[^\]]*\]/g, 'x');
  const runsToTheEnd = !/^(?:\^|\(\?<)/.test(bare) && /[+*]\)?\$$/.test(bare);
  return runsToTheEnd || /\((?:\?:)?x[+*]\)[+*]/.test(bare);
}

/** Tests that would keep others from running. */
export function checkOnly(files: readonly SourceFile[]): readonly string[] {
  return typescriptIn(files, 'test', 'bench').flatMap((file) => {
    const { members, onlyOptions } = readSyntax(file);
    const calls = members.filter(
      ({ object, property }) => testFunctions.has(object) && property === 'only',
    );
    return [...calls.map(({ line }) => line), ...onlyOptions].map(
      (line) => `${file.path}:${line} runs only one test`,
    );
  });
}

/** Marks of unfinished work, in every file except prose. */
export function checkMarks(files: readonly SourceFile[]): readonly string[] {
  // Brackets, otherwise this line would be found.
  const mark = /\b(?:TO[D]O|FIX[M]E)\b/;
  return files
    .filter(({ path }) => !path.endsWith('.md'))
    .flatMap(({ path, text }) =>
      text
        .split('\n')
        .flatMap((line, index) => (mark.test(line) ? [`${path}:${index + 1} is unfinished`] : [])),
    );
}

/** Arguments, exit and signals of the process, used outside the files that own it. */
export function checkProcess(files: readonly SourceFile[]): readonly string[] {
  return typescriptIn(files, 'src', 'lab')
    .filter(({ path }) => !mains.has(path))
    .flatMap((file) => {
      const { imports, members } = readSyntax(file);
      const touched = members
        .filter(isOwnedByMain)
        .filter(({ property }) => !isAllowed(file.path, property))
        .map(({ property, line }) => `${file.path}:${line} touches process.${property}`);
      const imported = imports
        .filter(({ specifier }) => /^(?:node:)?process$/.test(specifier))
        .map(({ line }) => `${file.path}:${line} imports node:process; use the global`);
      return [...touched, ...imported];
    });
}

/** An argument that is not plain text counts as a signal. Messages of a parent are not signals. */
function isOwnedByMain({ object, property, argument = 'SIG' }: MemberUse): boolean {
  if (object !== 'process') return false;
  return ownedByMain.has(property) || (subscriptions.has(property) && ownedEvents.test(argument));
}

function isAllowed(path: string, property: string): boolean {
  return processUsers.some((user) => user.path === path && user.property === property);
}
