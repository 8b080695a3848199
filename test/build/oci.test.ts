import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { zstdDecompressSync } from 'node:zlib';
import { writeArchive, type Descriptor } from '../../scripts/image/oci.ts';

const facts = {
  epoch: 1_700_000_000,
  version: '1.2.3',
  name: 'localhost/an-image:1.2.3',
  labels: { title: 'an image' },
};

describe('the OCI archive', () => {
  let folder = '';
  let number = 0;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-test-oci-'));
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  function root(...files: readonly string[]): string {
    const made = join(folder, `root-${number++}`);
    mkdirSync(join(made, 'bin'), { recursive: true });
    for (const file of files) {
      writeFileSync(join(made, 'bin', file), `content of ${file}`, { mode: 0o755 });
      utimesSync(join(made, 'bin', file), number, number);
    }
    return made;
  }

  function archive(...roots: readonly string[]) {
    const made = join(folder, `layout-${number++}`);
    const images = roots.map((each, index) => ({
      architecture: index === 0 ? 'amd64' : 'arm64',
      root: each,
    }));
    const index = writeArchive(made, `${made}.tar`, images, facts);
    return { folder: made, file: `${made}.tar`, index };
  }

  function blob(layout: string, { digest, size }: Descriptor): Partial<Record<string, unknown>> {
    const content = readFileSync(join(layout, 'blobs', digest.replace(':', '/')));
    assert.equal(content.length, size);
    assert.equal(`sha256:${createHash('sha256').update(content).digest('hex')}`, digest);
    return JSON.parse(content.toString()) as Record<string, unknown>;
  }

  it('has the same bytes for the same files, whenever they were written', () => {
    const [one, other] = [archive(root('a', 'b')), archive(root('b', 'a'))];
    assert.equal(one.index.digest, other.index.digest);
    assert.ok(readFileSync(one.file).equals(readFileSync(other.file)));
    assert.notEqual(archive(root('a')).index.digest, one.index.digest);
  });

  it('has one index of a manifest for each processor', () => {
    const { folder: layout, index } = archive(root('a'), root('b'));
    const top = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
      manifests: readonly Descriptor[];
    };
    assert.deepEqual(
      top.manifests.map(({ digest }) => digest),
      [index.digest],
    );
    // Of the tools that copy an archive, and of containerd.
    assert.deepEqual(top.manifests[0]?.annotations, {
      'org.opencontainers.image.ref.name': '1.2.3',
      'io.containerd.image.name': 'localhost/an-image:1.2.3',
    });
    const { manifests } = blob(layout, index) as { manifests: readonly Descriptor[] };
    assert.deepEqual(
      manifests.map(({ platform }) => platform),
      [
        { architecture: 'amd64', os: 'linux' },
        { architecture: 'arm64', os: 'linux', variant: 'v8' },
      ],
    );
  });

  it('has files owned by root, an unprivileged user, and the digest of the unpacked layer', () => {
    const { folder: layout, index } = archive(root('a'));
    const { manifests } = blob(layout, index) as { manifests: readonly Descriptor[] };
    const manifest = blob(layout, manifests[0] ?? index) as {
      config: Descriptor;
      layers: readonly Descriptor[];
    };
    const config = blob(layout, manifest.config) as {
      config: { User: string; Entrypoint: readonly string[]; Labels: unknown };
      rootfs: { diff_ids: readonly string[] };
      created: string;
    };
    assert.equal(config.config.User, '65532:65532');
    assert.deepEqual(config.config.Entrypoint, ['nmi-supervise', 'nmi']);
    assert.deepEqual(config.config.Labels, facts.labels);
    assert.equal(config.created, '2023-11-14T22:13:20Z');
    const layer = join(layout, 'blobs', (manifest.layers[0]?.digest ?? '').replace(':', '/'));
    assert.equal(manifest.layers[0]?.mediaType, 'application/vnd.oci.image.layer.v1.tar+zstd');
    const tar = zstdDecompressSync(readFileSync(layer));
    assert.deepEqual(config.rootfs.diff_ids, [
      `sha256:${createHash('sha256').update(tar).digest('hex')}`,
    ]);
    const listed = spawnSync('tar', ['--list', '--verbose', '--numeric-owner'], {
      input: tar,
      encoding: 'utf8',
      env: { ...process.env, TZ: 'UTC' },
    }).stdout;
    assert.match(listed, /^-rwxr-xr-x 0\/0 +12 2023-11-14 22:13 \.\/bin\/a$/m);
  });
});
