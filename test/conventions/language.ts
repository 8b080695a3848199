/**
 * Words of a private idiom, and the form of messages. A machine reports, returns and logs; it does
 * not tell, say or believe. A message has a subject that can be searched for.
 */

/** Each with its replacement. */
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

/** Comments are longer than messages, so fewer words are certain to be wrong in them. */
const bannedInComments: readonly (readonly [word: RegExp, instead: string])[] = [
  [/\bmend(?:s|ed|ing)?\b/i, 'repair, fix'],
  [/\bstrangers?\b/i, 'another process, an unbound pod'],
  [/\bwhoever\b/i, 'a user who, any process that'],
  [/\b(?:is|was|are|were|been|be) told\b(?! apart)/i, 'gets, is logged, is notified'],
  [/\btells\b/i, 'reports, shows, contains'],
  [/\bbelieve[sd]?\b/i, 'trusts, uses'],
  [/\bstands before\b/i, 'precedes, comes before'],
  [/\bas it stands\b/i, 'unchanged'],
  [/\bfor ever\b/i, 'forever, without limit'],
];

export interface Text {
  readonly where: string;
  readonly text: string;
}

/** The banned words of texts, with their replacements. */
export function findBannedWords(texts: readonly Text[]): readonly string[] {
  return findWords(texts, bannedWords);
}

/** The banned words of comments, with their replacements. */
export function findBannedInComments(comments: readonly Text[]): readonly string[] {
  return findWords(comments, bannedInComments);
}

function findWords(texts: readonly Text[], words: typeof bannedWords): readonly string[] {
  return texts.flatMap(({ where, text }) =>
    words.flatMap(([word, instead]) => {
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

/** The messages of `log.info({…}, '…')` and similar calls. */
export function logMessagesOf(where: string, source: string): readonly Text[] {
  const calls = source.matchAll(
    /\.(?:info|warn|error|debug)\(\s*(?:\{[^;]*?\}|\w+(?:\([^;]*?\))?),\s*(['`])([^'`]+)\1,?\s*\)/g,
  );
  return [...calls].map(([, , text = '']) => ({ where, text }));
}

/**
 * The comments of TypeScript and C: whole lines, and comments behind code, each line separately. A
 * `//` inside a text has no blank before it, or none behind it.
 */
export function commentsOf(path: string, source: string): readonly Text[] {
  return source.split('\n').flatMap((line, index) => {
    const comment = /^\s*(?:\*|\/\*)(.*)$|(?:^|\s)\/\/ (.*)$|\s\/\*(.*)\*\//.exec(line);
    if (comment === null) return [];
    const text = comment.slice(1).find((part) => part !== undefined) ?? '';
    return [{ where: `${path}:${index + 1}`, text }];
  });
}
