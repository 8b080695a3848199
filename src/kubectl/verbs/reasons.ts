/** `kubectl nmi reasons`: the runbook in the terminal. */
import { nearest } from '../../base/nearest.ts';
import { renderTable } from '../../base/printable.ts';
import { exitCodes } from '../base/io.ts';
import { usageError, type ExitCode, type PluginError } from '../base/plugin-error.ts';
import { allCodes, isCode, rowOf } from '../../nmi/diagnosis/codes.ts';
import { eventReasonOf } from '../../nmi/kube/events/event.ts';
import { print, type VerbContext } from './context.ts';
import { reportFlags, type AddVerb } from './verb.ts';

export const addReasons: AddVerb = (parser, start) =>
  parser.command(
    'reasons [code]',
    'print the runbook of a reason or finding: meaning, check and fix',
    (verb) =>
      verb
        .positional('code', { type: 'string' })
        .options(reportFlags)
        .example('$0 reasons binding_missing', 'one of them')
        .example('$0 reasons BindingMissing', 'the same, as kubectl describe writes it')
        .example('$0 reasons', 'all of them'),
    (flags) => start(flags, (context) => Promise.resolve(reasons(context, codeOf(flags.code)))),
  );

/** From the code itself, or from the reason of an Event or a condition. */
function codeOf(word: string | undefined): string | undefined {
  return allCodes.find((code) => eventReasonOf(code) === word) ?? word;
}

function reasons(context: VerbContext, code: string | undefined): ExitCode {
  const pages = (code === undefined ? allCodes : [code]).map((each) => {
    if (!isCode(each)) throw unknownCode(each);
    const { status, means, check, fix } = rowOf(each);
    return { code: each, status, means, check, fix };
  });
  print(context, code === undefined ? { kind: 'Runbook', pages } : (pages[0] ?? {}), () => {
    if (code === undefined) {
      const rows = pages.map((page) => [page.code, String(page.status ?? ''), page.means]);
      return renderTable(['CODE', 'STATUS', 'MEANING'], rows);
    }
    return pages.flatMap(({ means, check, fix, status }) => [
      status === undefined ? code : `${code} (HTTP ${status})`,
      means,
      ...(check === undefined ? [] : [`Check: ${check}`]),
      `Fix: ${fix}`,
    ]);
  });
  return exitCodes.ok;
}

function unknownCode(code: string): PluginError {
  const near = nearest(code, [...allCodes, ...allCodes.map(eventReasonOf)]);
  return usageError(
    `no reason or finding has the code ${code}`,
    near === undefined ? 'List them: kubectl nmi reasons' : `Did you mean ${near}?`,
  );
}
