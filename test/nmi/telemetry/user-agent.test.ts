import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameClient } from '../../../src/nmi/telemetry/user-agent.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';

describe('the name of a client', () => {
  it('is the family and version of an Azure SDK, in the format of each', () => {
    const names: readonly (readonly [userAgent: string, name: string])[] = [
      ['azsdk-python-identity/1.25.0 Python/3.12.3 (Linux-6.8)', 'azsdk-python-identity/1.25.0'],
      ['azsdk-go-azidentity/v1.2.0 (go1.19.3; linux)', 'azsdk-go-azidentity/1.2.0'],
      ['azsdk-net-Identity/1.11.0-alpha.20240307.1 (.NET 8)', 'azsdk-net-identity/1.11.0'],
      ['azsdk-net-Core/1.60.0 (.NET 10)', 'azsdk-net-core/1.60.0'],
      ['azsdk-java-azure-identity/1.9.0 (17; Linux)', 'azsdk-java-azure-identity/1.9.0'],
      ['azsdk-js-identity/4.2.1 core-rest-pipeline/1.16 Node/20', 'azsdk-js-identity/4.2.1'],
      ['azsdk-cpp-identity/1.11.0 (Linux)', 'azsdk-cpp-identity/1.11.0'],
      ['my-app azsdk-python-identity/1.13.0b2 Python/3.8', 'azsdk-python-identity/1.13.0'],
    ];
    for (const [userAgent, name] of names) assert.equal(nameClient(userAgent), name);
  });

  it('is empty for any text that a pod could choose freely', () => {
    for (const userAgent of [
      '',
      'curl/8.5.0',
      'python-requests/2.31',
      'azsdk-python-identity',
      'azsdk-python-identity/secret',
      'azsdk-python-identity/1234567890',
      'azsdk-python-storage-blob/12.1.0',
      'xazsdk-python-identity/1.13.0',
      `${'x'.repeat(300)} azsdk-python-identity/1.13.0`,
    ]) {
      assert.equal(nameClient(userAgent), 'other', userAgent);
    }
    assert.equal(nameClient('azsdk-js-identity/4.2.1.secret'), 'azsdk-js-identity/4.2.1');
  });

  it('is found in time that does not grow with the length of the header', () => {
    const hostile = 'azsdk-python-identity/1.'.repeat(100_000);
    using time = new OwnTime();
    for (let count = 0; count < 1_000; count++) nameClient(hostile);
    assert.ok(time.nowMs() < 500, `${time.nowMs()} ms`);
  });
});
