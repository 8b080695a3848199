import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseProxy } from '../../../../src/nmi/sources/entra/proxy.ts';

describe('the proxy variables', () => {
  const taken = [
    [{}, undefined],
    [{ HTTPS_PROXY: ' ', https_proxy: '' }, undefined],
    [{ HTTP_PROXY: 'http://p:1', ALL_PROXY: 'http://p:1' }, undefined],
    [{ HTTPS_PROXY: 'http://p:3128' }, { url: 'http://p:3128/', noProxy: '' }],
    [{ HTTPS_PROXY: 'p:3128' }, { url: 'http://p:3128/', noProxy: '' }],
    [{ HTTPS_PROXY: 'https://u:a%40b@p' }, { url: 'https://u:a%40b@p/', noProxy: '' }],
    [
      { HTTPS_PROXY: 'http://upper', https_proxy: 'http://lower', NO_PROXY: '.a, b' },
      { url: 'http://lower/', noProxy: '.a, b' },
    ],
    [
      { HTTPS_PROXY: 'http://p', no_proxy: 'a', NO_PROXY: 'b' },
      { url: 'http://p/', noProxy: 'a' },
    ],
  ] as const;
  for (const [environment, proxy] of taken) {
    it(`of ${JSON.stringify(environment)} give ${proxy?.url ?? 'none'}`, () => {
      assert.deepEqual(parseProxy(environment), proxy);
    });
  }

  for (const value of [
    'socks5://hunter2@p:1080',
    'http://',
    'http://hunter2:%zz@p',
    'hunter2@ p',
    'ftp://hunter2',
  ]) {
    it(`are refused as ${value} without exposing it`, () => {
      assert.throws(() => parseProxy({ HTTPS_PROXY: value }), {
        name: 'StartError',
        message: 'HTTPS_PROXY is not the URL of an http or https proxy; correct HTTPS_PROXY',
      });
    });
  }
});
