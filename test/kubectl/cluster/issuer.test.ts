import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readIssuer } from '../../../src/kubectl/cluster/issuer.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { ok } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

const issuerFrom = (text: string) =>
  readIssuer(new Kubectl(createIo(() => Promise.resolve(ok(text)))));

describe('the issuer of service account tokens', () => {
  it('is one that Entra ID can read, and nothing that az takes for a file or two words', async () => {
    const { issuer } = { issuer: 'https://oidc.example/1/' };
    assert.equal(await issuerFrom(JSON.stringify({ issuer })), issuer);
    for (const wrong of ['http://x/', 'kubernetes.default.svc', '@file', 'https://x y', '']) {
      await assert.rejects(issuerFrom(JSON.stringify({ issuer: wrong })), {
        message: 'the cluster has no issuer that Entra ID could read',
      });
    }
    await assert.rejects(issuerFrom('no JSON'));
  });
});
