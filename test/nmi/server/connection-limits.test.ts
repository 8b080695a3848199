import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connectionLimits, readLimits } from '../../../src/nmi/server/connection-limits.ts';

const limits = (files: number | string): string =>
  [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    'Max processes             95852                95852                processes ',
    `Max open files            ${files}                 1048576              files     `,
  ].join('\n');

describe('the limits of connections', () => {
  it('are those of a large node when there are enough descriptors', () => {
    for (const files of [1_048_576, 65_536, 'unlimited']) {
      assert.deepEqual(connectionLimits(1, limits(files)), {
        total: 20_000,
        each: 384,
        eachWhenShort: 64,
      });
    }
    assert.deepEqual(connectionLimits(1, ''), {
      total: 20_000,
      each: 384,
      eachWhenShort: 64,
    });
  });

  it('reserve descriptors for everything else, and connections for more than one caller', () => {
    assert.deepEqual(connectionLimits(1, limits(4_096)), {
      total: 3_584,
      each: 384,
      eachWhenShort: 64,
    });
    assert.deepEqual(connectionLimits(1, limits(1_024)), {
      total: 512,
      each: 128,
      eachWhenShort: 64,
    });
  });

  it('are refused with fewer descriptors than the agent needs', () => {
    for (const files of [24, 64, 1_023]) {
      assert.throws(() => connectionLimits(1, limits(files)), {
        code: 'CONFIG',
        message: `the process may have ${files} open files, and the agent needs 1024; raise the limit in the container runtime (LimitNOFILE) or by ulimit -n`,
      });
    }
  });

  it('need /proc', () => {
    assert.throws(() => readLimits('/no/such/limits'), {
      code: 'CONFIG',
      message: /^\/no\/such\/limits cannot be read: ENOENT.*; mount proc at \/proc$/,
    });
  });

  it('are shared by listeners', () => {
    assert.deepEqual(connectionLimits(2, limits(1_024)), {
      total: 256,
      each: 64,
      eachWhenShort: 64,
    });
  });

  it('are read from this process', () => {
    const { total, each } = connectionLimits(1);
    assert.ok(total >= each && each > 0);
  });
});
