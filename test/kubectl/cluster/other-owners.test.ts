import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refuseOtherOwners } from '../../../src/kubectl/cluster/other-owners.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { failed, ok } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

const check = (run: ProgramRun) =>
  refuseOtherOwners(new Kubectl(createIo(() => Promise.resolve(run))), {
    resource: 'x',
    namespace: 'shop',
    name: 'orders',
  });
const managed = (manager: string, fieldsV1: object = { 'f:spec': {} }) =>
  ok(JSON.stringify({ metadata: { managedFields: [{ manager, fieldsV1 }] } }));

describe('an object', () => {
  it('is managed by the program that wrote its spec, or by the object that owns it', async () => {
    for (const manager of ['helm', 'argocd-controller', 'Terraform', 'kubectlish']) {
      await assert.rejects(check(managed(manager)), {
        message: `x shop/orders is managed by ${manager}, and nothing was changed`,
      });
    }
    const owned = { metadata: { ownerReferences: [{ kind: 'Shop', name: 'eu' }] } };
    await assert.rejects(check(ok(JSON.stringify(owned))), { message: /managed by Shop eu/ });
  });

  it('is nobody’s that people wrote with kubectl, or of which a program wrote only the status', async () => {
    for (const manager of [
      'kubectl',
      'kubectl-create',
      'kubectl-client-side-apply',
      'kubectl-nmi',
    ]) {
      await check(managed(manager));
    }
    await check(managed('nmi', { 'f:status': {} }));
    await check(managed('nmi', { 'f:metadata': { 'f:labels': {} } }));
    await check(ok('{}'));
  });

  it('is not known if it cannot be read', async () => {
    await assert.rejects(check(failed('Error from server (NotFound): x')), { exitCode: 1 });
  });
});
