/**
 * `./dev image` in a fresh clone, twice: for both processors, in a folder with another name, with
 * another umask and in another time zone. Debian's packages come from this machine's sources.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { repositoryRoot } from '../conventions/tree.ts';

function whyNot(): string | false {
  for (const tool of ['apt-get', 'dpkg-deb', 'readelf', 'git']) {
    if (spawnSync(tool, ['--version']).error !== undefined) return `${tool} is not installed`;
  }
  return existsSync(join(repositoryRoot, '.git')) ? false : 'not a clone';
}

const hasBuildah = process.getuid?.() === 0 && spawnSync('buildah', ['--version']).status === 0;

interface Statement {
  readonly subject: readonly {
    readonly name: string;
    readonly digest: { readonly sha256: string };
  }[];
  readonly predicate: {
    readonly buildDefinition: {
      readonly resolvedDependencies: readonly {
        readonly name: string;
        readonly digest: Readonly<Record<string, string>>;
      }[];
    };
  };
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

describe('./dev image', { skip: whyNot() }, () => {
  let folder = '';
  let commit = '';
  let digest = '';
  let files: readonly string[] = [];
  const made = (file: string) => join(folder, 'first', file);
  const only = (end: string) => made(files.find((file) => file.endsWith(end)) ?? end);

  async function makeImage(clone: string, umask: string, timeZone: string): Promise<string> {
    const command = `umask ${umask} && exec ./dev image amd64 arm64`;
    const child = spawn('sh', ['-c', command], {
      cwd: clone,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TZ: timeZone },
    });
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
    const [code] = (await once(child, 'close')) as [number | null];
    assert.equal(code, 0, err);
    assert.doesNotMatch(err, /differ from the commit/);
    return out.trim();
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-oci-archive-'));
    const clone = join(folder, 'clone');
    spawnSync('git', ['clone', '--quiet', '--no-hardlinks', repositoryRoot, clone]);
    const head = spawnSync('git', ['-C', clone, 'rev-parse', 'HEAD'], { encoding: 'utf8' });
    commit = head.stdout.trim();
    digest = await makeImage(clone, '022', 'UTC');
    renameSync(join(clone, 'dist/image'), join(folder, 'first'));
    files = readdirSync(join(folder, 'first')).toSorted();
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it('makes an archive, a bill of materials for each processor, and the provenance', () => {
    assert.deepEqual(
      files.map((file) => file.replace(/^entra-pod-identity-[\d.]+[.-]/, '')),
      ['amd64.cdx.json', 'arm64.cdx.json', 'oci.tar', 'provenance.json'],
    );
    assert.match(digest, /^sha256:[0-9a-f]{64}$/);
  });

  it('makes the same bytes again from the same commit', async () => {
    const elsewhere = join(folder, 'elsewhere');
    renameSync(join(folder, 'clone'), elsewhere);
    assert.equal(await makeImage(elsewhere, '077', 'Asia/Tokyo'), digest);
    for (const file of files) {
      assert.equal(sha256(join(elsewhere, 'dist/image', file)), sha256(made(file)), file);
    }
  });

  it('reports what it is made of', () => {
    const { subject, predicate } = JSON.parse(
      readFileSync(only('.provenance.json'), 'utf8'),
    ) as Statement;
    assert.equal(subject[0]?.digest.sha256, digest.replace('sha256:', ''));
    for (const { name, digest: known } of subject.slice(1)) {
      assert.equal(known.sha256, sha256(made(name)), name);
    }
    const materials = predicate.buildDefinition.resolvedDependencies;
    assert.deepEqual(materials[0], { name: 'source', digest: { gitCommit: commit } });
    assert.equal(materials[1]?.digest['sha256'], sha256(join(repositoryRoot, 'package-lock.json')));
    for (const architecture of ['amd64', 'arm64']) {
      const packages = materials.filter(({ name }) => name.includes(`arch=${architecture}`));
      for (const name of ['iptables', 'libbpf-dev', 'libc6']) {
        assert.ok(
          packages.some((each) => each.name.startsWith(`pkg:deb/debian/${name}@`)),
          `${name} for ${architecture}`,
        );
      }
      const bill = readFileSync(only(`${architecture}.cdx.json`), 'utf8');
      for (const purl of ['pkg:npm/undici@', 'pkg:npm/node-linux-', 'pkg:deb/debian/iproute2@']) {
        assert.ok(bill.includes(`"purl": "${purl}`), purl);
      }
    }
  });

  it('makes archives that other tools read', { skip: hasBuildah ? false : 'no buildah' }, () => {
    for (const name of ['graph', 'run']) mkdirSync(join(folder, name));
    const storage = [`--root=${folder}/graph`, `--runroot=${folder}/run`, '--storage-driver=vfs'];
    const buildah = (...args: readonly string[]): string => {
      const run = spawnSync('buildah', [...storage, ...args], { encoding: 'utf8' });
      assert.equal(run.status, 0, run.stderr);
      return run.stdout.trim();
    };
    for (const architecture of ['amd64', 'arm64']) {
      const archive = `oci-archive:${only('.oci.tar')}`;
      const id = buildah('pull', '--quiet', `--arch=${architecture}`, archive);
      const config = buildah(
        'inspect',
        '--type=image',
        '--format={{.OCIv1.Architecture}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.User}}',
        id,
      );
      assert.equal(config, `${architecture} [nmi] 65532:65532`);
    }
  });
});
