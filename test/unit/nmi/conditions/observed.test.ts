import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { observing } from '../../../../src/nmi/conditions/observed.ts';
import { parseBinding } from '../../../../src/nmi/kube/watch/parse.ts';

const metadata = { namespace: 'shop', name: 'b', uid: 'u', resourceVersion: '7', generation: 2 };
const spec = { azureIdentity: 'a', selector: 's' };
const parse = observing(parseBinding);

describe('an observed object', () => {
  it('has the decoded object, its version and its conditions', () => {
    const condition = {
      type: 'Ready',
      status: 'True',
      reason: 'ok',
      message: '',
      observedGeneration: 2,
      lastTransitionTime: '2026-01-01T10:00:00Z',
    };
    const found = parse({ metadata, spec, status: { conditions: [condition] } });
    assert.ok(found.ok && found.value.parsed.ok);
    const { namespace, name, uid, version, generation, parsed, conditions } = found.value;
    assert.deepEqual(
      { namespace, name, uid, version, generation },
      { namespace: 'shop', name: 'b', uid: 'u', version: '7', generation: 2 },
    );
    assert.equal(parsed.value.selector, 's');
    assert.deepEqual(conditions.each, [
      { type: 'Ready', status: 'True', since: '2026-01-01T10:00:00Z' },
    ]);
  });

  it('can also be one that the agents ignore', () => {
    const found = parse({ metadata: { ...metadata, generation: 'x' }, spec: { selector: 7 } });
    assert.ok(found.ok && !found.value.parsed.ok);
    assert.equal(found.value.parsed.reason, 'spec.selector is not a string');
    assert.equal(found.value.generation, 0);
  });

  it('has a name', () => {
    assert.ok(!parse({ metadata: { name: 'b' }, spec }).ok);
    assert.ok(!parse('text').ok);
  });
});
