import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { authoritiesOf } from '../../../src/nmi/grants/authorities.ts';

const plain = {
  cloud: 'public',
  entraAuthorities: [],
  entraAudience: '',
} as const;

describe('the operator’s authorities', () => {
  it('are those of the cloud unless another is configured', () => {
    const public_ = authoritiesOf(plain)('');
    assert.ok(public_.ok && public_.authority === 'https://login.microsoftonline.com');
    const china = authoritiesOf({ ...plain, cloud: 'china' })('');
    assert.ok(china.ok && china.authority === 'https://login.partner.microsoftonline.cn');
    assert.equal(china.audience, 'api://AzureADTokenExchangeChina');
  });

  it('may be one outside every cloud, which identities then need not name', () => {
    const entraAuthorities = ['https://login.corp.example:8443', 'https://login.next.example'];
    const resolve = authoritiesOf({ ...plain, entraAuthorities });
    const own = resolve('');
    assert.ok(own.ok && own.authority === 'https://login.corp.example:8443');
    assert.ok(resolve('https://login.corp.example:8443').ok);
    assert.ok(resolve('https://login.next.example').ok, 'a further one may be named');
    assert.ok(resolve('https://login.microsoftonline.us').ok);
    assert.equal(resolve('https://login.other.example').ok, false);
    assert.equal(
      resolve('https://login.corp.example').ok,
      false,
      'another port makes another authority',
    );
  });

  it('have the audience from the configuration, if there is one', () => {
    const resolve = authoritiesOf({ ...plain, entraAudience: 'api://own' });
    for (const adEndpoint of ['', 'https://login.microsoftonline.us']) {
      const resolved = resolve(adEndpoint);
      assert.ok(resolved.ok && resolved.accountAudience === 'api://own');
    }
  });
});
