import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { hasFlag, options } from '../../../src/nmi/config/options.ts';
import { shownFlags } from '../../../src/nmi/config/shown-flags.ts';

function shown(flags: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
  const parsed = parseConfig({ node: 'node-1', ...flags }, {});
  assert.ok(parsed.ok);
  return shownFlags(parsed.config);
}

describe('the flags that everyone may read', () => {
  it('are all flags, with their current values', () => {
    const flags = shown({ redirect: 'none', v: '6', 'http-probe-port': '1' });
    const names = options.filter(hasFlag).map(({ name }) => name);
    assert.deepEqual([...flags.keys()], names.toSorted());
    assert.equal(flags.get('redirect'), 'none');
    assert.equal(flags.get('nmi-listen-address'), '169.254.25.79');
    assert.equal(flags.get('http-probe-port'), '1');
    assert.equal(flags.get('log-level'), 'trace');
    assert.equal(flags.get('address-staleness-limit'), '900s');
  });

  it('hide all free text of an operator', () => {
    const secret = 'secret-of-the-operator';
    const given = {
      kubeconfig: `/etc/${secret}`,
      'custom-user-agent': secret,
      'entra-authority': `https://${secret}.example.com`,
      'entra-ca-file': `/${secret}.pem`,
    };
    const flags = shown(given);
    assert.doesNotMatch([...flags.values()].join('\n'), /secret-of|node-1/);
    for (const name of [...Object.keys(given), 'node']) {
      assert.equal(flags.get(name), '<redacted>', name);
    }
  });

  it('show the defaults of free text, which are documented', () => {
    const flags = shown({});
    assert.equal(flags.get('kubelet-config'), '/etc/default/kubelet');
    assert.equal(flags.get('kubeconfig'), '');
  });
});
