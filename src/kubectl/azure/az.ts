/** Command lines of Azure's `az`, to copy. The plugin itself runs none. */
import { shellWord, toLine } from '../base/output.ts';
import { failedError } from '../base/plugin-error.ts';

export type AzLine = readonly string[];

/** az would read `@file`, `[system]` or a hyphen as more than a text. @throws PluginError */
export function azLine(
  command: readonly string[],
  flags: Readonly<Record<string, string | readonly string[]>>,
): AzLine {
  const words = Object.entries(flags).flatMap(([name, value]) => [
    `--${name}`,
    ...[value].flat().map((each) => checkValue(name, each)),
  ]);
  return [...command, ...words];
}

function checkValue(flag: string, value: string): string {
  if (/^[^-@[\s][^\p{Cc}\u2028\u2029]*$/u.test(value)) return value;
  throw failedError(
    `az would not take "${toLine(value)}" as the value of --${flag}`,
    'Correct the field of the object, or the flag, that it comes from.',
  );
}

export function renderAz(line: AzLine): string {
  return ['az', ...line].map(shellWord).join(' ');
}
