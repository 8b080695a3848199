/**
 * The README's first commands on plain Debian systems: a root with Debian's own Node, npm, git and
 * ca-certificates, a clone of the committed files, and nothing else. Packages come from this
 * machine's sources, so its settings of apt and npm are copied into the root at run time.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isWithin, sizeOfThisRun } from '../runner/kinds.ts';
import { aptOptions, sourcesOf } from '../../scripts/image/apt-settings.ts';
import { repositoryRoot } from '../conventions/tree.ts';
import {
  copyRegistrySettings,
  findMissingTool,
  makeDebianSystem,
  registryEnvironment,
  runTool,
} from '../support/debian-system.ts';
import { isKept, keep, keyOf, testCache } from '../support/test-cache.ts';

const releases = ['bookworm', ...(isWithin('long', sizeOfThisRun()) ? ['trixie'] : [])];
const packages = ['nodejs', 'npm', 'git', 'ca-certificates'];

function whyNoDebian(): string | false {
  if (process.getuid?.() !== 0) return 'not root';
  const missing = findMissingTool('mmdebstrap', 'setpriv', 'unshare');
  if (missing !== undefined) return `${missing} is not installed`;
  return existsSync(join(repositoryRoot, '.git')) ? false : 'not a clone';
}

const weekMs = 7 * 24 * 3_600_000;

/** A Debian of this week: making one takes 41 s of a processor, a copy 4 s. */
function makeRoot(release: string, root: string): void {
  const week = Math.floor(Date.now() / weekMs);
  const key = keyOf([...packages, ...sourcesOf(release), ...aptOptions(), `${week}`]);
  const system = join(testCache, 'debian', `${release}-${key}`);
  if (!isKept(system)) {
    const make = (work: string): string => {
      const made = join(work, 'root');
      makeDebianSystem({ release, root: made, variant: 'apt', packages });
      return made;
    };
    keep(system, make, 1);
  }
  runTool('cp', '--archive', '--reflink=auto', system, root);
  copyRegistrySettings(root);
  runTool('chroot', root, 'update-ca-certificates');
  runTool('git', 'clone', '--quiet', '--no-hardlinks', repositoryRoot, join(root, 'clone'));
}

/**
 * The mounts end with the command. Process ids are those of this machine: a lab removes what labs of dead
 * processes left, and must see that another one lives.
 */
const enter = `set -e
  root=$1; shift
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount -t tmpfs run "$root/run"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  exec chroot "$root" env --chdir=/clone "$@"`;

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

async function inRoot(root: string, ...command: readonly string[]): Promise<Ran> {
  const isolated = ['unshare', '--mount', '--'];
  const script = ['sh', '-c', enter, 'sh', root, ...command];
  const child = spawn('setpriv', ['--pdeathsig=KILL', ...isolated, ...script], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/srv',
      LANG: 'C.UTF-8',
      ...registryEnvironment(),
    },
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out, err };
}

for (const release of releases) {
  describe(`a fresh clone on plain Debian ${release}`, { skip: whyNoDebian() }, () => {
    let root = '';

    before(() => {
      root = join(mkdtempSync(join(tmpdir(), 'nmi-debian-')), 'root');
      makeRoot(release, root);
    });
    after(() => {
      rmSync(dirname(root), { recursive: true, force: true });
    });

    it('sets itself up for ./dev lab, and the lab passes', async () => {
      const { code, out, err } = await inRoot(root, './dev', 'lab');
      assert.equal(code, 0, `${err}${out}`);
      assert.match(out, /^OK: (\d+) of \1 scenarios hold/m);
    });

    it('does nothing, prints nothing and needs no network the second time', async () => {
      const ran = await inRoot(root, 'unshare', '--net', './dev', 'build');
      assert.deepEqual(ran, { code: 0, out: '', err: '' });
    });

    it('makes the root of an image', async () => {
      const { code, err } = await inRoot(
        root,
        'sh',
        '-c',
        'mkdir /tmp/image && deploy/image-root.sh /tmp/image dist',
      );
      assert.equal(code, 0, err);
      for (const path of ['bin/nmi', 'usr/share/doc/libc6/copyright']) {
        assert.ok(existsSync(join(root, 'tmp/image', path)), path);
      }
    });

    it('checks its sources with Debian’s npm, and runs tests', async () => {
      const checks = await inRoot(root, 'npm', 'run', 'check', 'workflows');
      assert.equal(checks.code, 0, `${checks.err}${checks.out}`);
      const tests = await inRoot(root, './dev', 'test', 'test/conventions/text-rules.test.ts');
      assert.equal(tests.code, 0, `${tests.err}${tests.out}`);
    });
  });
}
