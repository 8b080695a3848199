import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { makeKrewRelease } from '../../scripts/krew.ts';

interface KrewManifest {
  readonly spec: {
    readonly version: string;
    readonly shortDescription: string;
    readonly platforms: readonly {
      readonly uri: string;
      readonly sha256: string;
      readonly bin: string;
    }[];
  };
}

describe('the release for krew', () => {
  it('is an archive with the plugin, and a manifest that names its address and its hash', async () => {
    const { manifest, archive } = await makeKrewRelease('https://example.com/releases');
    const { spec } = parse(readFileSync(manifest, 'utf8')) as KrewManifest;
    const [platform] = spec.platforms;
    assert.match(spec.version, /^v\d+\.\d+\.\d+/);
    assert.ok(spec.shortDescription.length <= 50, 'krew shows 50 characters');
    assert.equal(platform?.uri, `https://example.com/releases/${basename(archive)}`);
    const bytes = readFileSync(archive);
    assert.equal(platform?.sha256, createHash('sha256').update(bytes).digest('hex'));
    const listed = spawnSync('tar', ['-tzf', archive], { encoding: 'utf8' }).stdout;
    assert.deepEqual(listed.trim().split('\n').toSorted(), ['./', './LICENSE', './kubectl-nmi']);
    const again = await makeKrewRelease('https://example.com/releases');
    assert.deepEqual(readFileSync(again.archive), bytes);
  });

  it('has an address from which krew can fetch', async () => {
    for (const place of [
      '',
      'http://example.com/x',
      'https://example.com/x/',
      'https://example.com/?x',
    ]) {
      await assert.rejects(makeKrewRelease(place), /no https URL/);
    }
  });
});
