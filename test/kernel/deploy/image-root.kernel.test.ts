/**
 * The files of the image as a separate root: they start, and the redirect works with nothing else,
 * in a network namespace and with the capabilities of the DaemonSet.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import {
  openNamespace,
  sweepDeadNamespaces,
  whyNoKernelTests,
  whyNoLegacyTables,
} from '../redirect/namespaces.ts';

const repository = join(import.meta.dirname, '../../..');
const dist = join(repository, 'dist');
const tools = ['iptables-nft', 'iptables-legacy', 'setpriv', 'nsenter', 'unshare'];
const skip =
  (await whyNoKernelTests(...tools)) ||
  (existsSync(join(dist, 'nmi')) ? false : 'dist/nmi is not built');

describe('the files of the image', { skip }, async () => {
  if (skip !== false) return;
  await sweepDeadNamespaces();
  const noLegacy = await whyNoLegacyTables();
  const space = await openNamespace();
  after(() => space[Symbol.asyncDispose]());
  const root = await mkdtemp(join(tmpdir(), 'nmi-image-'));
  after(() => rm(root, { recursive: true, force: true }));
  const made = spawnSync(join(repository, 'deploy/image-root.sh'), [root, dist], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(made.status, 0, made.stderr);

  /** Enters the namespaces, mounts their /proc and /sys, and sees none of the machine's files. */
  const script = `set -e
    root=$1 capabilities=$2; shift 2
    mount -t proc proc "$root/proc"; mount -t sysfs sysfs "$root/sys"
    exec env -i PATH=/bin:/sbin:/usr/bin:/usr/sbin \
      setpriv --bounding-set="-all$capabilities" --inh-caps=-all -- chroot "$root" "$@"`;
  function inImage(...words: readonly string[]) {
    // chroot itself needs the third; in its image the agent does not need it.
    const capabilities = ',+net_admin,+net_raw,+sys_chroot';
    const enter = [`--net=/run/netns/${space.name}`, '--', 'unshare', '--mount', '--'];
    return spawnSync(
      'nsenter',
      [...enter, 'sh', '-c', script, 'sh', root, capabilities, ...words],
      {
        encoding: 'utf8',
        timeout: 60_000,
      },
    );
  }

  it('all start', () => {
    for (const words of [
      ['nmi', '--version'],
      ['ip', '-V'],
      ['iptables-nft-restore', '--version'],
      ['iptables-legacy-restore', '--version'],
      ['sleep', '0'],
    ]) {
      const run = inImage(...words);
      assert.equal(run.status, 0, `${words.join(' ')}: ${run.stdout}${run.stderr}`);
    }
  });

  it('come with the licenses of third-party code', async () => {
    const docs = join(root, 'usr/share/doc');
    assert.match(await readFile(join(docs, 'nmi/THIRD-PARTY-NOTICES.txt'), 'utf8'), /libelf/);
    const packages = await readdir(docs);
    for (const name of ['iptables', 'iproute2', 'libc6']) {
      assert.ok(packages.includes(name), `${name} of ${packages.join(', ')}`);
      assert.match(await readFile(join(docs, name, 'copyright'), 'utf8'), /licen[cs]e|GPL/i);
    }
    // The copyright files refer to it.
    assert.match(await readFile(join(root, 'usr/share/common-licenses/GPL-2'), 'utf8'), /GNU/);
  });

  it('name their packages where vulnerability scanners look', async () => {
    const status = join(root, 'var/lib/dpkg/status.d');
    for (const name of ['iptables', 'iproute2', 'libc6', 'libstdc++6']) {
      const text = await readFile(join(status, name), 'utf8');
      assert.match(text, new RegExp(`^Package: ${name.replaceAll('+', '\\+')}$`, 'm'));
      assert.match(text, /^Version: \d/m);
    }
    assert.match(await readFile(join(root, 'etc/os-release'), 'utf8'), /^ID=debian$/m);
  });

  it('contain no shell and no package manager', () => {
    for (const name of ['sh', 'bash', 'dpkg', 'apt-get', 'perl']) {
      assert.equal(inImage(name).status, 127, name);
    }
  });

  for (const backend of ['nft', 'legacy']) {
    const without = backend === 'nft' ? false : noLegacy;
    it(`are enough for the redirect with iptables ${backend}`, { skip: without }, () => {
      for (const action of ['install', 'verify', 'remove']) {
        const run = inImage('nmi', 'redirect', action, `--iptables-backend=${backend}`);
        assert.equal(run.status, 0, `${action}: ${run.stdout}${run.stderr}`);
      }
    });
  }
});
