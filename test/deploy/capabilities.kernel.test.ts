import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import {
  openNamespace,
  sweepDeadNamespaces,
  whyNoKernelTests,
  whyNoLegacyTables,
} from '../kernel/redirect/namespaces.ts';

const main = join(import.meta.dirname, '..', '..', 'src', 'main.ts');
const skip = await whyNoKernelTests('iptables-nft', 'iptables-legacy', 'setpriv', 'nsenter');

describe('the capabilities of the DaemonSet', { skip }, async () => {
  if (skip !== false) return;
  await sweepDeadNamespaces();
  const noLegacy = await whyNoLegacyTables();
  const space = await openNamespace();
  after(() => space[Symbol.asyncDispose]());

  /** Runs `nmi redirect ACTION` as uid 0 with only these capabilities. */
  function redirect(action: string, backend: string, capabilities: string) {
    const bounding = `--bounding-set=-all${capabilities}`;
    const words = [main, 'redirect', action, `--iptables-backend=${backend}`];
    return spawnSync(
      'nsenter',
      [
        ...[`--net=/run/netns/${space.name}`, '--'],
        ...['setpriv', bounding, '--inh-caps=-all', '--', process.execPath, ...words],
      ],
      { encoding: 'utf8', timeout: 60_000 },
    );
  }

  for (const backend of ['nft', 'legacy']) {
    const without = backend === 'nft' ? false : noLegacy;
    it(`are enough for the redirect with iptables ${backend}`, { skip: without }, () => {
      for (const action of ['install', 'verify', 'remove']) {
        const run = redirect(action, backend, ',+net_admin,+net_raw');
        assert.equal(run.status, 0, `${action}: ${run.stdout}${run.stderr}`);
      }
    });
  }

  it('are all needed: without NET_ADMIN nothing', () => {
    const without = redirect('install', 'nft', ',+net_raw');
    assert.equal(without.status, 69);
    assert.match(without.stderr, /NOT_PERMITTED/);
  });

  it('are all needed: without NET_RAW no legacy iptables', { skip: noLegacy }, () => {
    const legacy = redirect('install', 'legacy', ',+net_admin');
    assert.equal(legacy.status, 69);
    assert.match(legacy.stderr, /NOT_PERMITTED/);
    assert.equal(redirect('remove', 'nft', ',+net_admin,+net_raw').status, 0);
  });
});
