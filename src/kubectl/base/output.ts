/** A report as text, JSON or YAML. Control characters in objects are escaped, for the terminal. */
import { Document, Scalar, visit } from 'yaml';
import { escapeUnit, renderJson } from '../../base/printable.ts';

/** Control characters beyond ASCII: C1 controls, line separators and changes of text direction. */
const moving = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/u;

export const outputFormats = ['text', 'json', 'yaml'] as const;
export type OutputFormat = (typeof outputFormats)[number];

/** @param lines the report for a person; `value` is the same for programs. */
export function renderReport(
  format: OutputFormat,
  value: object,
  lines: () => readonly string[],
): string {
  switch (format) {
    case 'json':
      return renderJson(value);
    case 'yaml':
      return renderYaml([value]);
    case 'text':
      return `${lines().map(toLine).join('\n')}\n`;
  }
}

export function renderYaml(documents: readonly object[]): string {
  return documents.map(renderDocument).join('---\n');
}

function renderDocument(value: object): string {
  // Copies shared sub-objects, which would otherwise become anchors. kubectl reads YAML 1.1, where `yes` is true.
  const document = new Document(value, { aliasDuplicateObjects: false, version: '1.1' });
  visit(document, {
    Scalar: (_, scalar) => {
      const { value: text } = scalar;
      // The library escapes no control character above 0x1f, and YAML escapes need double quotes.
      if (typeof text === 'string' && moving.test(text)) scalar.type = Scalar.QUOTE_DOUBLE;
    },
  });
  return document.toString({ directives: false }).replaceAll(new RegExp(moving, 'gu'), escapeUnit);
}

/** A word of a command line, quoted for a shell if necessary. */
export function shellWord(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Text of an object on one line: a line break in it would start a new line, in YAML too. */
export function toLine(text: string): string {
  return text.replaceAll(/\p{Cc}|[\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, '?');
}
