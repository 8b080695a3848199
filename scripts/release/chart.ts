/** The chart as a release has it: packed as by `helm package`, and as the artifact that `helm push` makes of it. */
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { writeChartArchive, type Descriptor } from '../image/oci.ts';
import { packPlain } from '../image/tar.ts';

export interface ChartRequest {
  /** The chart's folder. */
  readonly chart: string;
  readonly results: string;
  readonly work: string;
  readonly version: string;
  /** Seconds since 1970, for every file. */
  readonly epoch: number;
  readonly labels: Readonly<Record<string, string>>;
}

export interface PackedChart {
  /** Names of files in the results. */
  readonly packed: string;
  readonly archive: string;
  readonly manifest: Descriptor;
}

/** @throws Error if the chart has another version. */
export function packChart(request: ChartRequest): PackedChart {
  const { chart, results, work, version, epoch, labels } = request;
  const metadata: unknown = parse(readFileSync(join(chart, 'Chart.yaml'), 'utf8'));
  if (!isMetadata(metadata)) throw new Error('Chart.yaml has no name');
  if (metadata.version !== version || metadata.appVersion !== version) {
    throw new Error(
      `Chart.yaml has another version than ${version} of package.json: run ./dev node scripts/manifests.ts`,
    );
  }
  const { name } = metadata;
  const folder = join(work, 'chart');
  mkdirSync(folder);
  cpSync(chart, join(folder, name), { recursive: true });
  const packed = `${name}-${version}.tgz`;
  packPlain(folder, name, join(results, packed), epoch);
  const archive = `${name}-${version}.chart.oci.tar`;
  const manifest = writeChartArchive(
    join(work, 'chart-layout'),
    join(results, archive),
    join(results, packed),
    { epoch, version, metadata, labels },
  );
  return { packed, archive, manifest };
}

interface Metadata {
  readonly name: string;
  readonly version: unknown;
  readonly appVersion: unknown;
}

function isMetadata(value: unknown): value is Metadata {
  return (
    typeof value === 'object' && value !== null && 'name' in value && typeof value.name === 'string'
  );
}
