/** The archives of a release that registries take: the image, and the chart. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { zstdDecompressSync } from 'node:zlib';
import { writeArchive, type Descriptor } from '../../../scripts/image/oci.ts';
import { packChart } from '../../../scripts/release/chart.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

const digestOf = (content: Buffer): string =>
  `sha256:${createHash('sha256').update(content).digest('hex')}`;

let folder = '';
let number = 0;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-oci-'));
});
after(() => {
  rmSync(folder, { recursive: true, force: true });
});

function contentOf(layout: string, { digest, size }: Descriptor): Buffer {
  const content = readFileSync(join(layout, 'blobs', digest.replace(':', '/')));
  assert.deepEqual([content.length, digestOf(content)], [size, digest]);
  return content;
}

const parsed = (layout: string, descriptor: Descriptor | undefined): unknown =>
  JSON.parse(contentOf(layout, descriptor ?? assert.fail()).toString());

interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations: unknown;
}

describe('the image as an OCI archive', () => {
  const facts = {
    epoch: 1_700_000_000,
    version: '1.2.3',
    name: 'localhost/an-image:1.2.3',
    labels: { title: 'an image' },
  };

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
    const layout = join(folder, `layout-${number++}`);
    const architectures = ['amd64', 'arm64'] as const;
    const images = roots.map((each, index) => ({
      architecture: architectures[index] ?? 'amd64',
      root: each,
    }));
    const index = writeArchive(layout, `${layout}.tar`, images, facts);
    return { layout, index, bytes: readFileSync(`${layout}.tar`) };
  }

  it('has the same bytes for the same files, whenever they were written', () => {
    const [one, other] = [archive(root('a', 'b')), archive(root('b', 'a'))];
    assert.ok(one.bytes.equals(other.bytes) && one.index.digest === other.index.digest);
    assert.notEqual(archive(root('a')).index.digest, one.index.digest);
  });

  it('has one index of a manifest for each processor', () => {
    const { layout, index } = archive(root('a'), root('b'));
    const top = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
      manifests: readonly Descriptor[];
    };
    const [{ digest, annotations } = assert.fail(), ...others] = top.manifests;
    assert.deepEqual([digest, others], [index.digest, []]);
    // Of the tools that copy an archive, and of containerd.
    assert.deepEqual(annotations, {
      'org.opencontainers.image.ref.name': '1.2.3',
      'io.containerd.image.name': 'localhost/an-image:1.2.3',
    });
    const { manifests } = parsed(layout, index) as { manifests: readonly Descriptor[] };
    assert.deepEqual(
      manifests.map(({ platform }) => platform),
      [
        { architecture: 'amd64', os: 'linux' },
        { architecture: 'arm64', os: 'linux', variant: 'v8' },
      ],
    );
  });

  it('has files owned by root, an unprivileged user, and the digest of the unpacked layer', () => {
    const { layout, index } = archive(root('a'));
    const { manifests } = parsed(layout, index) as { manifests: readonly Descriptor[] };
    const manifest = parsed(layout, manifests[0]) as Manifest;
    const { config, rootfs, created } = parsed(layout, manifest.config) as {
      readonly config: Readonly<Record<string, unknown>>;
      readonly rootfs: { readonly diff_ids: readonly string[] };
      readonly created: string;
    };
    assert.deepEqual(
      [config['User'], config['Entrypoint'], config['Labels'], created],
      ['65532:65532', ['nmi-supervise', 'nmi'], facts.labels, '2023-11-14T22:13:20Z'],
    );
    const [layer = assert.fail()] = manifest.layers;
    assert.equal(layer.mediaType, 'application/vnd.oci.image.layer.v1.tar+zstd');
    const tar = zstdDecompressSync(contentOf(layout, layer));
    assert.deepEqual(rootfs.diff_ids, [digestOf(tar)]);
    const listed = spawnSync('tar', ['--list', '--verbose', '--numeric-owner'], {
      input: tar,
      encoding: 'utf8',
      env: { ...process.env, TZ: 'UTC' },
    }).stdout;
    assert.match(listed, /^-rwxr-xr-x 0\/0 +12 2023-11-14 22:13 \.\/bin\/a$/m);
  });
});

describe('the chart of a release', () => {
  const packageFile = readFileSync(join(repositoryRoot, 'package.json'), 'utf8');
  const { version } = JSON.parse(packageFile) as { readonly version: string };
  let chart = '';
  before(() => {
    chart = join(folder, 'a-chart');
    cpSync(join(repositoryRoot, 'deploy/chart'), chart, { recursive: true });
  });

  function packAs(wanted: string) {
    const [results, work] = [join(folder, `results-${number}`), join(folder, `work-${number++}`)];
    for (const made of [results, work]) mkdirSync(made);
    const facts = { version: wanted, epoch: 1_700_000_000, labels: { title: 'a chart' } };
    const packed = packChart({ chart, results, work, ...facts });
    const [plain, archive] = [packed.packed, packed.archive].map((file) =>
      readFileSync(join(results, file)),
    );
    assert.ok(plain !== undefined && archive !== undefined);
    return { ...packed, plain, archive, path: join(results, packed.packed), work };
  }

  it('has the folder that helm expects, the same bytes whatever the umask was, and one version', () => {
    const one = packAs(version);
    chmodSync(join(chart, 'values.yaml'), 0o600);
    const other = packAs(version);
    assert.equal(one.packed, `entra-pod-identity-${version}.tgz`);
    assert.ok(one.plain.equals(other.plain) && one.archive.equals(other.archive));
    const { stdout } = spawnSync('tar', ['-tzf', one.path], { encoding: 'utf8' });
    const names = stdout.trim().split('\n');
    for (const file of ['Chart.yaml', 'crds/crds.yaml']) {
      assert.ok(names.includes(`entra-pod-identity/${file}`), stdout);
    }
    assert.ok(names.every((name) => name.startsWith('entra-pod-identity/')));
    assert.throws(() => packAs('9.9.9'), /Chart\.yaml has another version than 9\.9\.9/);
  });

  it('is the artifact that helm pulls: its configuration is Chart.yaml, its layer the packed chart', () => {
    const { work, plain, manifest } = packAs(version);
    const layout = join(work, 'chart-layout');
    const { config, layers, annotations } = parsed(layout, manifest) as Manifest;
    assert.deepEqual(annotations, { title: 'a chart' });
    const { name, appVersion } = parsed(layout, config) as Readonly<Record<string, unknown>>;
    assert.deepEqual([name, appVersion], ['entra-pod-identity', version]);
    const types = [config, ...layers].map(({ mediaType }) => mediaType.split('.cncf.helm.')[1]);
    assert.deepEqual(types, ['config.v1+json', 'chart.content.v1.tar+gzip']);
    assert.equal(layers[0]?.digest, digestOf(plain));
  });
});
