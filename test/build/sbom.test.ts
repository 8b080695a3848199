import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { componentOfStanza, npmComponent, renderSbom } from '../../scripts/image/sbom.ts';

const facts = { version: '1.2.3', created: '2026-01-02T03:04:05Z', architecture: 'arm64' };

describe('the bill of materials', () => {
  it('names a Debian package in the form that scanners use', () => {
    const stanza =
      'Package: libstdc++6\nStatus: install ok installed\nVersion: 1:14.2.0-19+b1\nArchitecture: arm64\n';
    assert.deepEqual(componentOfStanza(stanza, 'trixie'), {
      name: 'libstdc++6',
      version: '1:14.2.0-19+b1',
      purl: 'pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19%2Bb1?arch=arm64&distro=trixie',
    });
  });

  it('takes version, license and digest of an npm package from the lock file', () => {
    const integrity = `sha512-${Buffer.from('digest').toString('base64')}`;
    const lock = {
      packages: { 'node_modules/@a/b': { version: '2.0.0', license: 'MIT', integrity } },
    };
    assert.deepEqual(npmComponent(lock, 'node_modules/@a/b'), {
      name: '@a/b',
      version: '2.0.0',
      purl: 'pkg:npm/%40a/b@2.0.0',
      license: 'MIT',
      hash: { alg: 'SHA-512', content: Buffer.from('digest').toString('hex') },
    });
    assert.throws(() => npmComponent(lock, 'node_modules/c'), /has no node_modules\/c/);
  });

  it('does not depend on the order of its input', () => {
    const [one, other] = ['a', 'b'].map((name) => ({
      name,
      version: '1',
      purl: `pkg:npm/${name}@1`,
    }));
    assert.ok(one !== undefined && other !== undefined);
    assert.equal(renderSbom(facts, [one, other]), renderSbom(facts, [other, one]));
  });
});
