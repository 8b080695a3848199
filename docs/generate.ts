/**
 * Writes the generated parts of README.md and docs/: `npm run docs`. A test compares them, so a table
 * cannot drift from the code it describes.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newMetrics, oldMetrics, type MetricRow } from '../src/nmi/telemetry/metric-table.ts';
import { refusals } from '../src/nmi/base/answers.ts';
import { answerCodes } from '../src/nmi/diagnosis/answer-codes.ts';
import {
  environmentName,
  hasFlag,
  ignoredFlags,
  options,
  spellings,
} from '../src/nmi/config/options.ts';
import { absences } from '../src/nmi/kube/watch/watches.ts';
import type { Absence } from '../src/nmi/kube/watch/reflector.ts';
import { cloudNames, cloudOf } from '../src/nmi/sources/entra/clouds.ts';
import { clientTable } from '../test/node/clients/support/client-table.ts';
import { faultRows } from '../test/unit/deploy/monitoring/fault-alerts.ts';

const root = join(import.meta.dirname, '..');

/** The generated parts of each page, by the name in their markers. */
const pages: Readonly<Record<string, Readonly<Record<string, () => string>>>> = {
  'docs/flags.md': {
    flags: () => optionTable(false),
    variables: () => optionTable(true),
    'flags without effect': noEffectTable,
  },
  'docs/identities.md': { clouds: cloudTable },
  'docs/alerts.md': {
    metrics: metricTable,
    faults: () => table(['lab scenario', 'alert', 'what it shows'], faultRows()),
  },
  'docs/operate.md': { 'refused lists': refusedListTable },
  'docs/reasons.md': { reasons: reasonTable, guide: reasonSections },
  'docs/clients.md': { clients: clientTable },
};

export const generatedPages: readonly string[] = Object.keys(pages);

/** The page with all generated parts updated. @throws Error when a marker is missing. */
export function renderPage(page: string, text: string): string {
  const parts = Object.entries(pages[page] ?? {});
  return parts.reduce((filled, [name, part]) => fill(page, filled, name, part()), text);
}

function fill(page: string, text: string, name: string, part: string): string {
  const begin = `<!-- generated: ${name} -->`;
  const end = `<!-- end: ${name} -->`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`${page} lacks the markers of "${name}"`);
  return `${text.slice(0, from + begin.length)}\n\n${part}\n\n${text.slice(to)}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(escapeCell).join(' | ')} |`;
  return [line(head), `|${head.map(() => ' --- |').join('')}`, ...rows.map(line)].join('\n');
}

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|');
}

/** @param isVariable the options that have no flag, or those that have one. */
function optionTable(isVariable: boolean): string {
  const rows = options
    .filter((option) => hasFlag(option) !== isVariable)
    .map((option) => [
      ...(isVariable ? [] : [flagCell(spellings(option))]),
      `\`${environmentName(option)}\``,
      option.type.allowed,
      option.default === '' ? '' : `\`${option.default}\``,
      option.help,
    ]);
  const head = ['environment', 'takes', 'default', 'meaning'];
  return table(isVariable ? head : ['flag', ...head], rows);
}

function noEffectTable(): string {
  const reasons = new Set(ignoredFlags.map(({ reason }) => reason));
  const rows = [...reasons].map((reason) => {
    const names = ignoredFlags.filter((flag) => flag.reason === reason).map(({ name }) => name);
    return [flagCell(names), reason];
  });
  return table(['flags', 'no effect, because'], rows);
}

function flagCell(names: readonly string[]): string {
  return names.map((name) => `\`${name.length === 1 ? '-' : '--'}${name}\``).join(' ');
}

function metricTable(): string {
  const rows = Object.entries<MetricRow>({ ...oldMetrics, ...newMetrics }).map(([name, row]) => [
    `\`${name}\``,
    row.type,
    row.labels.map((l) => `\`${l}\``).join(' '),
    row.help,
  ]);
  return table(['metric', 'type', 'labels', 'meaning'], rows);
}

function reasonSections(): string {
  return Object.entries(answerCodes)
    .map(([reason, { means, check, fix }]) =>
      [`### ${reason}`, means, `- **Check:** ${check}\n- **Fix:** ${fix}`].join('\n\n'),
    )
    .join('\n\n');
}

function reasonTable(): string {
  const rows = Object.entries(refusals).map(([reason, row]) => [
    `[\`${reason}\`](#${reason})`,
    String(row.status),
    `\`${row.error}\``,
    'retryAfterS' in row ? `${row.retryAfterS} s or more` : '',
  ]);
  return table(['reason', 'status', 'error', 'Retry-After'], rows);
}

function cloudTable(): string {
  const rows = cloudNames.map((name) => {
    const { authority, audience } = cloudOf(name);
    return [`\`${name}\``, authority, `\`${audience}\``];
  });
  return table(['`--cloud`', 'Entra ID', 'audience of federated credentials'], rows);
}

function refusedListTable(): string {
  const [waits, holds, later] = ['not ready', 'what was listed holds', 'none, after a minute'];
  const words: Readonly<Record<Absence, readonly string[]>> = {
    never: [waits, waits, holds, holds],
    confirmed: [waits, later, holds, later],
    presumed: ['none', 'none', holds, later],
  };
  const modes = { enforcing: '`enforce`', otherwise: '`warn`, `off`' } as const;
  const rows = Object.entries(absences).flatMap(([kind, { enforcing, otherwise }]) =>
    enforcing === otherwise
      ? [[kind, 'any', ...words[enforcing]]]
      : [
          [kind, modes.enforcing, ...words[enforcing]],
          [kind, modes.otherwise, ...words[otherwise]],
        ],
  );
  const head = ['never listed: 403', 'never listed: 404', 'listed before: 403', 'listed before: 404'];
  return table(['objects', '`--identity-owners`', ...head], rows);
}

if (import.meta.main) {
  for (const page of generatedPages) {
    const path = join(root, page);
    await writeFile(path, renderPage(page, await readFile(path, 'utf8')));
  }
}
