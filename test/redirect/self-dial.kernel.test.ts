/** What it takes to dial as a pod does, and that nothing of it is left behind. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openCgroupTree } from './cgroup-ground.ts';
import { openNamespace, sweepDeadNamespaces, whyNoKernelTests } from './namespaces.ts';

const source = join(import.meta.dirname, '..', '..', 'src');
const skip = await whyNoKernelTests('setpriv', 'nsenter');

describe('a place to dial from', { skip }, async () => {
  if (skip !== false) return;
  await sweepDeadNamespaces();
  const space = await openNamespace();
  const tree = openCgroupTree();
  after(async () => {
    await space[Symbol.asyncDispose]();
    tree.close();
  });
  await space.run('ip addr add 169.254.25.79/32 dev lo');
  // What stands for the metadata address is the node's own, so that no redirect is needed.
  const server = space.start(`
    require('node:http').createServer((request, response) => {
      console.log(request.socket.remoteAddress + ' ' + request.url);
      response.writeHead(418).end();
    }).listen(2579, '169.254.25.79', () => console.log('listening'));
  `);
  assert.equal(await server.line(), 'listening');

  function dial(podsRoot: string | undefined, capabilities = '', uid = 0) {
    const script = `
      import('${source}/redirect/self-dial.ts').then(async ({ createSelfDial }) => {
        const target = { metadataIp: '169.254.25.79', metadataPort: 2579,
          listenIp: '169.254.25.79', listenPort: 2579 };
        const dial = createSelfDial({ target, self: [process.execPath, '${source}/main.ts'],
          podsRoot: ${podsRoot === undefined ? 'undefined' : `() => '${podsRoot}'`} });
        const outcome = await dial('/a/path');
        console.log(JSON.stringify(outcome, (_, value) =>
          typeof value === 'bigint' ? String(value) : value));
      });
    `;
    const set = capabilities === '' ? '-all' : `-all,${capabilities}`;
    const who = uid === 0 ? [] : [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
    const child = spawnSync(
      'nsenter',
      [
        ...[`--net=/run/netns/${space.name}`, '--', 'setpriv', ...who],
        ...[`--bounding-set=${set}`, '--inh-caps=-all', '--'],
        ...[process.execPath, '-e', script],
      ],
      { encoding: 'utf8', timeout: 60_000 },
    );
    assert.equal(child.status, 0, child.stderr);
    return JSON.parse(child.stdout) as Readonly<Record<string, unknown>>;
  }

  async function assertNothingLeft(): Promise<void> {
    assert.doesNotMatch(await space.run('ip -o link'), /nmist/);
    assert.ok(!readdirSync('/run/netns').includes('nmi-self-test-2579'));
    const folders = readdirSync(tree.path, { withFileTypes: true });
    assert.deepEqual(
      folders.filter((entry) => entry.isDirectory()).map(({ name }) => name),
      [],
    );
  }

  it('is a network namespace with a link to the node, for SYS_ADMIN and NET_ADMIN', async () => {
    const outcome = dial(undefined, '+sys_admin,+net_admin');
    assert.deepEqual(outcome, { kind: 'answered', status: 418 });
    assert.equal(await server.line(), '169.254.25.82 /a/path');
    await assertNothingLeft();
  });

  it('is impossible with what the DaemonSet has, and says what it takes', async () => {
    const outcome = dial(undefined, '+net_admin,+net_raw,+bpf');
    assert.equal(outcome['kind'], 'impossible');
    assert.match(String(outcome['why']), /^needs CAP_SYS_ADMIN/);
    await assertNothingLeft();
  });

  it('is a cgroup where programs look at those: no capability, but a tree to write to', async () => {
    const outcome = dial(tree.path);
    assert.equal(outcome['kind'], 'answered');
    assert.match(String(outcome['cgroupId']), /^\d+$/);
    assert.equal(await server.line(), '169.254.25.79 /a/path');
    await assertNothingLeft();
  });

  it('is impossible below a tree that is not for it to write to', async () => {
    const outcome = dial('/proc');
    assert.equal(outcome['kind'], 'impossible');
    await assertNothingLeft();
  });
});
