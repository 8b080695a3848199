import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import * as files from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { freshNative } from '../../scripts/native.ts';
import * as shared from '../../src/nmi/kernel/shared-file.ts';
import { nativeModule } from '../../src/redirect/native/addon.ts';
import { freePort } from '../../lab/fabric/free-ports.ts';
import { Network, useNetwork } from './network.ts';
import { Machine } from './machine.ts';
import { nativeModule as simulatedNativeModule } from './modules/addon.ts';
import * as simulatedFs from './modules/fs.ts';
import * as simulatedFiles from './modules/fs-promises.ts';
import * as simulatedNet from './modules/net.ts';
import * as simulatedShared from './modules/shared-file.ts';
import * as simulatedTimers from './modules/timers-promises.ts';
import { afterImmediates } from './scheduler.ts';
import type { System } from './system-fixture.ts';
import { itIsAsExpected } from './system-suite.ts';

describe('the real machine', () => {
  before(() => freshNative());

  itIsAsExpected(async (work) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-system-'));
    try {
      await work({
        native: nativeModule(),
        shared,
        createServer: () => createServer(),
        connect: (options) => connect(options),
        closeSync,
        files,
        delay,
        address: { ip: '127.0.0.1', port: await freePort() },
        folder,
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('the simulated machine', () => {
  const address = { ip: '169.254.25.79', port: 2579 };
  const system: System = {
    native: simulatedNativeModule(),
    shared: simulatedShared,
    createServer: () => simulatedNet.createServer(),
    connect: (options) => simulatedNet.connect(options),
    closeSync: simulatedFs.closeSync,
    files: simulatedFiles as unknown as System['files'],
    delay: simulatedTimers.setTimeout,
    address,
    folder: '/test',
  };

  itIsAsExpected(async (work) => {
    const machine = new Machine(1, 4);
    useNetwork(new Network(machine.scheduler));
    machine.addresses.add(address.ip);
    machine.files.make('/test', { number: 0, name: 'root' }, 0o700);
    let problem: unknown;
    const run = async (): Promise<number> => {
      await work(system);
      return 0;
    };
    const ended = async (): Promise<void> => {
      await machine.start('test', run, (error) => (problem = error)).exited;
    };
    await machine.scheduler.run(ended, () => undefined, afterImmediates);
    if (problem !== undefined) throw problem as Error;
  });
});
