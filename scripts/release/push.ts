/** Copies image and chart of a release to a registry, with skopeo. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readListing, type Artifact } from './listing.ts';

/**
 * @param place HOST/PATH. skopeo has to be logged in there.
 * @returns image and chart by the digests that the registry confirmed.
 * @throws Error if the release has changed, or with the output of skopeo.
 */
export function pushRelease(folder: string, place: string): readonly string[] {
  if (!/^[^\s/:]+(?::\d+)?(?:\/[a-z0-9._-]+)*$/.test(place)) {
    throw new Error(
      `${place} is no place in a registry: HOST/PATH in lower case, without a scheme`,
    );
  }
  const { version, image, chart } = readListing(folder);
  return [image, chart].map((artifact) => copy(folder, artifact, place, version));
}

function copy(
  folder: string,
  { archive, repository, digest }: Artifact,
  place: string,
  version: string,
): string {
  const work = mkdtempSync(join(tmpdir(), 'nmi-push-'));
  try {
    const pushed = join(work, 'digest');
    const { status, error, stderr } = spawnSync(
      'skopeo',
      [
        ...['copy', '--quiet', '--all', '--preserve-digests', `--digestfile=${pushed}`],
        ...[`oci-archive:${join(folder, archive)}`, `docker://${place}/${repository}:${version}`],
      ],
      { encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(`skopeo copy: ${error?.message ?? stderr.trim()}`);
    const actual = readFileSync(pushed, 'utf8').trim();
    if (actual !== digest) throw new Error(`${repository} is ${actual} there, not ${digest}`);
    return `${place}/${repository}@${digest}`;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
