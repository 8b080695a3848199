import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createBinding, createException, createIdentity } from '../../support/cache-objects.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { createOwners } from '../../support/owners.ts';
import { openExplainStand, type ExplainStand } from '../../support/explain-stand.ts';

const labels = { aadpodidbinding: 'app' };

describe('hints', () => {
  it('name the limits that a pod went beyond lately, whatever its rights', () => {
    const { clock, throttled, addPod, askPod } = openExplainStand();
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

  const hintsOf = (arrange: (stand: ExplainStand) => void): string => {
    const stand = openExplainStand();
    arrange(stand);
    return stand.askPod('pod=default/p').hints.join('\n');
  };
  const mistakes: readonly (readonly [string, RegExp, (stand: ExplainStand) => void])[] = [
    [
      'the label in another letter case',
      /aadPodIdBinding is not read; its name must be aadpodidbinding/,
      (stand) => {
        stand.addPod({ labels: { aadPodIdBinding: 'app' } });
      },
    ],
    [
      'the label under a prefix',
      /aad\/aad-pod-id-binding is not read/,
      (stand) => {
        stand.addPod({ labels: { 'aad/aad-pod-id-binding': 'app' } });
      },
    ],
    [
      'an empty label',
      /aadpodidbinding is empty/,
      (stand) => {
        stand.addPod({ labels: { aadpodidbinding: '' } });
      },
    ],
    [
      'a selector in another letter case',
      /AzureIdentityBinding b has the selector "App": make it exactly "app"/,
      (stand) => {
        stand.grants.bindings.upsert(createBinding({ name: 'b', selector: 'App' }));
        stand.addPod({ labels });
      },
    ],
    [
      'a selector with a blank',
      /AzureIdentityBinding b has the selector "app ": make it exactly "app"/,
      (stand) => {
        stand.grants.bindings.upsert(createBinding({ name: 'b', selector: 'app ' }));
        stand.addPod({ labels });
      },
    ],
    [
      'a binding in another namespace',
      /AzureIdentityBinding other\/b has that selector, but only bindings in namespace default/,
      (stand) => {
        const binding = { namespace: 'other', name: 'b', selector: 'app' };
        stand.grants.bindings.upsert(createBinding(binding));
        stand.addPod({ labels });
      },
    ],
    [
      'a namespace without bindings',
      /Namespace default has no AzureIdentityBinding at all/,
      (stand) => {
        stand.addPod({ labels });
      },
    ],
    [
      'a binding that names no identity, as with a field in the wrong letter case',
      /AzureIdentityBinding b names no AzureIdentity at all: set spec\.azureIdentity/,
      (stand) => {
        const binding = { name: 'b', selector: 'app', identityName: '' };
        stand.grants.bindings.upsert(createBinding(binding));
        stand.addPod({ labels });
      },
    ],
    [
      'an identity in another letter case',
      /names AzureIdentity "App"; the one there is called "app"/,
      (stand) => {
        const binding = { name: 'b', selector: 'app', identityName: 'App' };
        stand.grants.bindings.upsert(createBinding(binding));
        stand.grants.identities.upsert(createIdentity({ name: 'app' }));
        stand.addPod({ labels });
      },
    ],
    [
      'an identity in another namespace',
      /there is one in namespace other, but only one in namespace default counts/,
      (stand) => {
        const binding = { name: 'b', selector: 'app', identityName: 'app' };
        stand.grants.bindings.upsert(createBinding(binding));
        stand.grants.identities.upsert(createIdentity({ namespace: 'other', name: 'app' }));
        stand.addPod({ labels });
      },
    ],
  ];
  for (const [what, hint, arrange] of mistakes) {
    it(`name the fix of ${what}`, () => {
      assert.match(hintsOf(arrange), hint);
    });
  }

  it('are none where nothing is wrong, and few where much is alike', () => {
    assert.equal(
      hintsOf((stand) => {
        stand.grants.identities.upsert(createIdentity());
        stand.grants.bindings.upsert(createBinding({ selector: 'app' }));
        stand.addPod({ labels });
      }),
      '',
    );
    const many = hintsOf((stand) => {
      for (let index = 0; index < 50; index++) {
        stand.grants.bindings.upsert(createBinding({ name: `b${index}`, selector: 'APP' }));
      }
      stand.addPod({ labels });
    });
    assert.equal(many.split('\n').length, 3);
  });

  it('do not name what has nothing to do with it', () => {
    const others = (stand: ExplainStand): void => {
      for (const namespace of ['default', 'other']) {
        stand.grants.identities.upsert(createIdentity({ namespace, name: 'unrelated' }));
        stand.grants.bindings.upsert(
          createBinding({ namespace, name: 'unrelated', selector: 'unrelated' }),
        );
      }
    };
    const ofSelector = hintsOf((stand) => {
      others(stand);
      stand.addPod({ labels });
    });
    assert.equal(ofSelector, '');
    const ofIdentity = hintsOf((stand) => {
      others(stand);
      stand.grants.bindings.upsert(createBinding({ selector: 'app', identityName: 'gone' }));
      stand.addPod({ labels });
    });
    assert.equal(ofIdentity, '');
  });

  it('name who a binding of the label is for', () => {
    const text = hintsOf((stand) => {
      stand.grants.bindings.upsert(
        createBinding({ name: 'b', selector: 'app', serviceAccount: 'robot' }),
      );
      stand.addPod({ labels });
    });
    assert.match(text, /AzureIdentityBinding b is for service account "robot" only; the pod runs/);
  });

  it('name the fix of one binding beside others that work', () => {
    const text = hintsOf((stand) => {
      stand.grants.identities.upsert(createIdentity({ name: 'app' }));
      for (const identityName of ['app', 'APP']) {
        const binding = { name: identityName, selector: 'app', identityName };
        stand.grants.bindings.upsert(createBinding(binding));
      }
      stand.addPod({ labels });
    });
    assert.match(text, /^AzureIdentityBinding APP names .*; the one there is called "app"\.$/);
  });

  it('are in the order of names, and none for an excepted pod or labels of other kinds', () => {
    const text = hintsOf((stand) => {
      for (const name of ['c', 'a', 'b']) {
        stand.grants.bindings.upsert(createBinding({ name, selector: ' app' }));
      }
      stand.addPod({ labels });
    });
    assert.deepEqual(
      text.split('\n').map((line) => line.split(' ')[1]),
      ['a', 'b', 'c'],
    );
    const ofOthers = hintsOf((stand) => stand.addPod({ labels: { app: 'x', binding: 'y' } }));
    assert.equal(ofOthers, '');
    const ofExcepted = hintsOf((stand) => {
      stand.grants.exceptions.upsert(createException({ podLabels: labels }));
      stand.addPod({ labels });
    });
    assert.equal(ofExcepted, '');
  });
});

describe('hints of identities without a grant', () => {
  const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
  const explained = (mode: OwnersMode) => {
    const stand = openExplainStand({ owners: createOwners(mode).owners });
    stand.grants.identities.upsert(createIdentity({ clientId }));
    stand.grants.bindings.upsert(createBinding({ selector: 'app' }));
    stand.addPod({ labels });
    return stand.askPod('pod=default/p');
  };

  it('say what enforce would refuse while it is only warned of', () => {
    const { hints, identities } = explained('warn');
    assert.match(hints.join('\n'), /no AzureIdentityGrant .*--identity-owners=warn serves it\.$/);
    assert.equal(identities[0]?.refusal, undefined);
    assert.deepEqual(explained('off').hints, []);
  });

  it('give way to the refusal, of the request and of the identity', () => {
    const { hints, identities, requests } = explained('enforce');
    assert.deepEqual(hints, []);
    assert.equal(identities[0]?.refusal?.reason, 'identity_not_owned');
    const outcome = requests[0]?.outcome;
    assert.ok(outcome?.kind === 'refused');
    assert.equal(outcome.refusal.reason, 'identity_not_owned');
  });
});
