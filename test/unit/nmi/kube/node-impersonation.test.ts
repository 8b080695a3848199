import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { NodeImpersonation } from '../../../../src/nmi/kube/api/node-impersonation.ts';
import { keptLog } from './kube-test-bed.ts';

const node = 'system:node:node-a';

/** `refused`: by user, '' being the account itself. */
function describeServer() {
  const refused = new Map<string, KubeError>();
  const asked: string[] = [];
  const log = keptLog();
  const names = new NodeImpersonation({ node: 'node-a', purpose: 'tokens', log });
  const call = () =>
    names.call((user = '') => {
      asked.push(user);
      const error = refused.get(user);
      return error === undefined ? Promise.resolve(`for ${user}`) : Promise.reject(error);
    });
  const value = (): number | undefined => names.samples()[0]?.value;
  return { refused, asked, log, names, call, value };
}

const cannotImpersonate = new KubeError('IMPERSONATION', 'no', { status: 403 });
const forbidden = new KubeError('FORBIDDEN', 'no', { status: 403 });

describe('calls in the name of the node', () => {
  it('are made so where the server allows it', async () => {
    const { asked, call, value, names } = describeServer();
    assert.equal(value(), undefined);
    assert.equal(await call(), `for ${node}`);
    assert.equal(await call(), `for ${node}`);
    assert.deepEqual(asked, [node, node]);
    assert.deepEqual(names.samples(), [
      { metric: 'nmi_acts_as_node', labels: { purpose: 'tokens' }, value: 1 },
    ]);
  });

  it('are made as the account where it does not, without asking again', async () => {
    const { refused, asked, call, value, log } = describeServer();
    refused.set(node, cannotImpersonate);
    assert.equal(await call(), 'for ');
    assert.equal(await call(), 'for ');
    assert.deepEqual(asked, [node, '', '']);
    assert.equal(value(), 0);
    assert.equal(log.lines.length, 1);
  });

  it('are not made as the account for any other refusal or failure', async () => {
    for (const error of [forbidden, new KubeError('NETWORK', 'reset')]) {
      const { refused, asked, call } = describeServer();
      refused.set(node, error);
      await assert.rejects(call(), error);
      assert.deepEqual(asked, [node]);
    }
  });

  it('are tried again once the account itself is refused', async () => {
    const { refused, asked, call, value } = describeServer();
    refused.set(node, cannotImpersonate);
    await call();
    refused.set('', forbidden);
    await assert.rejects(call(), forbidden);
    refused.delete(node);
    assert.equal(await call(), `for ${node}`);
    assert.deepEqual(asked, [node, '', '', node]);
    assert.equal(value(), 1);
  });

  it('stay with the account while its calls fail otherwise', async () => {
    const { refused, asked, call } = describeServer();
    refused.set(node, cannotImpersonate);
    await call();
    const down = new KubeError('NETWORK', 'reset');
    refused.set('', down);
    await assert.rejects(call(), down);
    await assert.rejects(call(), down);
    assert.deepEqual(asked, [node, '', '', '']);
  });

  it('fail with the account’s refusal if neither is allowed', async () => {
    const { refused, call, value } = describeServer();
    refused.set(node, cannotImpersonate).set('', forbidden);
    await assert.rejects(call(), forbidden);
    assert.equal(value(), undefined);
  });
});
