import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDnsLabel, isDnsSubdomain } from '../../src/base/dns-name.ts';

const long = 'a'.repeat(63);

describe('names of Kubernetes', () => {
  for (const name of ['a', 'a-b', '0', 'kube-system', long]) {
    it(`accept ${name} for a label and for a subdomain`, () => {
      assert.ok(isDnsLabel(name));
      assert.ok(isDnsSubdomain(name));
    });
  }
  for (const name of ['a.b', `${long}a`, 'a'.repeat(253), '0.0-0.z']) {
    it(`accept ${name} only for a subdomain`, () => {
      assert.ok(!isDnsLabel(name));
      assert.ok(isDnsSubdomain(name));
    });
  }
  for (const name of [
    '',
    '-a',
    'a-',
    'A',
    'a_b',
    'a/b',
    'a..b',
    '.a',
    'a.',
    '..',
    'a%2fb',
    'é',
    'a\n',
  ]) {
    it(`do not accept ${JSON.stringify(name)} for either`, () => {
      assert.ok(!isDnsLabel(name));
      assert.ok(!isDnsSubdomain(name));
    });
  }
  it('refuse a subdomain of more than 253 characters', () => {
    assert.ok(!isDnsSubdomain('a'.repeat(254)));
  });
});
