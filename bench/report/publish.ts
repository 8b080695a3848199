/** Writes what a run found beside the programs that found it. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { mergeScenarios, type Results } from '../core/results.ts';
import { plotFiles } from './plots.ts';
import { fillReadme } from './readme.ts';

const folder = join(import.meta.dirname, '..');
const resultsFile = join(folder, 'results.json');
const readmeFile = join(folder, 'README.md');
const plotFolder = join(folder, 'plots');

/** Scenarios that this run left out keep what an earlier one found. */
export async function publish(run: Results): Promise<void> {
  const former = existsSync(resultsFile)
    ? (JSON.parse(await readFile(resultsFile, 'utf8')) as Results).scenarios
    : [];
  await write({ ...run, scenarios: mergeScenarios(former, run.scenarios) });
}

/** Plots and tables once more from the results as they are. */
export async function republish(): Promise<void> {
  await write(JSON.parse(await readFile(resultsFile, 'utf8')) as Results);
}

async function write(results: Results): Promise<void> {
  await writeFile(resultsFile, `${JSON.stringify(results)}\n`);
  await rm(plotFolder, { recursive: true, force: true });
  await mkdir(plotFolder, { recursive: true });
  for (const { file, svg } of plotFiles(results)) await writeFile(join(plotFolder, file), svg);
  const readme = fillReadme(await readFile(readmeFile, 'utf8'), results);
  const style = await resolveConfig(readmeFile);
  await writeFile(readmeFile, await format(readme, { ...style, parser: 'markdown' }));
}
