import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { openAddressRedirect } from '../../src/redirect/address.ts';
import { RedirectError } from '../../src/redirect/redirect.ts';
import { ok, scripted, type ScriptedHost } from './scripted-host.ts';

const target = { metadataIp: '169.254.169.254', metadataPort: 80 };

/** A node that has these addresses on the agent's link; none for one without that link. */
function nodeWith(...addresses: readonly string[]): ScriptedHost {
  const held = [...addresses];
  return scripted({
    ip: (args) => {
      const added = /addr (?:add|replace) ([\d.]+)/.exec(args)?.[1];
      if (added !== undefined) held.push(added);
      if (!args.endsWith('addr show')) return ok();
      const own = {
        ifname: 'nmi0',
        flags: ['UP'],
        linkinfo: { info_kind: 'dummy' },
        addr_info: held.map((local) => ({ family: 'inet', local })),
      };
      return ok(JSON.stringify(held.length === 0 ? [] : [own]));
    },
  });
}

function changesOf({ log }: ScriptedHost): readonly string[] {
  return log.filter((line) => !line.includes('show'));
}

function isConflict(why: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof RedirectError && error.code === 'CONFLICT' && why.test(error.message);
}

describe('the address mode', () => {
  it('has the digest of the kernel', async () => {
    const host = scripted({}, { digestState: () => 7n });
    assert.equal(await openAddressRedirect({ host, target }).digest?.(), 7n);
  });

  it('takes an address at which nothing answers', async () => {
    const host = nodeWith();
    const asked: string[] = [];
    const isAnswered = (ip: string, port: number): Promise<boolean> => {
      asked.push(`${ip}:${port}`);
      return Promise.resolve(false);
    };
    const status = await openAddressRedirect({ target, host, isAnswered }).install();
    assert.equal(status.state, 'active');
    assert.deepEqual(asked, ['169.254.169.254:80']);
  });

  it('takes no address at which a real service answers', async () => {
    const host = nodeWith();
    const redirect = openAddressRedirect({ target, host, isAnswered: () => Promise.resolve(true) });
    await assert.rejects(redirect.prepare(), isConflict(/a service answers at 169\.254\.169\.254/));
    assert.deepEqual(changesOf(host), []);
    assert.equal((await redirect.verify()).state, 'absent');
  });

  it('gives a service a second to answer before it takes the address', async (t) => {
    const service = createServer().listen(0, '127.0.0.1');
    await once(service, 'listening');
    t.mock.method(AbortSignal, 'timeout', (ms: number) =>
      ms < 1_000 ? AbortSignal.abort() : new AbortController().signal,
    );
    const { port } = service.address() as AddressInfo;
    const local = { metadataIp: '127.0.0.1', metadataPort: port };
    const host = nodeWith();
    await assert.rejects(
      openAddressRedirect({ target: local, host }).prepare(),
      isConflict(/a service answers at 127\.0\.0\.1/),
    );
    service.close();
    await once(service, 'close');
    await openAddressRedirect({ target: local, host }).prepare();
  });

  it('continues where an earlier agent set the address and still answers there', async () => {
    const host = nodeWith(target.metadataIp);
    const redirect = openAddressRedirect({ target, host, isAnswered: () => Promise.resolve(true) });
    const { state, changed } = await redirect.install();
    assert.deepEqual({ state, changed }, { state: 'active', changed: [] });
  });

  it('takes nothing where another redirect was left behind', async () => {
    const host = nodeWith('169.254.25.79');
    const redirect = openAddressRedirect({
      target,
      host,
      isAnswered: () => Promise.resolve(false),
    });
    await assert.rejects(redirect.prepare(), isConflict(/another redirect was left behind/));
    assert.deepEqual(changesOf(host), []);
    const { state, problems } = await redirect.verify();
    assert.equal(state, 'broken');
    assert.match(problems.join(), /nmi0 holds 169\.254\.25\.79: another redirect was left behind/);
  });

  it('identifies callers by their address', () => {
    const redirect = openAddressRedirect({ target, host: nodeWith() });
    const peer = { remoteIp: '10.244.0.5', remotePort: 4000, localIp: target.metadataIp };
    assert.deepEqual(redirect.attest({ ...peer, localPort: 80 }), { kind: 'by-address' });
  });
});
