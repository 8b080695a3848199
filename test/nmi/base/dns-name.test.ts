import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDnsLabel, isDnsSubdomain } from '../../../src/nmi/base/dns-name.ts';

const long = 'a'.repeat(63);

describe('names of Kubernetes', () => {
  for (const name of ['a', 'a-b', '0', 'kube-system', long]) {
    it(`takes ${name} for a label and for a subdomain`, () => {
      assert.ok(isDnsLabel(name));
      assert.ok(isDnsSubdomain(name));
    });
  }
  for (const name of ['a.b', `${long}a`, 'a'.repeat(253), '0.0-0.z']) {
    it(`takes ${name} for a subdomain only`, () => {
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
    it(`takes ${JSON.stringify(name)} for neither`, () => {
      assert.ok(!isDnsLabel(name));
      assert.ok(!isDnsSubdomain(name));
    });
  }
  it('refuses a subdomain of more than 253 characters', () => {
    assert.ok(!isDnsSubdomain('a'.repeat(254)));
  });
});
