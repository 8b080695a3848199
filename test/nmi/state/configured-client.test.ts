import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/base/time/clock.ts';
import { StartError } from '../../../src/base/start-error.ts';
import { openConfiguredClient } from '../../../src/nmi/state/configured-client.ts';

describe('the configured client', () => {
  it('names the remedy if there is no usable configuration', async () => {
    const config = { kubeconfigPath: '/nothing/here', customUserAgent: '' };
    await assert.rejects(
      openConfiguredClient({ config, clock: systemClock, environment: {} }),
      (error) =>
        error instanceof StartError &&
        error.code === 'CONFIG' &&
        /--kubeconfig/.test(error.message),
    );
  });
});
