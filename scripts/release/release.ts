/**
 * Makes a release of the commit that is checked out, in `dist/release`:
 *
 *   ./dev release https://HOST/PATH [--sources FILE]   build it; its files will be at that address
 *   ./dev release push HOST/PATH                       copy image and chart of it to a registry
 *   ./dev release pin [--sources FILE]                 take the Debian of today for the next ones
 *
 * The same commit gives the same bytes: Debian is the pinned one, from the archive of snapshots, or
 * from sources (lines of sources.list in a file) that have the same signed indexes.
 */
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildStamp, repositoryRoot } from '../build.ts';
import {
  buildImage,
  changed,
  commitHere,
  dist,
  labelsOf,
  name,
  replaceFolder,
  run,
  writeProvenance,
} from '../image/build-image.ts';
import { readSources, runCommand } from '../image/command.ts';
import { pinFile, readPin } from '../image/debian-pin.ts';
import { lookUpPin } from '../image/debian-tree.ts';
import { packChart } from './chart.ts';
import { writeListing } from './listing.ts';
import { mustBePlace, packPlugin } from './plugin.ts';
import { pushRelease } from './push.ts';

type Lines = readonly string[] | undefined;

const folder = join(dist, 'release');

async function build(place: string, sources: Lines): Promise<void> {
  mustBePlace(place);
  const pin = readPin(repositoryRoot);
  const commit = commitHere();
  if (commit.id.endsWith(changed)) throw new Error('files differ from the commit; commit them');
  const { version } = buildStamp();
  mustFitTags(version);
  await replaceFolder(folder, async (results, work) => {
    const { epoch } = commit;
    const request = {
      results,
      work,
      architectures: ['amd64', 'arm64'] as const,
      debian: { sources, pin },
      commit,
    };
    const image = await buildImage(request);
    const chart = packChart({
      chart: join(repositoryRoot, 'deploy/chart'),
      ...{ results, work, version, epoch, labels: labelsOf(commit) },
    });
    const [first] = image.builders;
    if (first === undefined) throw new Error('no processor');
    await packPlugin({ results, work, epoch, place }, first, image.builders);
    copyFileSync(join(repositoryRoot, 'deploy/crds.yaml'), join(results, 'crds.yaml'));
    const charts = `charts/${name}`;
    writeProvenance(request, image, {
      [name]: image.index.digest,
      [charts]: chart.manifest.digest,
    });
    writeListing(results, {
      version,
      commit: commit.id,
      image: { repository: name, digest: image.index.digest, archive: image.archive },
      // The name of the chart is that of the image.
      chart: { repository: charts, digest: chart.manifest.digest, archive: chart.archive },
    });
  });
  process.stdout.write(`${folder}\n`);
}

/** A commit may be released before it is tagged, but not under another version. */
function mustFitTags(version: string): void {
  const tags = run('git', 'tag', '--points-at', 'HEAD', 'v*').split('\n').filter(Boolean);
  if (tags.length === 0 || tags.includes(`v${version}`)) return;
  throw new Error(`package.json has version ${version}, the commit has the tag ${tags.join(', ')}`);
}

/** The archive of snapshots takes some time for each; until then, its address shows the one before. */
const settledMs = 6 * 3_600_000;

function pinNow(sources: Lines): void {
  const time = new Date(Date.now() - (sources === undefined ? settledMs : 0));
  const snapshot = time.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const pin = lookUpPin(join(repositoryRoot, '.cache/image/pin'), snapshot, sources);
  writeFileSync(join(repositoryRoot, pinFile), `${JSON.stringify(pin, undefined, 2)}\n`);
  process.stdout.write(`${pinFile}\n`);
}

await runCommand('release', async () => {
  const { values, positionals } = parseArgs({
    options: { sources: { type: 'string' } },
    allowPositionals: true,
  });
  const [verb = '', place = ''] = positionals;
  const sources = readSources(values.sources);
  if (verb === 'pin') pinNow(sources);
  else if (verb === 'push') process.stdout.write(`${pushRelease(folder, place).join('\n')}\n`);
  else await build(verb, sources);
});
