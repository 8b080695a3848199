import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { cutOlderFlows } from '../../../src/redirect/host/flows.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { scripted } from '../scripted-host.ts';

const nodeIps = new Set(['10.224.0.4', '169.254.25.79']);
const dialled = { ip: '169.254.169.254', port: 80 };

describe('cutting connections that are older than the redirect', () => {
  it('keeps those of the node itself, and those that the agent answers', async () => {
    const host = scripted({}, { cutFlows: () => 3 });
    const outcome = await cutOlderFlows(host, defaultTarget, nodeIps, 'passed-by');
    assert.deepEqual(outcome, 3);
    assert.deepEqual(host.cuts, [
      {
        dialled,
        answeredBy: '169.254.25.79',
        sparedSources: ['10.224.0.4', '169.254.25.79'],
      },
    ]);
  });

  it('keeps only the node’s if all others are to be cut', async () => {
    const host = scripted({}, { cutFlows: () => 0 });
    await cutOlderFlows(host, defaultTarget, nodeIps, 'all');
    assert.deepEqual(host.cuts, [
      { dialled, answeredBy: undefined, sparedSources: ['10.224.0.4', '169.254.25.79'] },
    ]);
  });

  it('is skipped with a reason where the kernel cannot do it', async () => {
    const outcome = await cutOlderFlows(scripted({}), defaultTarget, nodeIps, 'all');
    assert.equal(outcome, 'older flows not cut: list flows: Protocol not supported');
  });

  it('hides no bug', async () => {
    const host = scripted(
      {},
      {
        cutFlows: () => {
          throw new TypeError('bug');
        },
      },
    );
    await assert.rejects(cutOlderFlows(host, defaultTarget, nodeIps, 'all'), TypeError);
  });
});
