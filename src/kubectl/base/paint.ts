/** Colors for a terminal: the severities, the verdict and the titles of a report. Pure. */
import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];

const severities: Readonly<Record<string, Style>> = {
  ok: 'green',
  error: 'red',
  warning: 'yellow',
  info: 'cyan',
};

const verdicts: Readonly<Record<string, Style>> = { GRANTED: 'green', REFUSED: 'red' };

/** JSON and YAML of the plugin have no such lines. */
export function paint(text: string): string {
  return text
    .replaceAll(
      /(?<=^(?: {2})?)(?:error|warning|info)(?= +[A-Z][^\n]*: [a-z0-9_]+$)|^(?:ok|error|warning)(?= {2,}\S)|^(?:error|warning):/gm,
      (word) => style(severities[word.replace(':', '')] ?? 'red', word),
    )
    .replaceAll(/(?<=^pod \S+: )[A-Z][A-Z ]*[A-Z](?=[,:.]|$)/gm, (verdict) =>
      style(verdicts[verdict] ?? 'yellow', verdict),
    )
    .replaceAll(/^[A-Z][A-Za-z ]+:$/gm, (title) => style('bold', title));
}

/** Whether there is a terminal is decided by who prints. */
function style(format: Style, text: string): string {
  return styleText(format, text, { validateStream: false });
}
