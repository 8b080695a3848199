/** The section of the project's README about speed and the API server, rendered from the results. Pure. */
import { findFigure, findSeries, subjects, type Results, type Series } from '../core/results.ts';
import { median, ratiosOf } from '../core/statistics.ts';
import { measures, renderNumber, table } from './markdown.ts';

const { nodeHttp, goHttp, bareProxy } = subjects;
type Measure = (series: Series) => readonly number[];

const ways = ['eBPF', 'iptables', 'no redirect'];

const kept = ['1 kept', '16 kept', '64 kept'];
const fresh = ['1 new each', '16 new each'];

/** Medians of ratios within a round; unmeasured rows are omitted. */
export function renderHeadline(results: Results): string {
  const row = (shape: string, control: string, ...compared: readonly Measure[]) => {
    const cells = ways.map((way) => {
      const ours = findSeries(results, 'redirects', shape, way);
      const other = findSeries(results, 'redirects', shape, control);
      if (ours === undefined || other === undefined) return '';
      const ratios = compared.map((measure) => renderRatio(measure(ours), measure(other)));
      // Pods connect at a fixed rate, below that at which they are limited.
      return [...(fresh.includes(shape) ? ['–'] : []), ...ratios].join(' / ');
    });
    const name = control === nodeHttp ? describe(shape) : `${describe(shape)}, beside Go`;
    return cells.every((cell) => cell === '') ? [] : [[name, ...cells]];
  };
  const { perSec, p50Us, cpuMs } = measures;
  const lines = [
    ...kept.flatMap((shape) => row(shape, nodeHttp, perSec, p50Us, cpuMs)),
    ...fresh.flatMap((shape) => row(shape, nodeHttp, p50Us, cpuMs)),
    ...kept.flatMap((shape) => row(shape, goHttp, perSec)),
  ];
  // The goals of a cached token have another figure for it: that of a client on the node.
  const head = ['answers a second / p50 / CPU', ...ways.slice(0, -1), 'no redirect, from a pod'];
  const speed = lines.length === 0 ? '' : table(head, lines);
  const parts = [speed, renderMisses(results), renderFleet(results)];
  return parts.filter((part) => part !== '').join('\n\n');
}

function renderRatio(ours: readonly number[], control: readonly number[]): string {
  return median(ratiosOf(ours, control)).toFixed(2);
}

function describe(shape: string): string {
  const [count = '', kind] = shape.split(' ');
  const connections = count === '1' ? 'connection' : 'connections';
  return kind === 'new' ? `${count} at once, each new` : `${count} ${connections}`;
}

function renderMisses(results: Results): string {
  const added = (by: string) =>
    ['IMDS', 'Entra ID'].map((source) => {
      const values = findFigure(results, 'miss', `${source}: added${by} at p50`)?.values ?? [];
      return renderNumber(median(values));
    });
  const [ours, proxy] = [added(''), added(` by a ${bareProxy}`)];
  if ([...ours, ...proxy].includes('')) return '';
  return (
    `A token that is not in memory takes ${ours.join(' ms (IMDS) and ')} ms (Entra ID) longer than its ` +
    `source alone, ${proxy.join(' and ')} ms with a bare proxy in the agent's place.`
  );
}

const fleets = ['agent', 'client-go'];

function renderFleet(results: Results): string {
  const each = (what: string) =>
    fleets.map((who) => {
      const values = findFigure(results, 'fleet', `${who}: ${what}`)?.values ?? [];
      return renderNumber(median(values));
    });
  const [quiet, usual] = [each('bytes of a node, quiet'), each('bytes of a node, usual')];
  const listed = each('every node has listed the bindings after a restart with 410');
  if ([...quiet, ...usual, ...listed].includes('')) return '';
  const say = ([agent = '', other = '']: readonly string[], unit: string) =>
    `${agent} ${unit} (${other} by client-go)`;
  return (
    `The watches of a node cost the API server ${say(quiet, 'MB a day')} in a quiet cluster, ${say(usual, 'MB')} ` +
    `in a usual one. After a restart that expires all versions, 200 nodes had listed again after ${say(listed, 's')}.`
  );
}
