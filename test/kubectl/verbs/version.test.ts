import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAgentPod, failed, ok, play } from '../support/recorded-kubectl.ts';

describe('kubectl nmi version', () => {
  it('is that of the plugin alone with --client', async () => {
    const { stdout, calls } = await play(['version', '--client']);
    assert.match(stdout, /^plugin: 0\.0\.0-source [^\n]*\n$/);
    assert.deepEqual(calls, []);
  });

  it('is that of kubectl, server and agents too', async () => {
    const other = () =>
      ok('{"clientVersion":{"gitVersion":"v1.37.1"},"serverVersion":{"gitVersion":"v1.34.2"}}');
    const { stdout } = await play(['version'], {
      objects: { pods: [createAgentPod('a'), createAgentPod('b')] },
      other,
    });
    assert.match(stdout, /\nkubectl: v1\.37\.1\nserver: v1\.34\.2\nagents: 0\.1\.0 on 2 nodes\n$/);
  });

  it('continues without a server', async () => {
    const { stdout, code } = await play(['version'], {
      forbidden: { pods: 'everywhere' },
      other: () => failed('Unable to connect to the server: x'),
    });
    assert.equal(code, 0);
    assert.match(stdout, /kubectl: unknown\nserver: not reached\nagents: not visible to you\n$/);
  });
});
