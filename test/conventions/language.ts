/**
 * Words of a private idiom, and the shape of messages. A machine reports, returns and logs; it does not tell, say or
 * believe. A message has a subject that can be searched for.
 */

/** Each with what to write instead. */
const bannedWords: readonly (readonly [word: RegExp, instead: string])[] = [
  [/\bmend(?:s|ed|ing)?\b/i, 'repair, fix'],
  [/\bstrangers?\b/i, 'another process, an unbound pod'],
  [/\bwhoever\b/i, 'a user who, anyone who'],
  [/\b(?:is|was|are|were|been) told\b/i, 'gets, is logged'],
  [/\btells?\b/i, 'reports, shows'],
  [/\bbelieve[sd]?\b/i, 'trusts, uses'],
  [/\bis to be had\b/i, 'is available'],
  [/\bas it stands\b/i, 'unchanged'],
  [/\bfor ever\b/i, 'forever, without limit'],
  [/\b(?:is|are) gone\b/i, 'deleted'],
];

export interface Text {
  readonly where: string;
  readonly text: string;
}

/** The banned words of texts, with what to write instead. */
export function findBannedWords(texts: readonly Text[]): readonly string[] {
  return texts.flatMap(({ where, text }) =>
    bannedWords.flatMap(([word, instead]) => {
      const found = word.exec(text)?.[0];
      return found === undefined ? [] : [`${where}: "${found}"; write: ${instead}`];
    }),
  );
}

/** Log messages without a subject: they begin with a verb or a relative word. */
export function findSubjectless(messages: readonly Text[]): readonly string[] {
  return messages
    .filter(({ text }) => /^(?:is|are|was|were|has|have|had|what|who|not|no longer)\b/i.test(text))
    .map(({ where, text }) => `${where}: "${text}" has no subject`);
}

/** The messages of `log.info({…}, '…')` and its like. */
export function logMessagesOf(where: string, source: string): readonly Text[] {
  const calls = source.matchAll(
    /\.(?:info|warn|error|debug)\(\s*(?:\{[^;]*?\}|\w+(?:\([^;]*?\))?),\s*(['`])([^'`]+)\1,?\s*\)/g,
  );
  return [...calls].map(([, , text = '']) => ({ where, text }));
}
