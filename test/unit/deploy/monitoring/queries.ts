/** The alert rules and the dashboard, and the names in their queries. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const folder = join(import.meta.dirname, '../../../../deploy/monitoring');

export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook_url: string };
}

interface RuleFile {
  readonly groups: readonly { readonly name: string; readonly rules: readonly AlertRule[] }[];
}

export const alertsPath = join(folder, 'alerts.yaml');

export function readRuleFile(): RuleFile {
  return parse(readFileSync(alertsPath, 'utf8')) as RuleFile;
}

export function readAlerts(): readonly AlertRule[] {
  return readRuleFile().groups.flatMap(({ rules }) => rules);
}

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly type: string;
  readonly fieldConfig: { readonly defaults: { readonly unit?: string } };
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
}

/** A heading of the panels up to the next one. */
interface Row extends Omit<Panel, 'fieldConfig' | 'targets'> {
  readonly type: 'row';
  readonly collapsed: boolean;
}

interface Dashboard {
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly query: string }[];
  };
  readonly panels: readonly (Panel | Row)[];
}

export function readDashboard(): Dashboard {
  return JSON.parse(readFileSync(join(folder, 'dashboard.json'), 'utf8')) as Dashboard;
}

export function isRow(panel: Panel | Row): panel is Row {
  return panel.type === 'row';
}

/** Those with queries. */
export function readPanels(): readonly Panel[] {
  return readDashboard().panels.filter((panel): panel is Panel => !isRow(panel));
}

export interface Selector {
  readonly metric: string;
  /** Each matched label with the texts that its values are matched against. */
  readonly labels: ReadonlyMap<string, readonly string[]>;
}

/**
 * Every metric of a query with its matchers. Functions and keywords do not have our prefix with an
 * underscore.
 */
export function selectorsOf(query: string): readonly Selector[] {
  const found = query.matchAll(/\b((?:nmi|aadpodidentity|kube)_\w+)(?:\{([^}]*)\})?/g);
  return [...found].map(([, metric = '', matchers = '']) => ({
    metric,
    labels: new Map(
      [...matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"/g)].map(
        ([, label = '', value = '']) => [label, value.split('|')],
      ),
    ),
  }));
}

/** Labels by which a query groups or joins, or which it drops. */
export function groupedLabelsOf(query: string): readonly string[] {
  return [...query.matchAll(/\b(?:by|without|on|ignoring)\s*\(([^)]*)\)/g)].flatMap(
    ([, labels = '']) => labels.split(',').map((label) => label.trim()),
  );
}
