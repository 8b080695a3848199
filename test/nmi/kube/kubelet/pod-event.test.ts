import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { readWatchEvent } from '../../../../src/nmi/kube/api/watch-event.ts';
import { readPodEvent } from '../../../../src/nmi/kube/kubelet/pod-event.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import {
  eventMessage,
  lengthField,
  numberField,
  podMessage,
  textField,
  varint,
} from './fake-kubelet.ts';
import { deletedPod, staticPod } from './recorded-events.ts';

/** The pod of an event. */
const parse = (message: Buffer) =>
  parsePod(readPodEvent(Buffer.concat([numberField(1, 1), lengthField(2, message)])).object);

/** As the agent stores it. */
function stored(message: Buffer) {
  const parsed = parse(message);
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.value;
}

const metadataOf = (...fields: readonly Buffer[]): Buffer =>
  lengthField(
    1,
    Buffer.concat([textField(1, 'p'), textField(3, 'default'), textField(5, 'u'), ...fields]),
  );

describe('a pod from the kubelet', () => {
  it('has the fields that are stored', () => {
    const pod = Buffer.concat([
      metadataOf(
        textField(6, '12'),
        lengthField(8, numberField(1, 1_700_000_000)),
        lengthField(9, numberField(1, 1_700_000_100)),
        lengthField(11, Buffer.concat([textField(1, 'constructor'), textField(2, 'x')])),
        lengthField(
          12,
          Buffer.concat([textField(1, 'kubernetes.io/config.hash'), textField(2, 'h')]),
        ),
      ),
      lengthField(
        2,
        Buffer.concat([textField(8, 'builder'), numberField(11, 1), textField(10, 'n')]),
      ),
      lengthField(
        3,
        Buffer.concat([
          textField(1, 'Running'),
          textField(6, '10.0.0.5'),
          lengthField(12, textField(1, '10.0.0.5')),
          lengthField(12, textField(1, 'fd00::5')),
        ]),
      ),
    ]);
    assert.deepEqual(stored(pod), {
      namespace: 'default',
      name: 'p',
      uid: 'u',
      resourceVersion: '12',
      cgroupUid: 'u',
      ips: ['10.0.0.5', 'fd00::5'],
      labels: { __proto__: null, constructor: 'x' },
      phase: 'Running',
      hostNetwork: true,
      serviceAccount: 'builder',
      terminating: true,
      createdAtWallMs: 1_700_000_000_000,
    });
  });

  it('has an address before the kubelet has all of them', () => {
    const pod = Buffer.concat([metadataOf(), lengthField(3, textField(6, '10.0.0.5'))]);
    assert.deepEqual(stored(pod).ips, ['10.0.0.5']);
  });

  it('is as old as its first start if it is static, and is not terminating', () => {
    const status = lengthField(3, lengthField(7, numberField(1, 1_700_000_000)));
    const pod = stored(Buffer.concat([metadataOf(lengthField(8, Buffer.alloc(0))), status]));
    assert.equal(pod.createdAtWallMs, 1_700_000_000_000);
    assert.equal(pod.terminating, false);
    assert.equal(pod.hostNetwork, false);
  });

  it('has no time that is no date', () => {
    for (const [seconds, createdAtWallMs] of [
      [0, 0],
      [1, 1_000],
      [2 ** 33 - 1, (2 ** 33 - 1) * 1_000],
      [2 ** 33, 0],
      [2n ** 64n - 1n, 0],
    ] as const) {
      const pod = stored(metadataOf(lengthField(8, numberField(1, seconds))));
      assert.equal(pod.createdAtWallMs, createdAtWallMs);
    }
  });

  it('ignores fields of another type than expected', () => {
    const pod = Buffer.concat([
      metadataOf(numberField(8, 1), numberField(11, 1)),
      numberField(2, 1),
      lengthField(3, Buffer.concat([numberField(1, 1), numberField(12, 1), numberField(7, 1)])),
    ]);
    assert.equal(stored(pod).phase, 'Unknown');
  });

  it('keeps a label with the name of a property that every object has', () => {
    for (const name of ['constructor', '__proto__']) {
      const label = lengthField(11, Buffer.concat([textField(1, name), textField(2, 'x')]));
      assert.deepEqual(Object.entries(stored(metadataOf(label)).labels), [[name, 'x']]);
    }
  });

  it('is refused with more labels than are kept, without reading them all', () => {
    const labels = Array.from({ length: 200_000 }, (_, at) =>
      lengthField(11, Buffer.concat([textField(1, `k${at}`), textField(2, 'v')])),
    );
    const message = metadataOf(Buffer.concat(labels));
    const parsed = parse(message);
    assert.ok(!parsed.ok && parsed.ref?.name === 'p');
    const { object } = readPodEvent(lengthField(2, message));
    const { labels: read = {} } = object['metadata'] as { readonly labels?: object };
    assert.ok(Object.keys(read).length < 5_000);
  });

  it('never throws anything but MALFORMED, for changed bytes of a pod', () => {
    const labels = { aadpodidbinding: 'app' };
    const whole = eventMessage('added', { name: 'p', labels, ips: ['10.0.0.5'] });
    const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { maxLength: 6 }), fc.nat(whole.length), (changes, length) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        try {
          readWatchEvent(readPodEvent(bytes.subarray(0, length)));
        } catch (error) {
          assert.ok(error instanceof KubeError && error.code === 'MALFORMED', String(error));
        }
      }),
      { numRuns: 20_000 },
    );
  });
});

describe('an event from the kubelet', () => {
  it('is one of a watch', () => {
    const kinds = (['added', 'modified', 'deleted', 'end'] as const).map(
      (type) =>
        readWatchEvent(readPodEvent(eventMessage(type, type === 'end' ? undefined : { name: 'p' })))
          .kind,
    );
    assert.deepEqual(kinds, ['changed', 'changed', 'deleted', 'bookmark']);
  });

  it('is a deletion if the pod has ended', () => {
    for (const phase of ['Succeeded', 'Failed']) {
      const ended = readPodEvent(eventMessage('added', { name: 'p', phase }));
      assert.equal(readWatchEvent(ended).kind, 'deleted');
    }
  });

  it('is an error if its type is unknown or its pod has no name', () => {
    for (const type of [0, 5]) {
      const message = Buffer.concat([
        numberField(1, type),
        lengthField(2, podMessage({ name: 'p' })),
      ]);
      assert.equal(readWatchEvent(readPodEvent(message)).kind, 'error');
    }
    assert.equal(readPodEvent(numberField(1, 5)).type, 'of number 5');
    const parsed = parsePod(
      readPodEvent(Buffer.concat([numberField(1, 3), varint(18), varint(0)])).object,
    );
    assert.ok(!parsed.ok);
  });

  it('is read as a real kubelet sends it', () => {
    const modified = readPodEvent(Buffer.from(staticPod, 'base64'));
    assert.equal(modified.type, 'MODIFIED');
    const pod = parsePod(modified.object);
    assert.deepEqual(pod.ok && pod.value, {
      namespace: 'default',
      name: 'st-node-1',
      uid: '05fd02789231134d756f35551d1e490a',
      resourceVersion: '0',
      cgroupUid: '05fd02789231134d756f35551d1e490a',
      ips: ['10.244.0.3'],
      labels: { __proto__: null, aadpodidbinding: 'app' },
      phase: 'Running',
      hostNetwork: false,
      serviceAccount: '',
      terminating: false,
      createdAtWallMs: Date.parse('2026-11-30T03:15:00Z'),
    });
    const deleted = readPodEvent(Buffer.from(deletedPod, 'base64'));
    assert.equal(deleted.type, 'DELETED');
    const { ok, ...rest } = parsePod(deleted.object);
    assert.ok(ok && 'value' in rest && rest.value.name === 'one');
  });
});
