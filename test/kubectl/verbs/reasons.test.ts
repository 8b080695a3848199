import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { play } from '../support/recorded-kubectl.ts';

describe('kubectl nmi reasons', () => {
  it('prints the page of a reason, and of a finding', async () => {
    const reason = await play(['reasons', 'binding_missing']);
    assert.match(
      reason.stdout,
      /^binding_missing \(HTTP 400\)\nNo AzureIdentityBinding [^\n]+\nCheck: [^\n]+\nFix: [^\n]+\n$/,
    );
    assert.match((await play(['reasons', 'label_on_owner'])).stdout, /^label_on_owner\n/);
    const json = await play(['reasons', 'binding_missing', '-o', 'json']);
    assert.equal((JSON.parse(json.stdout) as { status: number }).status, 400);
  });

  it('lists them all', async () => {
    assert.match(
      (await play(['reasons'])).stdout,
      /^CODE +STATUS +MEANING\n[^]*\nupstream_down +503 /,
    );
    assert.equal((await play(['reasons', '-o', 'yaml'])).code, 0);
  });

  it('fits managed identities and applications where Azure has a command for each', async () => {
    const { stdout } = await play(['reasons', 'federation_refused']);
    assert.match(
      stdout,
      /Fix: .*az identity federated-credential create for a managed identity, az ad app federated-credential create for an application/,
    );
  });

  it('suggests a code', async () => {
    const slip = await play(['reasons', 'binding_mising']);
    assert.equal(slip.code, 2);
    assert.match(slip.stderr, /Did you mean binding_missing\?/);
    assert.match((await play(['reasons', 'constructor'])).stderr, /List them: kubectl nmi reasons/);
  });
});
