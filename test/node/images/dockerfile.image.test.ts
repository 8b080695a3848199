/**
 * The Dockerfile, built by buildah on a base that mmdebstrap makes under the base's name, since the
 * registry with the real one is not reachable from everywhere. Packages come from this machine's
 * sources; its trusted certificates are passed as by a user behind a proxy.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { aptOptions, sourcesOf } from '../../../scripts/image/apt-settings.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

const image = 'nmi:test';

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return 'not root';
  for (const tool of ['mmdebstrap', 'buildah', 'unshare']) {
    if (spawnSync(tool, ['--version']).error !== undefined) return `${tool} is not installed`;
  }
  return existsSync(join(repositoryRoot, '.git')) ? false : 'not a clone';
}

interface Ran {
  readonly code: number | null;
  readonly text: string;
}

describe('the Dockerfile', { skip: whyNot() }, () => {
  let folder = '';
  let clone = '';

  async function run(tool: string, ...args: readonly string[]): Promise<Ran> {
    const child = spawn(tool, args, {
      cwd: clone === '' ? folder : clone,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, CONTAINERS_STORAGE_CONF: join(folder, 'storage.conf') },
    });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (more: string) => (text += more));
    }
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, text };
  }

  async function must(tool: string, ...args: readonly string[]): Promise<string> {
    const { code, text } = await run(tool, ...args);
    assert.equal(code, 0, `${tool} ${args.join(' ')}: ${text}`);
    return text.trim();
  }

  function build(): Promise<Ran> {
    const bundle = process.env['NODE_EXTRA_CA_CERTS'] ?? process.env['SSL_CERT_FILE'];
    const secret = bundle === undefined ? [] : [`--secret=id=ca,src=${bundle}`];
    const options = ['--isolation=chroot', '--pull-never', '--layers', ...secret];
    return run('buildah', 'build', ...options, '-f', 'deploy/Dockerfile', '-t', image, '.');
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-dockerfile-'));
    for (const name of ['graph', 'run', 'base']) mkdirSync(join(folder, name));
    writeFileSync(
      join(folder, 'storage.conf'),
      `[storage]\ndriver = "overlay"\ngraphroot = "${folder}/graph"\nrunroot = "${folder}/run"\n`,
    );
    const base = join(folder, 'base');
    const options = aptOptions().map((option) => `--aptopt=${option}`);
    const debootstrap = ['--quiet', '--mode=root', '--variant=minbase', ...options];
    // Its mounts end with it, however it ends.
    const alone = ['--mount', '--', 'mmdebstrap'];
    await must('unshare', ...alone, ...debootstrap, 'trixie', base, ...sourcesOf('trixie'));
    for (const [key, path] of [
      ['userconfig', 'root/.npmrc'],
      ['globalconfig', 'etc/npmrc'],
    ] as const) {
      const file = spawnSync('npm', ['config', 'get', key], { encoding: 'utf8' }).stdout.trim();
      if (!existsSync(file)) continue;
      // Paths of this machine only.
      const lines = readFileSync(file, 'utf8').split('\n');
      const kept = lines.filter((line) => !/^\s*(?:cafile|nodedir|prefix|cache)\b/.test(line));
      writeFileSync(join(base, path), kept.join('\n'));
    }
    const container = await must('buildah', 'from', 'scratch');
    await must('buildah', 'add', '--quiet', container, base, '/');
    await must('buildah', 'commit', '--quiet', container, 'docker.io/library/debian:trixie-slim');
    await must('buildah', 'rm', container);
    await must('git', 'clone', '--quiet', '--no-hardlinks', repositoryRoot, join(folder, 'clone'));
    clone = join(folder, 'clone');
  });
  after(async () => {
    await run('buildah', 'rm', '--all');
    await run('buildah', 'rmi', '--all', '--force');
    rmSync(folder, { recursive: true, force: true });
  });

  it('builds an image in which every program starts', async () => {
    const { code, text } = await build();
    assert.equal(code, 0, text.slice(-20_000));
  });

  it('repeats only the build when a source changes', async () => {
    appendFileSync(join(clone, 'CHANGELOG.md'), '\n');
    const { code, text } = await build();
    assert.equal(code, 0, text.slice(-20_000));
    assert.doesNotMatch(text, /^dev: (?:installing|fetching)|^Get:\d/m);
  });

  it('keeps nothing of the build in the image, neither certificates nor settings', async () => {
    const container = await must('buildah', 'from', '--pull-never', `localhost/${image}`);
    const root = await must('buildah', 'mount', container);
    const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
    assert.ok(files.includes('bin/nmi'));
    assert.deepEqual(
      files.filter((path) => /\.(?:pem|crt)$|npmrc|secrets|(?:^|\/)ca(?:\/|$)|apt/.test(path)),
      [],
    );
    await must('buildah', 'umount', container);
  });
});
