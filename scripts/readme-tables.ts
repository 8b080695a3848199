/**
 * Writes the generated parts of README.md: `node scripts/readme-tables.ts`. A test compares them,
 * so a table cannot drift from the code it describes.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newMetrics, oldMetrics, type MetricRow } from '../src/nmi/telemetry/metric-table.ts';
import { refusals } from '../src/nmi/base/answers.ts';
import {
  environmentName,
  hasFlag,
  ignoredFlags,
  options,
  spellings,
} from '../src/nmi/config/options.ts';
import { cloudNames, cloudOf } from '../src/nmi/sources/entra/clouds.ts';
import { scenarios } from '../lab/scenarios/all.ts';
import { clientTable } from '../test/clients/support/client-table.ts';

const readmePath = join(import.meta.dirname, '..', 'README.md');

/** The README with every generated part fresh. @throws when a marker is missing. */
export function renderReadme(readme: string): string {
  const parts: Readonly<Record<string, string>> = {
    flags: optionTable(false),
    variables: optionTable(true),
    'flags without effect': noEffectTable(),
    metrics: metricTable(),
    reasons: reasonTable(),
    scenarios: scenarioList(),
    clients: clientTable(),
    clouds: cloudTable(),
  };
  return Object.entries(parts).reduce((text, [name, part]) => fill(text, name, part), readme);
}

function fill(readme: string, name: string, part: string): string {
  const begin = `<!-- generated: ${name} -->`;
  const end = `<!-- end: ${name} -->`;
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end);
  if (from < 0 || to < from) throw new Error(`README.md lacks the markers of "${name}"`);
  return `${readme.slice(0, from + begin.length)}\n\n${part}\n\n${readme.slice(to)}`;
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

function reasonTable(): string {
  const rows = Object.entries(refusals).map(([reason, row]) => [
    `\`${reason}\``,
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

function scenarioList(): string {
  return scenarios
    .map(({ name, title, inTour }) => `- \`${name}\`${inTour ? ' (tour)' : ''}: ${title}`)
    .join('\n');
}

if (import.meta.main) {
  const readme = await readFile(readmePath, 'utf8');
  await writeFile(readmePath, renderReadme(readme));
}
