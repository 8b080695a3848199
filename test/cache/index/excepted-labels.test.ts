import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { exceptionKeys, isExcepted } from '../../../src/cache/index/excepted-labels.ts';

describe('an exception', () => {
  const labels = { app: 'Addon', tier: 'one' };

  it('applies if one of its labels is that of the pod, in any case of its value', () => {
    assert.ok(isExcepted(labels, { app: 'addon' }));
    assert.ok(isExcepted(labels, { app: 'other', tier: 'ONE' }));
  });

  it('applies to no pod without that label, and has to name one', () => {
    assert.ok(!isExcepted(labels, { App: 'addon' }));
    assert.ok(!isExcepted(labels, { app: 'one' }));
    assert.ok(!isExcepted(labels, {}));
    assert.ok(!isExcepted({}, { app: 'addon' }));
  });

  it('compares own labels only', () => {
    assert.ok(!isExcepted({}, { constructor: String(Object.prototype.constructor) }));
    assert.ok(isExcepted({ constructor: 'a' }, { constructor: 'A' }));
  });

  it('has a key of the pod exactly if it applies, whatever text its author wrote', () => {
    const ofPod = fc.string({ unit: fc.constantFrom('a', 'A') });
    const any = fc.string({ unit: fc.constantFrom('a', 'A', '=', '/') });
    const keys = (each: Record<string, string>) => exceptionKeys('n', each);
    fc.assert(
      fc.property(fc.dictionary(ofPod, ofPod), fc.dictionary(any, any), (pod, podLabels) => {
        const shared = new Set(keys(pod)).intersection(new Set(keys(podLabels)));
        assert.equal(shared.size > 0, isExcepted(pod, podLabels));
      }),
    );
    assert.deepEqual(exceptionKeys('shop', { App: 'Web' }), ['shop/App=web']);
  });
});
