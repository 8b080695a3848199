import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createBinding, createException, createIdentity } from '../../support/cache-objects.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { createOwners } from '../../support/owners.ts';
import { openExplainFixture, type ExplainFixture } from '../../support/explain-fixture.ts';

const labels = { aadpodidbinding: 'app' };

describe('hints', () => {
  it('name the limits that a pod exceeded recently, whatever its grants', () => {
    const { clock, throttled, addPod, askPod } = openExplainFixture();
    addPod();
    throttled.note('uid-p', 'connections');
    throttled.note('uid-p', 'connections');
    clock.advance(3_000);
    assert.deepEqual(askPod('pod=default/p').hints, [
      'This pod is being throttled: it opened more connections at once than one pod may have, 2 times in the last ' +
        'minutes, the last time 3 s ago. Cache tokens in the application, as SDKs do when one credential object is kept.',
    ]);
    clock.advance(5 * 60_000);
    assert.deepEqual(askPod('pod=default/p').hints, []);
  });

  const hintsOf = (arrange: (fixture: ExplainFixture) => void): string => {
    const fixture = openExplainFixture();
    arrange(fixture);
    return fixture.askPod('pod=default/p').hints.join('\n');
  };
  const mistakes: readonly (readonly [string, RegExp, (fixture: ExplainFixture) => void])[] = [
    [
      'the label in another letter case',
      /aadPodIdBinding is not read; its name must be aadpodidbinding/,
      (fixture) => {
        fixture.addPod({ labels: { aadPodIdBinding: 'app' } });
      },
    ],
    [
      'the label under a prefix',
      /aad\/aad-pod-id-binding is not read/,
      (fixture) => {
        fixture.addPod({ labels: { 'aad/aad-pod-id-binding': 'app' } });
      },
    ],
    [
      'an empty label',
      /aadpodidbinding is empty/,
      (fixture) => {
        fixture.addPod({ labels: { aadpodidbinding: '' } });
      },
    ],
    [
      'a selector in another letter case',
      /AzureIdentityBinding b has the selector "App": make it exactly "app"/,
      (fixture) => {
        fixture.grants.bindings.upsert(createBinding({ name: 'b', selector: 'App' }));
        fixture.addPod({ labels });
      },
    ],
    [
      'a selector with a blank',
      /AzureIdentityBinding b has the selector "app ": make it exactly "app"/,
      (fixture) => {
        fixture.grants.bindings.upsert(createBinding({ name: 'b', selector: 'app ' }));
        fixture.addPod({ labels });
      },
    ],
    [
      'a binding in another namespace',
      /AzureIdentityBinding other\/b has that selector, but only bindings in namespace default/,
      (fixture) => {
        const binding = { namespace: 'other', name: 'b', selector: 'app' };
        fixture.grants.bindings.upsert(createBinding(binding));
        fixture.addPod({ labels });
      },
    ],
    [
      'a namespace without bindings',
      /Namespace default has no AzureIdentityBinding at all/,
      (fixture) => {
        fixture.addPod({ labels });
      },
    ],
    [
      'a binding that names no identity, as with a field in the wrong letter case',
      /AzureIdentityBinding b names no AzureIdentity at all: set spec\.azureIdentity/,
      (fixture) => {
        const binding = { name: 'b', selector: 'app', identityName: '' };
        fixture.grants.bindings.upsert(createBinding(binding));
        fixture.addPod({ labels });
      },
    ],
    [
      'an identity in another letter case',
      /names AzureIdentity "App"; the one there is called "app"/,
      (fixture) => {
        const binding = { name: 'b', selector: 'app', identityName: 'App' };
        fixture.grants.bindings.upsert(createBinding(binding));
        fixture.grants.identities.upsert(createIdentity({ name: 'app' }));
        fixture.addPod({ labels });
      },
    ],
    [
      'an identity in another namespace',
      /there is one in namespace other, but only one in namespace default counts/,
      (fixture) => {
        const binding = { name: 'b', selector: 'app', identityName: 'app' };
        fixture.grants.bindings.upsert(createBinding(binding));
        fixture.grants.identities.upsert(createIdentity({ namespace: 'other', name: 'app' }));
        fixture.addPod({ labels });
      },
    ],
  ];
  for (const [what, hint, arrange] of mistakes) {
    it(`name the fix of ${what}`, () => {
      assert.match(hintsOf(arrange), hint);
    });
  }

  it('are absent when nothing is wrong, and few when many are similar', () => {
    assert.equal(
      hintsOf((fixture) => {
        fixture.grants.identities.upsert(createIdentity());
        fixture.grants.bindings.upsert(createBinding({ selector: 'app' }));
        fixture.addPod({ labels });
      }),
      '',
    );
    const many = hintsOf((fixture) => {
      for (let index = 0; index < 50; index++) {
        fixture.grants.bindings.upsert(createBinding({ name: `b${index}`, selector: 'APP' }));
      }
      fixture.addPod({ labels });
    });
    assert.equal(many.split('\n').length, 3);
  });

  it('do not mention unrelated objects', () => {
    const others = (fixture: ExplainFixture): void => {
      for (const namespace of ['default', 'other']) {
        fixture.grants.identities.upsert(createIdentity({ namespace, name: 'unrelated' }));
        fixture.grants.bindings.upsert(
          createBinding({ namespace, name: 'unrelated', selector: 'unrelated' }),
        );
      }
    };
    const ofSelector = hintsOf((fixture) => {
      others(fixture);
      fixture.addPod({ labels });
    });
    assert.equal(ofSelector, '');
    const ofIdentity = hintsOf((fixture) => {
      others(fixture);
      fixture.grants.bindings.upsert(createBinding({ selector: 'app', identityName: 'gone' }));
      fixture.addPod({ labels });
    });
    assert.equal(ofIdentity, '');
  });

  it('name the service account that a binding of the label is for', () => {
    const text = hintsOf((fixture) => {
      fixture.grants.bindings.upsert(
        createBinding({ name: 'b', selector: 'app', serviceAccount: 'robot' }),
      );
      fixture.addPod({ labels });
    });
    assert.match(text, /AzureIdentityBinding b is for service account "robot" only; the pod runs/);
  });

  it('name the fix of one binding beside others that work', () => {
    const text = hintsOf((fixture) => {
      fixture.grants.identities.upsert(createIdentity({ name: 'app' }));
      for (const identityName of ['app', 'APP']) {
        const binding = { name: identityName, selector: 'app', identityName };
        fixture.grants.bindings.upsert(createBinding(binding));
      }
      fixture.addPod({ labels });
    });
    assert.match(text, /^AzureIdentityBinding APP names .*; the one there is called "app"\.$/);
  });

  it('are sorted by name, and absent for an excepted pod or labels of other kinds', () => {
    const text = hintsOf((fixture) => {
      for (const name of ['c', 'a', 'b']) {
        fixture.grants.bindings.upsert(createBinding({ name, selector: ' app' }));
      }
      fixture.addPod({ labels });
    });
    assert.deepEqual(
      text.split('\n').map((line) => line.split(' ')[1]),
      ['a', 'b', 'c'],
    );
    const ofOthers = hintsOf((fixture) => fixture.addPod({ labels: { app: 'x', binding: 'y' } }));
    assert.equal(ofOthers, '');
    const ofExcepted = hintsOf((fixture) => {
      fixture.grants.exceptions.upsert(createException({ podLabels: labels }));
      fixture.addPod({ labels });
    });
    assert.equal(ofExcepted, '');
  });
});

describe('hints of identities without a grant', () => {
  const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
  const explained = (mode: OwnersMode) => {
    const fixture = openExplainFixture({ owners: createOwners(mode).owners });
    fixture.grants.identities.upsert(createIdentity({ clientId }));
    fixture.grants.bindings.upsert(createBinding({ selector: 'app' }));
    fixture.addPod({ labels });
    return fixture.askPod('pod=default/p');
  };

  it('report what enforce would refuse while it only warns', () => {
    const { hints, identities } = explained('warn');
    assert.match(hints.join('\n'), /no AzureIdentityGrant .*--identity-owners=warn serves it\.$/);
    assert.equal(identities[0]?.refusal, undefined);
    assert.deepEqual(explained('off').hints, []);
  });

  it('are replaced by the refusal, of the request and of the identity', () => {
    const { hints, identities, requests } = explained('enforce');
    assert.deepEqual(hints, []);
    assert.equal(identities[0]?.refusal?.reason, 'identity_not_owned');
    const outcome = requests[0]?.outcome;
    assert.ok(outcome?.kind === 'refused');
    assert.equal(outcome.refusal.reason, 'identity_not_owned');
  });
});
