/** `kubectl nmi version`: of the plugin. */
import { buildInfo } from '../../nmi/base/build-info.ts';
import { exitCodes } from '../base/io.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { print, type VerbContext } from './context.ts';
import { reportFlags, type AddVerb } from './verb.ts';

export const addVersion: AddVerb = (parser, start) =>
  parser.command(
    'version',
    'version of the plugin',
    (verb) => verb.options(reportFlags).example('$0 version', ''),
    (flags) => start(flags, (context) => Promise.resolve(printVersion(context))),
  );

function printVersion(context: VerbContext): ExitCode {
  const { version, commit, date } = buildInfo;
  print(context, { kind: 'Version', version, commit, date }, () => [
    `${version} (commit ${commit}, ${date})`,
  ]);
  return exitCodes.ok;
}
