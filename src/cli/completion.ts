/** Completion of verbs, actions and flags in bash: the script runs this program at each TAB. */
import { verbs } from './verbs.ts';

/** The first word of a command line that requests completions; the words so far follow. */
export const completionWord = '--complete';

export const completionScript = `# nmi completion, for bash: source <(nmi completion)
_nmi_complete() {
  mapfile -t COMPREPLY < <("\${COMP_WORDS[0]}" ${completionWord} "\${COMP_WORDS[@]:1:COMP_CWORD}")
}
complete -o default -F _nmi_complete nmi
`;

/** @param args the command line without the program; the last word is still being typed. */
export function complete(args: readonly string[]): readonly string[] {
  const [first = '', ...rest] = args;
  const typed = args.at(-1) ?? '';
  const verb = Object.hasOwn(verbs, first) ? verbs[first] : undefined;
  const flags = Object.entries((verb ?? verbs['run'])?.flags ?? {})
    .filter(([, { hidden }]) => hidden !== true)
    .map(([flag]) => `--${flag}`);
  const names = [...Object.keys(verbs), 'help', 'completion'];
  const candidates = typed.startsWith('-')
    ? flags
    : args.length <= 1 || (first === 'help' && rest.length === 1)
      ? names
      : rest.length === 1
        ? Object.keys(verb?.actions ?? {})
        : [];
  return candidates.filter((candidate) => candidate.startsWith(typed)).toSorted();
}
