import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse } from 'yaml';
import { ownMachine } from '../../scripts/build.ts';
import { mustBePlace, packPlugin } from '../../scripts/release/plugin.ts';

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

describe('the plugin of a release', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-plugin-release-'));
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  async function packInto(name: string): Promise<string> {
    const [results, work] = [join(folder, name), join(folder, `${name}-work`)];
    for (const made of [results, work]) mkdirSync(made);
    const place = 'https://example.com/releases';
    await packPlugin({ results, work, epoch: 1_700_000_000, place }, ownMachine, []);
    return results;
  }

  it('is an archive, and a manifest for krew that names its address and its hash', async () => {
    const results = await packInto('first');
    const [manifest = '', archive = ''] = readdirSync(results).toSorted();
    assert.match(archive, /^kubectl-nmi-v\d+\.\d+\.\d+\.tar\.gz$/);
    const { spec } = parse(readFileSync(join(results, manifest), 'utf8')) as KrewManifest;
    const [platform] = spec.platforms;
    assert.match(spec.version, /^v\d+\.\d+\.\d+/);
    assert.ok(spec.shortDescription.length <= 50, 'krew shows 50 characters');
    assert.equal(platform?.uri, `https://example.com/releases/${archive}`);
    const bytes = readFileSync(join(results, archive));
    assert.equal(platform?.sha256, createHash('sha256').update(bytes).digest('hex'));
    const listed = spawnSync('tar', ['-tzf', join(results, archive)], { encoding: 'utf8' }).stdout;
    assert.deepEqual(listed.trim().split('\n').toSorted(), [
      ...['./', './LICENSE', './THIRD-PARTY-NOTICES.txt', './kubectl-nmi'],
      './kubectl_complete-nmi',
    ]);
  });

  it('has the same bytes again', async () => {
    const [one, other] = [await packInto('one'), await packInto('other')];
    for (const file of readdirSync(one)) {
      assert.deepEqual(readFileSync(join(one, file)), readFileSync(join(other, file)), file);
    }
  });

  it('has an address from which krew can fetch', () => {
    for (const place of [
      '',
      'http://example.com/x',
      'https://example.com/x/',
      'https://example.com/?x',
    ]) {
      assert.throws(() => {
        mustBePlace(place);
      }, /no https URL/);
    }
  });
});
