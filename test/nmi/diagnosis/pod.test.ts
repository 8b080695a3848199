import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Pod } from '../../../src/cache/index/objects.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
} from '../../support/cache-objects.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { world, type World } from '../../world.ts';

const labels = { aadpodidbinding: 'app' };
const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

/** A pod at 10.0.0.1 of the default namespace. */
function addPod(fixture: World, fields: Partial<Pod> = {}): void {
  fixture.put({ pods: [{ name: 'p', ips: ['10.0.0.1'], ...fields }] });
}

describe('findings about a pod', () => {
  it('name the limits that a pod exceeded recently, whatever its grants', () => {
    const fixture = world();
    const { clock, throttled, askPod } = fixture;
    addPod(fixture);
    throttled.note('uid-p', 'connections');
    throttled.note('uid-p', 'connections');
    clock.advance(3_000);
    const throttling = () =>
      askPod('pod=default/p').findings.filter(({ code }) => code === 'caller_throttled');
    assert.deepEqual(
      throttling().map(({ text, severity }) => `${severity} ${text}`),
      [
        'warning It opened more connections at once than one pod may have, 2 times in the last minutes, the ' +
          'last time 3 s ago.',
      ],
    );
    clock.advance(5 * 60_000);
    assert.deepEqual(throttling(), []);
  });

  it('warn of what may be on its way, and report what has been missing for long', () => {
    const fixture = world();
    const { clock, askPod } = fixture;
    const shown = () =>
      askPod('pod=default/p').findings.map(({ code, severity, text }) => [
        ...[code, severity],
        /\. (It may be on its way\. )?\(HTTP.*$/.exec(text)?.[0],
      ]);
    addPod(fixture, { labels, createdAtWallMs: clock.wallMs() });
    assert.deepEqual(shown(), [
      ['binding_pending', 'warning', '. It may be on its way. (HTTP 503, Retry-After 2s)'],
    ]);
    clock.advance(5 * 60_000);
    assert.deepEqual(shown(), [['binding_missing', 'error', '. (HTTP 400)']]);
  });

  const shownOf = (arrange: (fixture: World) => void): string => {
    const fixture = world();
    arrange(fixture);
    const { findings } = fixture.askPod('pod=default/p');
    return findings
      .map(({ object, text, fix, details }) => [object, text, fix, ...details].join('\n'))
      .join('\n');
  };
  const mistakes: readonly (readonly [string, RegExp, (fixture: World) => void])[] = [
    [
      'the label in another letter case',
      /aadPodIdBinding is not read; its name must be aadpodidbinding/,
      (fixture) => {
        addPod(fixture, { labels: { aadPodIdBinding: 'app' } });
      },
    ],
    [
      'the label under a prefix',
      /aad\/aad-pod-id-binding is not read/,
      (fixture) => {
        addPod(fixture, { labels: { 'aad/aad-pod-id-binding': 'app' } });
      },
    ],
    [
      'an empty label',
      /aadpodidbinding is empty/,
      (fixture) => {
        addPod(fixture, { labels: { aadpodidbinding: '' } });
      },
    ],
    [
      'a selector in another letter case',
      /Did you mean "App"\?[^]*AzureIdentityBinding b has the selector "App"/,
      (fixture) => {
        fixture.grants.bindings.upsert(createBinding({ name: 'b', selector: 'App' }));
        addPod(fixture, { labels });
      },
    ],
    [
      'a selector with a blank',
      /Did you mean "app "\?[^]*AzureIdentityBinding b has the selector "app "/,
      (fixture) => {
        fixture.grants.bindings.upsert(createBinding({ name: 'b', selector: 'app ' }));
        addPod(fixture, { labels });
      },
    ],
    [
      'a binding in another namespace',
      /AzureIdentityBinding other\/b has that selector, but only bindings in namespace default/,
      (fixture) => {
        const binding = { namespace: 'other', name: 'b', selector: 'app' };
        fixture.grants.bindings.upsert(createBinding(binding));
        addPod(fixture, { labels });
      },
    ],
    [
      'a namespace without bindings',
      /Namespace default has no AzureIdentityBinding at all/,
      (fixture) => {
        addPod(fixture, { labels });
      },
    ],
    [
      'a binding that names no identity, as with a field in the wrong letter case',
      /Set spec\.azureIdentity to the name of an AzureIdentity/,
      (fixture) => {
        const binding = { name: 'b', selector: 'app', identityName: '' };
        fixture.grants.bindings.upsert(createBinding(binding));
        addPod(fixture, { labels });
      },
    ],
    [
      'an identity in another letter case',
      /Did you mean AzureIdentity "app"\?[^]*The one there is called "app"/,
      (fixture) => {
        const binding = { name: 'b', selector: 'app', identityName: 'App' };
        fixture.grants.bindings.upsert(createBinding(binding));
        fixture.grants.identities.upsert(createIdentity({ name: 'app' }));
        addPod(fixture, { labels });
      },
    ],
    [
      'an identity in another namespace',
      /There is one in namespace other, but only one in namespace default counts/,
      (fixture) => {
        const binding = { name: 'b', selector: 'app', identityName: 'app' };
        fixture.grants.bindings.upsert(createBinding(binding));
        fixture.grants.identities.upsert(createIdentity({ namespace: 'other', name: 'app' }));
        addPod(fixture, { labels });
      },
    ],
  ];
  for (const [what, hint, arrange] of mistakes) {
    it(`name the fix of ${what}`, () => {
      assert.match(shownOf(arrange), hint);
    });
  }

  it('are absent when nothing is wrong, and few when many are similar', () => {
    assert.equal(
      shownOf((fixture) => {
        fixture.grants.identities.upsert(createIdentity({ clientId }));
        fixture.grants.bindings.upsert(createBinding({ selector: 'app' }));
        addPod(fixture, { labels });
      }),
      '',
    );
    const many = shownOf((fixture) => {
      for (let index = 0; index < 50; index++) {
        fixture.grants.bindings.upsert(createBinding({ name: `b${index}`, selector: 'APP' }));
      }
      addPod(fixture, { labels });
    });
    assert.equal(many.split('AzureIdentityBinding b').length - 1, 3);
  });

  it('have the status of the answer, and its Retry-After only if it has one', () => {
    const pending = shownOf((fixture) =>
      addPod(fixture, { labels, createdAtWallMs: fixture.clock.wallMs() }),
    );
    assert.match(pending, /\(HTTP 503, Retry-After \d+s\)$/m);
    const unlabelled = shownOf((fixture) => addPod(fixture, { labels: {} }));
    assert.match(unlabelled, /\(HTTP 400\)$/m);
  });

  it('do not mention unrelated objects', () => {
    const others = (fixture: World): void => {
      for (const namespace of ['default', 'other']) {
        fixture.grants.identities.upsert(createIdentity({ namespace, name: 'unrelated' }));
        fixture.grants.bindings.upsert(
          createBinding({ namespace, name: 'unrelated', selector: 'unrelated' }),
        );
      }
    };
    const ofSelector = shownOf((fixture) => {
      others(fixture);
      addPod(fixture, { labels });
    });
    assert.doesNotMatch(ofSelector, /unrelated|has no AzureIdentityBinding at all/);
    const ofIdentity = shownOf((fixture) => {
      others(fixture);
      fixture.grants.bindings.upsert(createBinding({ selector: 'app', identityName: 'gone' }));
      addPod(fixture, { labels });
    });
    assert.doesNotMatch(ofIdentity, /unrelated/);
  });

  it('name the service account that a binding of the label is for', () => {
    const text = shownOf((fixture) => {
      fixture.grants.bindings.upsert(
        createBinding({ name: 'b', selector: 'app', serviceAccount: 'robot' }),
      );
      addPod(fixture, { labels });
    });
    assert.match(text, /is not for its service account "default"\.[^]*Run the pod under "robot"/);
  });

  it('name the fix of one binding beside others that work', () => {
    const text = shownOf((fixture) => {
      fixture.grants.identities.upsert(createIdentity({ name: 'app', clientId }));
      for (const identityName of ['app', 'APP']) {
        const binding = { name: identityName, selector: 'app', identityName };
        fixture.grants.bindings.upsert(createBinding(binding));
      }
      addPod(fixture, { labels });
    });
    assert.match(
      text,
      /^AzureIdentityBinding default\/APP\nNamespace default has no AzureIdentity APP\.[^]*The one there is called "app"\.$/,
    );
  });

  it('name objects by name, and none for an excepted pod or labels of other kinds', () => {
    const text = shownOf((fixture) => {
      for (const name of ['c', 'a', 'b']) {
        fixture.grants.bindings.upsert(createBinding({ name, selector: ' app' }));
      }
      addPod(fixture, { labels });
    });
    assert.deepEqual(
      [...text.matchAll(/AzureIdentityBinding (\w+) has/g)].map(([, name]) => name),
      ['a', 'b', 'c'],
    );
    const ofOthers = shownOf((fixture) => addPod(fixture, { labels: { app: 'x', binding: 'y' } }));
    assert.match(ofOthers, /has no label "aadpodidbinding"[^]*Set it to the selector/);
    const ofExcepted = shownOf((fixture) => {
      fixture.grants.exceptions.upsert(createException({ podLabels: labels }));
      fixture.grants.bindings.upsert(createBinding({ selector: 'unrelated' }));
      addPod(fixture, { labels });
    });
    assert.equal(ofExcepted, '');
  });
});

describe('findings about identities without a grant', () => {
  const explained = (mode: OwnersMode) => {
    const other = createIdentityGrant({ namespaces: ['other'] });
    const fixture = world({ owners: mode, identityGrants: [other] });
    fixture.grants.identities.upsert(createIdentity({ clientId }));
    fixture.grants.bindings.upsert(createBinding({ selector: 'app' }));
    addPod(fixture, { labels });
    return fixture.askPod('pod=default/p');
  };

  it('report what enforce would refuse while it only warns', () => {
    const { findings, identities } = explained('warn');
    assert.deepEqual(
      findings.map(({ code, severity, object }) => [code, severity, object]),
      [['identity_not_owned', 'info', 'AzureIdentity default/identity']],
    );
    assert.deepEqual(findings[0]?.details, ['--identity-owners=warn serves it.']);
    assert.equal(identities[0]?.refusal, undefined);
    assert.deepEqual(explained('off').findings, []);
  });

  it('are replaced by the refusal, of the request and of the identity', () => {
    const { findings, identities, requests } = explained('enforce');
    assert.deepEqual(
      findings.map(({ code, object }) => [code, object]),
      [['identity_not_owned', 'Pod default/p']],
    );
    assert.equal(identities[0]?.refusal?.reason, 'identity_not_owned');
    const outcome = requests[0]?.outcome;
    assert.ok(outcome?.kind === 'refused');
    assert.equal(outcome.refusal.reason, 'identity_not_owned');
  });
});
