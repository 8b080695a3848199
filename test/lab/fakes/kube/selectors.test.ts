import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { resourceOfKind, type FakeObject } from '../../../../lab/fakes/kube/resources.ts';
import {
  parseFieldSelector,
  parseLabelSelector,
  type SelectorResult,
} from '../../../../lab/fakes/kube/selectors.ts';

const pod: FakeObject = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'a', namespace: 'n', labels: { app: 'x', empty: '' } },
  spec: { nodeName: 'node' },
};

function matchesPod(result: SelectorResult): boolean {
  assert.ok(result.ok, 'selector is refused');
  return result.matches(pod);
}

function fields(text: string, kind = 'Pod'): SelectorResult {
  const resource = resourceOfKind(kind);
  assert.ok(resource);
  return parseFieldSelector(text, resource);
}

describe('field selectors', () => {
  it('compare fields, and an absent one is empty', () => {
    for (const text of ['', 'spec.nodeName=node', 'metadata.name==a,metadata.namespace=n']) {
      assert.equal(matchesPod(fields(text)), true, text);
    }
    for (const text of ['status.phase=', 'status.phase!=Failed', 'spec.nodeName!=other']) {
      assert.equal(matchesPod(fields(text)), true, text);
    }
    for (const text of ['spec.nodeName=', 'metadata.name!=a', 'metadata.name=a,spec.nodeName=x']) {
      assert.equal(matchesPod(fields(text)), false, text);
    }
  });

  it('support only the fields that the real server supports for the type', () => {
    assert.equal(fields('spec.nodeName=x', 'AzureIdentity').ok, false);
    assert.equal(fields('metadata.name=x', 'AzureIdentity').ok, true);
    for (const text of ['spec.containers=1', 'metadata.name', '=x', '!=x']) {
      assert.equal(fields(text).ok, false, text);
    }
  });
});

describe('label selectors', () => {
  it('compare labels, and an absent one differs from every value', () => {
    for (const text of ['app=x', 'app==x,app', 'empty=', 'empty', 'none!=x', '!none']) {
      assert.equal(matchesPod(parseLabelSelector(text)), true, text);
    }
    for (const text of ['app=y', 'none=', 'none', '!app', 'app!=x', 'constructor', '!empty']) {
      assert.equal(matchesPod(parseLabelSelector(text)), false, text);
    }
  });

  it('support sets, and an absent label is in none', () => {
    for (const text of ['app in (x,y)', 'app in ( x )', 'app notin (y)', 'none notin (x)']) {
      assert.equal(matchesPod(parseLabelSelector(text)), true, text);
    }
    for (const text of ['app in (y)', 'none in (x)', 'app notin (x,y)', 'app in (x,y),none']) {
      assert.equal(matchesPod(parseLabelSelector(text)), false, text);
    }
  });

  it('refuse invalid selectors', () => {
    for (const text of ['app in x', 'app in (x', '=x', 'app=x=y', 'app none', '!app=x']) {
      assert.equal(parseLabelSelector(text).ok, false, text);
    }
  });
});
