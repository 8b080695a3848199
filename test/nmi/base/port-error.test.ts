import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { portError } from '../../../src/nmi/base/port-error.ts';

describe('a port that cannot be bound', () => {
  const textOf = (code: string): string =>
    portError(Object.assign(new Error(`listen ${code}`), { code }), '10.0.0.4:80', '--x').message;

  it('is the reason why the agent cannot start, with the option that changes it', () => {
    assert.equal(
      textOf('EADDRINUSE'),
      '10.0.0.4:80 is in use by another process: listen EADDRINUSE; --x chooses another',
    );
    assert.match(textOf('EACCES'), /^no permission to bind 10\.0\.0\.4:80: listen EACCES; --x /);
    assert.match(textOf('EADDRNOTAVAIL'), /does not have the address 10\.0\.0\.4:80: .*; --x /);
    assert.match(textOf('EIO'), /^10\.0\.0\.4:80 could not be bound: listen EIO; --x /);
    assert.equal(portError('x', 'here', '--x').code, 'UNAVAILABLE');
  });
});
