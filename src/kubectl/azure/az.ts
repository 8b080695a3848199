/**
 * Command lines of Azure's `az`, to copy. The plugin itself only reads from Azure, as the user who is
 * logged in, and changes nothing there.
 */
import { shellWord, toLine } from '../base/output.ts';
import { exitCodes, type Io, type ProgramRun } from '../base/io.ts';
import { failedError, PluginError } from '../base/plugin-error.ts';

/** Words after `az`, made by `azLine`. */
export type AzLine = readonly string[];

/**
 * az reads `@file` as the content of a file, `[system]` as the identity of the machine itself, and a
 * leading hyphen as a flag. Values come from objects that others write, so such a value is refused.
 * @throws PluginError
 */
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

/** Its output as JSON, whatever format the user has configured. @throws PluginError */
export async function readAz({ run }: Io, line: AzLine): Promise<unknown> {
  const done = await run('az', [...line, '--output', 'json']);
  if (done.code !== 0) throw failureOf(done, line);
  try {
    const value: unknown = JSON.parse(done.stdout);
    return value;
  } catch {
    throw failedError('az printed no JSON', `The line was: ${renderAz(line)}`);
  }
}

function failureOf({ code, stderr }: ProgramRun, line: AzLine): PluginError {
  if (code === undefined) {
    return new PluginError(
      exitCodes.unavailable,
      'the program az is not on the PATH',
      `Install the Azure CLI, or have this run elsewhere: ${renderAz(line)}`,
    );
  }
  const lines = stderr.split('\n').filter((each) => each.trim() !== '');
  const said =
    lines.find((each) => each.startsWith('ERROR:')) ?? lines.at(-1) ?? 'az gave no reason';
  const detail = said.replace(/^ERROR: /, '').slice(0, 500);
  if (/az login|AADSTS(?:70043|50173|700082)/.test(stderr)) {
    return new PluginError(exitCodes.noRight, `az is not logged in: ${detail}`, 'Run: az login');
  }
  if (/AuthorizationFailed|does not have authorization/.test(stderr)) {
    return new PluginError(
      exitCodes.noRight,
      `az has no right: ${detail}`,
      `Have somebody with the right run: ${renderAz(line)}`,
    );
  }
  return failedError(`az failed: ${detail}`, `The line was: ${renderAz(line)}`);
}
