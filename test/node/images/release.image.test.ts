/**
 * `./dev release` in a fresh clone, twice: in a folder with another name, with another umask and in
 * another time zone. Then image and chart in a registry, and from there into a cluster, as the docs
 * have it. Debian's packages come from this machine's sources, which are pinned first.
 */
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { sourcesOf } from '../../../scripts/image/apt-settings.ts';
import type { Listing } from '../../../scripts/release/listing.ts';
import { provideCluster, provideHelm, provideRegistry } from '../../cluster/support/binaries.ts';
import { startCluster } from '../../cluster/support/cluster.ts';
import { playDaemonSets } from '../../cluster/support/daemon-set-player.ts';
import { shellBlocksOf } from '../../cluster/support/page-commands.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import { provideSkopeo, serveRegistry, type Registry } from './registry.ts';

function whyNot(): string | false {
  for (const tool of ['apt-get', 'dpkg-deb', 'readelf', 'git']) {
    if (spawnSync(tool, ['--version']).error !== undefined) return `${tool} is not installed`;
  }
  return existsSync(join(repositoryRoot, '.git')) ? false : 'not a clone';
}

const hasBuildah = process.getuid?.() === 0 && spawnSync('buildah', ['--version']).status === 0;
const [helm, registryProgram] = [provideHelm(), provideRegistry()];
const cluster = provideCluster();
const noRegistry = helm.missing ?? registryProgram.missing ?? false;
const place = 'https://example.com/releases/v1';

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

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function must(tool: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(tool, args, { encoding: 'utf8' });
  assert.equal(status, 0, `${tool} ${args.join(' ')}: ${error?.message ?? stderr}`);
  return stdout.trim();
}

/** Of all containers in a YAML text, each once. */
function imagesOf(yaml: string): readonly string[] {
  const images = [...yaml.matchAll(/^[ -]*image: "?([^"\n]+)/gm)].map(([, name = '']) => name);
  return [...new Set(images)];
}

describe('./dev release', { skip: whyNot() }, () => {
  let folder = '';
  let clone = '';
  let commit = '';
  let listing: Listing;
  let files: readonly string[] = [];
  const made = (file: string) => join(folder, 'first', file);
  const only = (end: string) => made(files.find((file) => file.endsWith(end)) ?? end);

  async function run(words: string, env: NodeJS.ProcessEnv = {}, umask = '022'): Promise<Ran> {
    const child = spawn('sh', ['-c', `umask ${umask} && exec ./dev release ${words}`], {
      cwd: clone,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, out, err };
  }

  async function release(words: string, timeZone: string, umask: string): Promise<string> {
    const { code, out, err } = await run(words, { TZ: timeZone }, umask);
    assert.equal(code, 0, err);
    return out;
  }

  const git = (...words: readonly string[]): string =>
    must('git', '-C', clone, '-c', 'user.name=a', '-c', 'user.email=a@example.com', ...words);

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-release-'));
    clone = join(folder, 'clone');
    must('git', 'clone', '--quiet', '--no-hardlinks', repositoryRoot, clone);
    writeFileSync(join(folder, 'sources.list'), `${sourcesOf('trixie').join('\n')}\n`);
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it('refuses a Debian that is not pinned', async () => {
    rmSync(join(clone, 'scripts/image/debian-pin.json'), { force: true });
    const { code, err } = await run(place);
    assert.deepEqual(
      [code, err.includes('debian-pin.json is missing: run ./dev release pin')],
      [1, true],
      err,
    );
  });

  it('pins the Debian of these sources', async () => {
    await release('pin --sources ../sources.list', 'UTC', '022');
    const pin = readFileSync(join(clone, 'scripts/image/debian-pin.json'), 'utf8');
    assert.match(pin, /"snapshot": "\d{8}T\d{6}Z"/);
    assert.match(pin, /"trixie": "[0-9a-f]{64}"/);
  });

  it('refuses files that differ from the commit, and a tag of another version', async () => {
    const changed = await run(place);
    assert.match(changed.err, /files differ from the commit/);
    git('add', '.');
    git('commit', '--quiet', '--message=release: pin Debian');
    commit = git('rev-parse', 'HEAD');
    git('tag', 'v9.9.9');
    const tagged = await run(place);
    assert.match(tagged.err, /the commit has the tag v9\.9\.9/);
    assert.deepEqual([changed.code, tagged.code], [1, 1]);
    git('tag', '--delete', 'v9.9.9');
  });

  it('refuses another Debian than the pinned one', async () => {
    const file = join(clone, 'scripts/image/debian-pin.json');
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, text.replace(/"trixie": ".*"/, `"trixie": "${'0'.repeat(64)}"`));
    git('commit', '--quiet', '--all', '--message=release: pin another Debian');
    const { code, err } = await run(`${place} --sources ../sources.list`);
    git('reset', '--quiet', '--hard', commit);
    assert.equal(code, 1);
    assert.match(err, /trixie is not the Debian of \d{8}T\d{6}Z that is pinned/);
  });

  it('makes all that users install, and lists it', async () => {
    await release(`${place} --sources ../sources.list`, 'UTC', '022');
    renameSync(join(clone, 'dist/release'), join(folder, 'first'));
    files = readdirSync(join(folder, 'first')).toSorted();
    assert.deepEqual(
      files.map((file) => file.replace(/-v?\d+\.\d+\.\d+/, '-V')),
      [
        ...['SHA256SUMS', 'crds.yaml', 'entra-pod-identity-V-amd64.cdx.json'],
        ...['entra-pod-identity-V-arm64.cdx.json', 'entra-pod-identity-V.chart.oci.tar'],
        ...['entra-pod-identity-V.oci.tar', 'entra-pod-identity-V.provenance.json'],
        ...['entra-pod-identity-V.tgz', 'kubectl-nmi-V-linux-amd64.tar.gz'],
        ...['kubectl-nmi-V-linux-arm64.tar.gz', 'kubectl-nmi-V.krew.yaml', 'kubectl-nmi-V.tar.gz'],
        'release.json',
      ],
    );
    const checked = spawnSync('sha256sum', ['--check', '--quiet', 'SHA256SUMS'], {
      cwd: join(folder, 'first'),
    });
    assert.equal(checked.status, 0);
    assert.equal(
      readFileSync(made('SHA256SUMS'), 'utf8').trim().split('\n').length,
      files.length - 1,
    );
    listing = JSON.parse(readFileSync(made('release.json'), 'utf8')) as Listing;
    assert.equal(listing.commit, commit);
    for (const { digest } of [listing.image, listing.chart]) {
      assert.match(digest, /^sha256:[0-9a-f]{64}$/);
    }
  });

  it('makes the same bytes again from the same commit', async () => {
    const elsewhere = join(folder, 'elsewhere');
    renameSync(clone, elsewhere);
    clone = elsewhere;
    await release(`${place} --sources ../sources.list`, 'Asia/Tokyo', '077');
    const isOther = (file: string) =>
      sha256(join(elsewhere, 'dist/release', file)) !== sha256(made(file));
    assert.deepEqual(files.filter(isOther), []);
  });

  it('reports what it is made of', () => {
    const { subject, predicate } = JSON.parse(
      readFileSync(only('.provenance.json'), 'utf8'),
    ) as Statement;
    const [image, chart, ...others] = subject;
    assert.equal(`sha256:${image?.digest.sha256 ?? ''}`, listing.image.digest);
    assert.equal(`sha256:${chart?.digest.sha256 ?? ''}`, listing.chart.digest);
    // All but itself and the lists.
    assert.equal(others.length, files.length - 3);
    for (const { name, digest: known } of others) {
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
    const buildah = (...args: readonly string[]): string => must('buildah', ...storage, ...args);
    for (const architecture of ['amd64', 'arm64']) {
      const archive = `oci-archive:${made(listing.image.archive)}`;
      const id = buildah('pull', '--quiet', `--arch=${architecture}`, archive);
      const config = buildah(
        'inspect',
        '--type=image',
        '--format={{.OCIv1.Architecture}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.User}}',
        id,
      );
      assert.equal(config, `${architecture} [nmi-supervise nmi] 65532:65532`);
    }
  });

  it('packs the plugin, also for machines without Node.js', () => {
    for (const [end, env] of [
      [`${listing.version}.tar.gz`, process.env],
      [`linux-${process.arch === 'arm64' ? 'arm64' : 'amd64'}.tar.gz`, { PATH: '/nowhere' }],
    ] as const) {
      const unpacked = mkdtempSync(join(folder, 'plugin-'));
      must('tar', '--extract', `--file=${only(end)}`, `--directory=${unpacked}`);
      const { stdout } = spawnSync(join(unpacked, 'kubectl-nmi'), ['explain', '--help'], {
        encoding: 'utf8',
        env,
      });
      assert.match(stdout, /^Examples:\n {2}kubectl nmi explain /m, end);
    }
  });

  describe('in a registry', { skip: noRegistry }, () => {
    let registry: Registry | undefined;
    let env: NodeJS.ProcessEnv = {};
    let programs = '';

    before(async () => {
      // What the other tests have looked at, even if it was not made again byte by byte.
      rmSync(join(clone, 'dist/release'), { recursive: true, force: true });
      cpSync(join(folder, 'first'), join(clone, 'dist/release'), { recursive: true });
      programs = join(folder, 'programs');
      mkdirSync(programs);
      symlinkSync(provideSkopeo(), join(programs, 'skopeo'));
      symlinkSync(helm.programs ?? '', join(programs, 'helm'));
      registry = await serveRegistry(registryProgram.programs ?? '', join(folder, 'registry'));
      env = { ...registry.env, PATH: `${programs}:${process.env['PATH'] ?? ''}` };
    });
    after(() => registry?.[Symbol.asyncDispose]());

    const team = (): string => `${registry?.host ?? ''}/team`;
    const runTool = (tool: string, ...words: readonly string[]): string => {
      const { status, stdout, stderr } = spawnSync(join(programs, tool), words, {
        encoding: 'utf8',
        env: { ...process.env, ...env },
        cwd: folder,
      });
      assert.equal(status, 0, `${tool} ${words.join(' ')}: ${stderr}`);
      return stdout.trim();
    };

    it('refuses a release that has changed', async () => {
      const file = join(clone, 'dist/release/crds.yaml');
      const content = readFileSync(file);
      writeFileSync(file, 'other');
      const { code, err } = await run(`push ${team()}`, env);
      writeFileSync(file, content);
      assert.deepEqual([code, err], [1, 'release: crds.yaml is not that of SHA256SUMS\n']);
    });

    it('is there by the digests that it lists, once and again', async () => {
      for (const time of ['first', 'second']) {
        const { code, out, err } = await run(`push ${team()}`, env);
        assert.equal(code, 0, `${time}: ${err}`);
        const { image, chart } = listing;
        assert.equal(
          out,
          `${team()}/entra-pod-identity@${image.digest}\n${team()}/charts/entra-pod-identity@${chart.digest}\n`,
        );
      }
    });

    it('has every byte of the image, for both processors', () => {
      const { digest, archive } = listing.image;
      const [pulled, packed] = [join(folder, 'pulled'), join(folder, 'packed')];
      const from = `docker://${team()}/entra-pod-identity@${digest}`;
      runTool('skopeo', 'copy', '--quiet', '--all', '--preserve-digests', from, `oci:${pulled}:x`);
      mkdirSync(packed);
      must('tar', '--extract', `--file=${made(archive)}`, `--directory=${packed}`);
      const blobs = (layout: string) => readdirSync(join(layout, 'blobs/sha256')).toSorted();
      // An index, and manifest, configuration and layer for each.
      assert.equal(blobs(packed).length, 7);
      assert.deepEqual(blobs(pulled), blobs(packed));
      for (const blob of blobs(packed))
        assert.equal(sha256(join(pulled, 'blobs/sha256', blob)), blob);
    });

    it('has the chart, which renders pods with that image', () => {
      const chart = `oci://${team()}/charts/entra-pod-identity`;
      const version = `--version=${listing.version}`;
      runTool('helm', 'pull', chart, version, `--destination=${folder}`);
      const file = `entra-pod-identity-${listing.version}.tgz`;
      assert.equal(sha256(join(folder, file)), sha256(made(file)));
      const values = [
        `--set=image.repository=${team()}`,
        `--set=image.digest=${listing.image.digest}`,
      ];
      const yaml = runTool('helm', 'template', 'nmi', chart, version, ...values);
      assert.deepEqual(imagesOf(yaml), [`${team()}/entra-pod-identity@${listing.image.digest}`]);
    });

    it('is what the quick start needs', { skip: cluster.missing ?? false }, async () => {
      if (cluster.programs === undefined) return;
      await using server = await startCluster(cluster.programs);
      await using _ = playDaemonSets(server.admin);
      const type = async (script: string): Promise<void> => {
        assert.notEqual(script.trim(), '');
        await promisify(execFile)('sh', ['-euxc', script.replaceAll('REGISTRY', team())], {
          cwd: repositoryRoot,
          timeout: 120_000,
          env: {
            ...env,
            ...{ NAMESPACE: 'demo' },
            ...{ CLIENT_ID: randomUUID(), TENANT_ID: randomUUID() },
            PATH: `${dirname(server.binaries.kubectl)}:${env['PATH'] ?? ''}`,
            HOME: server.folder,
            KUBECONFIG: server.adminKubeconfig,
          },
        });
      };
      const blocks = (page: string, heading: string): readonly string[] =>
        shellBlocksOf(readFileSync(join(repositoryRoot, 'docs', page), 'utf8'), heading);
      const [install = ''] = blocks('install.md', 'Install a release');
      await type(install);
      const [federation = ''] = blocks('quickstart.md', '2. Let the cluster use it');
      const [upgrade = ''] = /^helm .*$/m.exec(federation) ?? [];
      const chart = `oci://REGISTRY/charts/entra-pod-identity --version ${listing.version}`;
      await type(upgrade.replace('deploy/chart', chart));
      const [namespaceAndBinding = '', identity = ''] = blocks(
        'quickstart.md',
        '3. Create the Kubernetes objects',
      );
      await type(namespaceAndBinding);
      await type(identity);
      const [pod = ''] = blocks('quickstart.md', '4. Run a pod');
      // No kubelet runs it here.
      await type(pod.replace(/^kubectl .*\n/gm, ''));
      const name = `${team()}/entra-pod-identity:${listing.version}`;
      for (const object of [
        ...['kube-system daemonset/nmi', 'kube-system deployment/nmi-conditions'],
        'demo deployment/demo',
      ]) {
        const [namespace = '', what = ''] = object.split(' ');
        const yaml = await server.kubectl(['get', what, '--namespace', namespace, '-o', 'yaml']);
        assert.deepEqual(imagesOf(yaml), [name], object);
      }
      const index = runTool('skopeo', 'inspect', '--raw', `docker://${name}`);
      const actual = createHash('sha256').update(index).digest('hex');
      assert.equal(`sha256:${actual}`, listing.image.digest);
    });
  });
});
