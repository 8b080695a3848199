/** Names in a query that nothing exports: metrics, labels, and reasons as values of labels. */
import { refusals } from '../../../../src/nmi/base/answers.ts';
import {
  newMetrics,
  oldMetrics,
  type MetricRow,
} from '../../../../src/nmi/telemetry/metric-table.ts';
import { groupedLabelsOf, selectorsOf } from './queries.ts';

/** Metrics of kube-state-metrics 2 that the rules use. */
const kubeStateMetrics: Readonly<Record<string, readonly string[]>> = {
  kube_pod_info: ['namespace', 'pod', 'node', 'created_by_kind', 'created_by_name'],
  kube_pod_status_ready: ['namespace', 'pod', 'condition'],
  kube_node_status_condition: ['node', 'condition', 'status'],
  kube_daemonset_status_desired_number_scheduled: ['namespace', 'daemonset'],
  kube_daemonset_status_current_number_scheduled: ['namespace', 'daemonset'],
  kube_deployment_status_replicas_available: ['namespace', 'deployment'],
};

/** Prometheus adds these to every target. */
const targetLabels = ['instance', 'job'];

const table: Readonly<Record<string, MetricRow>> = { ...oldMetrics, ...newMetrics };

/** Undefined for a metric that nothing exports. */
function labelsOf(metric: string): readonly string[] | undefined {
  const row = table[metric];
  if (row !== undefined && row.type !== 'histogram') return row.labels;
  const family = table[metric.replace(/_(?:bucket|sum|count)$/, '')];
  if (family?.type === 'histogram' && metric.endsWith('_bucket')) return [...family.labels, 'le'];
  if (family?.type === 'histogram' && family !== row) return family.labels;
  return kubeStateMetrics[metric];
}

export function unknownNames(query: string): readonly string[] {
  const unknown: string[] = [];
  const known = new Set(targetLabels);
  for (const { metric, labels } of selectorsOf(query)) {
    const own = labelsOf(metric);
    if (own === undefined) {
      unknown.push(metric);
      continue;
    }
    for (const label of own) known.add(label);
    for (const [label, values] of labels) {
      if (![...own, ...targetLabels].includes(label)) unknown.push(`${metric}{${label}}`);
      if (label !== 'reason') continue;
      const strange = values.filter((value) => value !== 'ok' && !Object.hasOwn(refusals, value));
      unknown.push(...strange.map((value) => `reason ${value}`));
    }
  }
  unknown.push(...groupedLabelsOf(query).filter((label) => !known.has(label)));
  return unknown;
}
