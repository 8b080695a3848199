/** Help texts. yargs renders them and is loaded only for that, since loading takes 30 ms. */
import { environmentName, hasFlag, options } from '../nmi/config/options.ts';
import { verbs, type Verb } from './verbs.ts';

const maxColumns = 120;

export function renderOverview(): string {
  return [
    'Microsoft Entra tokens for the pods of this Kubernetes node.',
    '',
    'Usage: nmi [VERB] [FLAGS]',
    '',
    'Verbs:',
    ...Object.entries(verbs).map(([name, { summary }]) => `  ${name.padEnd(11)} ${summary}`),
    '',
    'Examples:',
    ...['run', 'explain', 'redirect'].map((name) => `  ${verbs[name]?.examples[0] ?? ''}`),
    '',
    '`nmi help VERB` shows the flags of a verb. Documentation: the folder docs of the sources;',
    'docs/flags.md lists every flag, docs/reasons.md every answer.',
    '',
  ].join('\n');
}

export async function renderHelp(
  name: string,
  verb: Verb,
  action: string | undefined,
  columns = 100,
): Promise<string> {
  const { default: yargs } = await import('yargs');
  const args = action === undefined ? name : `${name} ${action}`;
  const parser = yargs([])
    .scriptName(`nmi ${args}`)
    .version(false)
    .help(false)
    .wrap(Math.min(columns, maxColumns));
  for (const [flag, shape] of Object.entries(verb.flags)) {
    parser.option(flag, {
      type: 'string',
      ...shape,
      default: undefined,
      ...(shape.default === undefined ? {} : { defaultDescription: String(shape.default) }),
    });
  }
  const { actions = {} } = verb;
  const about = action === undefined ? verb.summary : (actions[action] ?? verb.summary);
  const place = action === undefined && verb.actions !== undefined ? ' ACTION' : '';
  const list =
    action === undefined
      ? Object.entries(actions).map(([each, text]) => `  ${each.padEnd(11)} ${text}`)
      : [];
  const examples = verb.examples.filter(
    (text) => action === undefined || text.startsWith(`nmi ${args}`),
  );
  const text = await parser.usage(`Usage: $0${place} [FLAGS]`).getHelp();
  return [
    about,
    '',
    ...(list.length === 0 ? [] : ['Actions:', ...list, '']),
    ...(examples.length === 0 ? [] : ['Examples:', ...examples.map((each) => `  ${each}`), '']),
    text,
    environmentHelp(name),
  ].join('\n');
}

function environmentHelp(verb: string): string {
  if (verb !== 'run' && verb !== 'redirect') return '';
  const rows = options
    .filter((option) => !hasFlag(option) && (verb === 'run' || option.isOfRedirect === true))
    .map((option) => `  ${environmentName(option).padEnd(20)} ${option.help}`);
  return `\nEnvironment variables without a flag, which the manifests set:\n${rows.join('\n')}\n`;
}
