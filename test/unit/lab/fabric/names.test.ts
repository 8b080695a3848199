import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import {
  parseNamespaceName,
  renderFabricPrefix,
  renderNamespaceName,
} from '../../../../lab/fabric/names.ts';

const pid = fc.integer({ min: 1, max: 4_194_304 });
const label = fc.option(fc.stringMatching(/^[a-z0-9]{1,32}$/), { nil: undefined });
const space = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?$/);

describe('fabric names', () => {
  test('a rendered name parses back to the owner, the fabric and the space', () => {
    fc.assert(
      fc.property(pid, label, space, (ownerPid, name, where) => {
        const prefix = renderFabricPrefix(ownerPid, name);
        const parsed = parseNamespaceName(renderNamespaceName(prefix, where));
        assert.deepEqual(parsed, { prefix, ownerPid, space: where });
      }),
    );
  });

  test('a namespace that no lab made is not taken for a lab’s', () => {
    for (const name of ['blue', 'nmi-lab-', 'nmi-lab-x-node', 'nmi-lab-12', 'xnmi-lab-12-node']) {
      assert.equal(parseNamespaceName(name), undefined, name);
    }
  });

  test('a name that would leave the directory or break a command line is refused', () => {
    for (const name of ['', '../x', 'a b', 'a\nb', '-a', 'A', 'a/b']) {
      assert.throws(() => renderNamespaceName('nmi-lab-1', name), { code: 'NAME_REFUSED' }, name);
    }
    assert.throws(() => renderFabricPrefix(1, 'a-b'), { code: 'NAME_REFUSED' });
  });
});
