import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RawObject } from '../../../../src/kubectl/base/object.ts';
import {
  boundTestBed,
  clientA,
  createIdentity,
  kinds,
  ok,
  play,
  type Recorded,
} from '../../support/recorded-kubectl.ts';

const words = ['identity', 'revoke', 'orders'];

/** A server that keeps the field, unless it is of an older definition. */
function serverOf(given: {
  readonly spec?: object;
  readonly drops?: boolean;
  readonly revertsIt?: boolean;
  readonly serverTime?: string;
}): Recorded {
  const { spec = { type: 0, clientID: clientA }, drops, revertsIt, serverTime } = given;
  const stored: RawObject[] = [createIdentity('orders', spec)];
  return {
    ...boundTestBed({ [kinds.identities]: stored }),
    other: (_program, args) => {
      const patch = args.find((each) => each.startsWith('--patch='))?.slice('--patch='.length);
      const change = JSON.parse(patch ?? '{}') as { readonly spec: object };
      const next = createIdentity('orders', drops === true ? spec : { ...spec, ...change.spec });
      const times = [
        { manager: 'helm', time: '2027-01-01T00:00:00Z' },
        { manager: 'kubectl-nmi', time: serverTime },
      ];
      if (args.includes('--dry-run=server')) {
        return ok(JSON.stringify({ ...next, metadata: { managedFields: times } }));
      }
      if (revertsIt !== true) stored[0] = next;
      return ok('patched\n');
    },
  };
}

const patchOf = (time: string) => `--patch={"spec":{"notBefore":"${time}"}}`;

describe('kubectl nmi identity revoke', () => {
  it('shows the change and what it cannot do, and does nothing', async () => {
    const { code, stdout, calls } = await play(words, serverOf({}));
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /^# In context dev, namespace shop:\n/);
    const ofNode =
      /# Its tokens begin with one of the node: Azure itself may return the same token/;
    assert.match(stdout, ofNode);
    assert.match(stdout, /kubectl --context=dev patch \S+ orders .*"notBefore":"2026-11-27T06:00/);
    const application = { tenantID: 'a.example', clientID: clientA };
    for (const [spec, isOfNode] of [
      [{ clientID: clientA }, true],
      [{ type: 4, clientID: clientA, application }, true],
      [{ type: 4, federation: 'pod', application, agentIdentity: clientA }, false],
      [{ type: 3, clientID: clientA, tenantID: 'a.example' }, false],
    ] as const) {
      const shown = await play(words, serverOf({ spec }));
      assert.equal(ofNode.test(shown.stdout), isOfNode, JSON.stringify(spec));
    }
  });

  it('tries the change, makes it with --apply, and reads it back', async () => {
    const { code, stdout, calls } = await play([...words, '--apply'], serverOf({}));
    assert.equal(code, 0);
    const made = ['kubectl', 'patch', kinds.identities, 'orders', '--namespace=shop'];
    const how = ['--type=merge', '--field-manager=kubectl-nmi', patchOf('2026-11-27T06:00:00Z')];
    assert.deepEqual(
      calls.map((each) => each.filter((word) => !/^--(?:context|request-timeout)=/.test(word))),
      [
        [...made, ...how, '--dry-run=server', '--output=json', '--show-managed-fields'],
        [...made, ...how],
      ],
    );
    assert.match(stdout, /\npatched\n$/);
  });

  it('takes the time of the server if the clock of this machine is ahead', async () => {
    for (const [serverTime, time] of [
      ['2026-11-27T04:00:00Z', '2026-11-27T04:00:00Z'],
      ['2026-11-27T06:30:00Z', '2026-11-27T06:00:00Z'],
      ['never', '2026-11-27T06:00:00Z'],
    ] as const) {
      const { code, calls } = await play([...words, '--apply'], serverOf({ serverTime }));
      assert.equal(code, 0);
      assert.ok(calls[1]?.includes(patchOf(time)), serverTime);
    }
  });

  it('waits for the next second if the object has the present one already', async () => {
    const spec = { type: 0, clientID: clientA, notBefore: '2026-11-27T06:00:00Z' };
    const sleeps: number[] = [];
    const { code, calls } = await play([...words, '--apply'], {
      ...serverOf({ spec }),
      onSleep: (ms) => sleeps.push(ms),
    });
    assert.deepEqual([code, sleeps], [0, [1000]]);
    assert.ok(calls[1]?.includes(patchOf('2026-11-27T06:00:01Z')), calls.join('\n'));
    const earlier = { ...spec, notBefore: '2026-11-27T05:59:59Z' };
    const later = await play([...words, '--apply'], serverOf({ spec: earlier }));
    assert.ok(later.calls[1]?.includes(patchOf('2026-11-27T06:00:00Z')));
  });

  it('changes nothing where the definition is too old for it', async () => {
    const { code, stderr, calls } = await play([...words, '--apply'], serverOf({ drops: true }));
    assert.equal(code, 1);
    assert.equal(calls.length, 1);
    assert.match(
      stderr,
      /AzureIdentity shop\/orders is not revoked: the cluster does not keep its spec\.notBefore\n.*crds\.yaml/,
    );
  });

  it('fails if the object does not have it afterwards', async () => {
    const server = serverOf({ revertsIt: true });
    const { code, stderr } = await play([...words, '--apply'], server);
    assert.equal(code, 1);
    assert.match(stderr, /is not revoked/);
  });

  it('reports an identity that does not exist', async () => {
    const { code, stderr } = await play(['identity', 'revoke', 'nobody'], serverOf({}));
    assert.notEqual(code, 0);
    assert.match(stderr, /nobody/);
  });
});
