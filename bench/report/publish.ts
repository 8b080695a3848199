/** Writes a run's results next to the benchmark programs. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { mergeResults, type Results } from '../core/results.ts';
import { plotFiles } from './plots.ts';
import { fillHeadline, fillReadme, fillResults } from './readme.ts';

const folder = join(import.meta.dirname, '..');
const resultsFile = join(folder, 'results.json');
export const readmeFile = join(folder, 'README.md');
export const resultsPage = join(folder, 'results.md');
/** README of the project. */
export const rootReadmeFile = join(folder, '../README.md');
export const plotFolder = join(folder, 'plots');

/** Scenarios not in this run keep their earlier results. */
export async function publish(run: Results): Promise<void> {
  await write(existsSync(resultsFile) ? mergeResults(await readResults(), run) : run);
}

/** Renders plots and tables again from the stored results. */
export async function republish(): Promise<void> {
  await write(await readResults());
}

export async function readResults(): Promise<Results> {
  return JSON.parse(await readFile(resultsFile, 'utf8')) as Results;
}

/** The README with the goals of these results. */
export function renderReadme(readme: string, results: Results): Promise<string> {
  return inStyle(fillReadme(readme, results));
}

/** The page of all tables, with these results. */
export function renderResults(page: string, results: Results): Promise<string> {
  return inStyle(fillResults(page, results));
}

async function inStyle(text: string): Promise<string> {
  return format(text, { ...(await resolveConfig(readmeFile)), parser: 'markdown' });
}

async function write(results: Results): Promise<void> {
  await writeFile(resultsFile, `${JSON.stringify(results)}\n`);
  await rm(plotFolder, { recursive: true, force: true });
  await mkdir(plotFolder, { recursive: true });
  for (const { file, svg } of plotFiles(results)) await writeFile(join(plotFolder, file), svg);
  await writeFile(readmeFile, await renderReadme(await readFile(readmeFile, 'utf8'), results));
  await writeFile(resultsPage, await renderResults(await readFile(resultsPage, 'utf8'), results));
  await writeFile(rootReadmeFile, fillHeadline(await readFile(rootReadmeFile, 'utf8'), results));
}
