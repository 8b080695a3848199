/**
 * Makes the image without Docker, from the commit that is checked out:
 * `./dev image [--out FOLDER] [--sources FILE] [amd64] [arm64]`. By default for this machine's processor,
 * into `dist/image`: the OCI archive, a bill of materials for each processor, and the provenance.
 */
import { statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import {
  buildImage,
  changed,
  commitHere,
  dist,
  name,
  replaceFolder,
  say,
  writeProvenance,
} from './build-image.ts';
import { ownArchitecture, processors, type Architecture } from './builder.ts';
import { readSources, runCommand } from './command.ts';

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { out: { type: 'string' }, sources: { type: 'string' } },
    allowPositionals: true,
  });
  const wrong = positionals.find((word) => !isArchitecture(word));
  if (wrong !== undefined) throw new Error(`not a processor: ${wrong}; amd64 and arm64 are`);
  const wanted = new Set(positionals.filter(isArchitecture));
  const out = values.out ?? join(dist, 'image');
  const commit = commitHere();
  if (commit.id.endsWith(changed)) say('files differ from the commit; the image will say so');
  await replaceFolder(out, async (results, work) => {
    const request = {
      results,
      work,
      architectures: wanted.size === 0 ? [ownArchitecture] : [...wanted].toSorted(),
      debian: { sources: readSources(values.sources) },
      commit,
    };
    const built = await buildImage(request);
    writeProvenance(request, built, { [name]: built.index.digest });
    const megabytes = (statSync(join(results, built.archive)).size / 1e6).toFixed(1);
    say(`${join(relative(process.cwd(), out), built.archive)}, ${megabytes} MB`);
    process.stdout.write(`${built.index.digest}\n`);
  });
}

function isArchitecture(word: string): word is Architecture {
  return Object.hasOwn(processors, word);
}

await runCommand('image', main);
