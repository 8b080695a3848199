import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { scenarios } from '../../lab/scenarios/all.ts';
import { verbs } from '../../src/cli/verbs.ts';
import { answerCodes } from '../../src/nmi/diagnosis/answer-codes.ts';
import { options } from '../../src/nmi/config/options.ts';
import { newMetrics, oldMetrics } from '../../src/nmi/telemetry/metric-table.ts';
import {
  commentsOf,
  findBannedInComments,
  findBannedWords,
  findSubjectless,
  logMessagesOf,
  type Text,
} from './language.ts';
import { repositoryFiles } from './tree.ts';

const files = repositoryFiles();

/** Prose of pages, without the output of programs. */
function proseOf({ path, text }: { readonly path: string; readonly text: string }): Text[] {
  const prose = text.replaceAll(/^```.*?^```/gms, '').replaceAll(/`[^`\n]*`/g, '');
  return prose.split('\n').map((line, index) => ({ where: `${path}:${index + 1}`, text: line }));
}

const pages = files.filter(
  ({ path }) =>
    /^(?:README|CONTRIBUTING|SECURITY|CHANGELOG)\.md$/.test(path) || /^docs\/.*\.md$/.test(path),
);
const messages = files
  .filter(({ path }) => /^src\/.*\.ts$/.test(path))
  .flatMap(({ path, text }) => logMessagesOf(path, text));
const comments = files
  .filter(({ path }) => /\.(?:ts|c|h)$/.test(path) && !path.startsWith('test/conventions/'))
  .flatMap(({ path, text }) => commentsOf(path, text));
const helpTexts: readonly Text[] = [
  ...options.map(({ name, help }) => ({ where: `help of --${name}`, text: help })),
  ...Object.entries(verbs).flatMap(([name, { summary, actions = {} }]) =>
    [summary, ...Object.values(actions)].map((text) => ({ where: `help of ${name}`, text })),
  ),
  ...Object.entries({ ...oldMetrics, ...newMetrics }).map(([name, { help }]) => ({
    where: name,
    text: help,
  })),
  ...Object.entries(answerCodes).flatMap(([reason, { means, check, fix }]) =>
    [means, check, fix].map((text) => ({ where: `reason ${reason}`, text })),
  ),
  ...scenarios.map(({ name, title }) => ({ where: `scenario ${name}`, text: title })),
];

describe('the language', () => {
  it('of pages has no private words', () => {
    assert.ok(pages.length > 20);
    assert.deepEqual(findBannedWords(pages.flatMap(proseOf)), []);
  });

  it('of help, metrics, reasons and scenarios has no private words', () => {
    assert.ok(helpTexts.length > 150);
    assert.deepEqual(findBannedWords(helpTexts), []);
  });

  it('of log messages has no private words, and each names its subject', () => {
    assert.ok(messages.length > 25, `${messages.length} messages found`);
    assert.deepEqual(findBannedWords(messages), []);
    assert.deepEqual(findSubjectless(messages), []);
  });

  it('of comments has no private words', () => {
    assert.ok(comments.length > 8_000, `${comments.length} lines found`);
    assert.deepEqual(findBannedInComments(comments), []);
  });

  it('of a planted bad comment is reported', () => {
    const source = `/** Whoever asks is told. */
const a = 1; // It stands before b.
const b = 'http://whoever'; /* for ever */
/*
 * Pods that can be told apart are no strangers.
 */`;
    assert.deepEqual(findBannedInComments(commentsOf('src/a.ts', source)), [
      'src/a.ts:1: "Whoever"; write: a user who, any process that',
      'src/a.ts:1: "is told"; write: gets, is logged, is notified',
      'src/a.ts:2: "stands before"; write: precedes, comes before',
      'src/a.ts:3: "for ever"; write: forever, without limit',
      'src/a.ts:5: "strangers"; write: another process, an unbound pod',
    ]);
  });

  it('of a planted bad message is reported', () => {
    const source = `log.warn({ object }, 'is gone, and the tokens with it');
      this.#log.error({ err: text(error) }, 'redirect was mended');`;
    const planted = logMessagesOf('src/a.ts', source);
    assert.equal(planted.length, 2);
    assert.deepEqual(findSubjectless(planted), [
      'src/a.ts: "is gone, and the tokens with it" has no subject',
    ]);
    assert.deepEqual(findBannedWords(planted), [
      'src/a.ts: "is gone"; write: deleted',
      'src/a.ts: "mended"; write: repair, fix',
    ]);
  });
});
