/** The published numbers are the measured ones: tables and pictures follow from the results. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { colorOf } from '../../bench/report/colors.ts';
import { minutesOf } from '../../bench/report/duration.ts';
import { profileHeadings } from '../../bench/report/goals.ts';
import { plotFiles } from '../../bench/report/plots.ts';
import {
  plotFolder,
  readmeFile,
  readResults,
  renderReadme,
  renderResults,
  resultsPage,
  rootReadmeFile,
} from '../../bench/report/publish.ts';
import { fillHeadline } from '../../bench/report/readme.ts';
import { scenarios } from '../../bench/scenarios/all.ts';
import { unreadableTexts } from '../support/unreadable-texts.ts';

const results = await readResults();

describe('the published benchmark', () => {
  it('has the tables of its results (npm run bench report writes them)', async () => {
    const readme = await readFile(readmeFile, 'utf8');
    assert.equal(await renderReadme(readme, results), readme);
    const page = await readFile(resultsPage, 'utf8');
    assert.equal(await renderResults(page, results), page);
  });

  it('has its figures in the README of the project', async () => {
    const readme = await readFile(rootReadmeFile, 'utf8');
    assert.equal(fillHeadline(readme, results), readme);
  });

  it('counts the time of all scenarios but those that run only when they are named', () => {
    const [measured] = results.scenarios;
    assert.ok(measured !== undefined);
    const minuteEach = scenarios.map(({ name }) => ({ ...measured, name, seconds: 60 }));
    const usual = scenarios.filter(({ isExtra }) => isExtra !== true);
    assert.equal(minutesOf({ ...results, scenarios: minuteEach }), usual.length);
  });

  it('links each goal to an existing section of PROFILE.md', async () => {
    const profile = await readFile(join(plotFolder, '../PROFILE.md'), 'utf8');
    const headings = new Set([...profile.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading));
    assert.deepEqual(
      profileHeadings.filter((heading) => !headings.has(heading)),
      [],
    );
  });

  it('has the pictures of its results and no others', async () => {
    const plots = plotFiles(results);
    assert.deepEqual((await readdir(plotFolder)).sort(), plots.map(({ file }) => file).sort());
    for (const { file, svg } of plots) {
      assert.equal(await readFile(join(plotFolder, file), 'utf8'), svg, file);
    }
  });

  it('has pictures whose every text can be read', () => {
    for (const { file, svg } of plotFiles(results))
      assert.deepEqual(unreadableTexts(svg), [], file);
  });

  it('draws a series in one color in every picture, and those of a picture in several', () => {
    for (const { series, curves } of results.scenarios) {
      const pictures = [
        [...new Set(series.map(({ subject }) => subject))],
        ...curves.map(({ lines }) => lines.map(({ name }) => name)),
      ];
      for (const names of pictures) {
        assert.ok(!names.some((name) => colorOf(name) === colorOf('unknown')), names.join(', '));
        assert.equal(new Set(names.map(colorOf)).size, names.length, names.join(', '));
      }
    }
  });

  it('says in its pictures when the outage and the restart were', () => {
    for (const name of ['outage', 'restart']) {
      const scenario = results.scenarios.find((each) => each.name === name);
      assert.ok(
        scenario?.curves.every(({ spans }) => spans?.length === 1),
        name,
      );
    }
  });

  it('has every scenario except those that run only when named', () => {
    const published = new Set(results.scenarios.map(({ name }) => name));
    const missing = scenarios.filter(
      ({ name, isExtra }) => isExtra !== true && !published.has(name),
    );
    assert.deepEqual(missing, []);
  });
});
