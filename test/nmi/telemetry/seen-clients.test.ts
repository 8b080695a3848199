import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SeenClients } from '../../../src/nmi/telemetry/seen-clients.ts';

const python = (minor: number) => `azsdk-python-identity/1.${minor}.0 Python/3.12`;

describe('the clients that were seen', () => {
  it('are those of a pod, each once, and of no other pod', () => {
    const clients = new SeenClients();
    for (const each of [python(13), 'curl/8', python(13), 'wget/1']) {
      clients.see('a', each, 'cgroup');
    }
    assert.deepEqual(clients.of('a'), ['azsdk-python-identity/1.13.0', 'other']);
    assert.deepEqual(clients.of('b'), []);
    assert.deepEqual([clients.identifiedBy('a'), clients.identifiedBy('b')], [['cgroup'], []]);
    clients.see('a', 'curl/8', 'link');
    clients.see('a', 'curl/8', undefined);
    assert.deepEqual(clients.identifiedBy('a'), ['cgroup', 'link']);
  });

  it('are four of a pod, the latest ones', () => {
    const clients = new SeenClients();
    clients.see('quiet', python(1), 'cgroup');
    for (let minor = 0; minor < 1_000; minor++) clients.see('noisy', python(minor), 'cgroup');
    assert.deepEqual(
      clients.of('noisy'),
      [996, 997, 998, 999].map((minor) => `azsdk-python-identity/1.${minor}.0`),
    );
    assert.deepEqual(clients.of('quiet'), ['azsdk-python-identity/1.1.0']);
  });

  it('are of a thousand pods, the latest ones', () => {
    const clients = new SeenClients();
    for (let pod = 0; pod < 1_001; pod++) clients.see(`uid-${pod}`, python(1), 'cgroup');
    assert.deepEqual(clients.of('uid-0'), []);
    assert.equal(clients.of('uid-1').length, 1);
    assert.equal(clients.of('uid-1000').length, 1);
  });
});
