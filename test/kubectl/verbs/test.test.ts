import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parse } from 'yaml';
import {
  boundTestBed,
  clientB,
  createAgentPod,
  createPod,
  failed,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const name = `nmi-test-${Date.parse('2026-11-27T06:00:00Z').toString(36)}`;
const granted =
  'successfully made GET on instance metadata\nsuccessfully acquired a token using the MSI, msiEndpoint(http://169.254.169.254)\n';
const refused =
  'failed to acquire a token using the MSI, error: status 400 invalid_request Identity not found\n';

function testBedOf(log: string, phase = 'Succeeded', changes = {}): Recorded {
  const pods = [
    createPod('web', {
      labels: { aadpodidbinding: 'orders' },
      spec: { serviceAccountName: 'robot' },
    }),
    createPod(name, { status: { phase } }),
    createAgentPod('node-1'),
  ];
  return {
    ...boundTestBed({ pods, ...changes }),
    other: (_program, args) => ok(args[0] === 'logs' ? log : ''),
  };
}

interface MadePod {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: {
    readonly serviceAccountName: string;
    readonly nodeName?: string;
    readonly automountServiceAccountToken: boolean;
    readonly securityContext: object;
    readonly containers: readonly {
      readonly image: string;
      readonly args: readonly string[];
      readonly securityContext: object;
    }[];
  };
}

describe('kubectl nmi test', () => {
  it('sends the pod’s request, and removes its own pod', async () => {
    const { code, stdout, calls, inputs } = await play(
      ['test', '--pod', 'web'],
      testBedOf(granted),
    );
    assert.equal(code, 0);
    assert.match(stdout, /^A token came\.\n {2}successfully acquired/);
    assert.doesNotMatch(stdout, /Then:/);
    assert.deepEqual(
      calls.map((words) => words[1]),
      ['create', 'logs', 'delete'],
    );
    const made = parse(inputs[0] ?? '') as MadePod;
    assert.equal(made.metadata.labels['aadpodidbinding'], 'orders');
    assert.equal(made.spec.serviceAccountName, 'robot');
    assert.equal(made.spec.nodeName, 'node-1');
    assert.equal(made.spec.containers[0]?.image, 'example/entra-pod-identity:0.1.0');
  });

  it('makes a pod that the restricted pod security standard allows, without a token', async () => {
    const { inputs } = await play(['test', '--pod', 'web'], testBedOf(granted));
    const { spec } = parse(inputs[0] ?? '') as MadePod;
    assert.equal(spec.automountServiceAccountToken, false);
    assert.deepEqual(spec.securityContext, {
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    const [container] = spec.containers;
    assert.deepEqual(container?.securityContext, {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
    });
  });

  it('copies no label and no node that the other pod lacks, and no label that a Service selects', async () => {
    const labels = { 'azure.workload.identity/use': 'true', app: 'web' };
    const pods = [
      createPod('web', { labels, spec: { nodeName: '' } }),
      createPod(name, { status: { phase: 'Failed' } }),
      createAgentPod('old', { image: 'example/aad-pod-identity/nmi:v1.8.17' }),
      createAgentPod('node-1'),
    ];
    const { inputs } = await play(['test', '--pod', 'web'], testBedOf('', 'Failed', { pods }));
    const { metadata, spec } = parse(inputs[0] ?? '') as MadePod;
    assert.deepEqual(metadata.labels, {
      'app.kubernetes.io/name': 'nmi-test',
      'azure.workload.identity/use': 'true',
    });
    assert.ok(!('nodeName' in spec));
    assert.equal(spec.containers[0]?.image, 'example/entra-pod-identity:0.1.0');
  });

  it('requests the identity that the pod names, and reports that answer alone', async () => {
    const what = `a token, userAssignedID MSI, msiEndpoint(http://169.254.169.254) clientID(${clientB})`;
    const named = [
      `successfully acquired ${what}\n`,
      `failed to acquire ${what}, error: status 400\n`,
    ];
    const env = [{ name: 'AZURE_CLIENT_ID', value: clientB }];
    const pods = [
      createPod('web', {
        labels: { aadpodidbinding: 'orders' },
        spec: { containers: [{ name: 'main', env }] },
      }),
      createPod(name, { status: { phase: 'Failed' } }),
      createAgentPod('node-1', { args: ['--strict-identity'] }),
    ];
    for (const [at, line] of named.entries()) {
      const other = at === 0 ? refused : granted;
      const bed = testBedOf(`${other}${line}`, 'Failed', { pods });
      const { code, stdout, inputs } = await play(['test', '--pod', 'web'], bed);
      assert.equal(code, at);
      assert.match(stdout, at === 0 ? /^A token came\.\n/ : /^No token came \(pod Failed\)\.\n/);
      assert.ok(stdout.includes(`\n  ${line}`), stdout);
      assert.doesNotMatch(stdout, /using the MSI/, 'the pod sends no request without a client id');
      assert.match(stdout, new RegExp(`^The request named client id ${clientB}\\.$`, 'm'));
      const { spec } = parse(inputs[0] ?? '') as MadePod;
      assert.deepEqual(spec.containers[0]?.args.slice(-1), [`--identity-client-id=${clientB}`]);
    }
  });

  it('says what it did not test', async () => {
    const { stdout } = await play(['test', '--pod', 'web'], testBedOf(granted));
    assert.match(
      stdout,
      /\nThe request named no client id\.\nNetworkPolicies and exceptions for other labels of the pod were not tested\.\n$/,
    );
  });

  it('makes no pod in the place of one whose labels give it nothing', async () => {
    for (const labels of [{ app: 'addon' }, { 'azure.workload.identity/use': 'false' }]) {
      const pods = [createPod('web', { labels }), createAgentPod('node-1')];
      const { code, stderr, calls } = await play(
        ['test', '--pod', 'web'],
        testBedOf('', '', { pods }),
      );
      assert.equal(code, 1);
      assert.match(
        stderr,
        /^error: pod shop\/web has neither the label aadpodidbinding nor azure\.workload\.identity\/use=true, .*\nSee what it gets: kubectl nmi explain pod web -n shop /,
      );
      assert.deepEqual(calls, []);
    }
  });

  it('removes its pod although the user interrupts it', async () => {
    const { outliving } = await play(['test', '--pod', 'web'], testBedOf(granted));
    assert.deepEqual(
      outliving.map(([, word]) => word),
      ['create', 'delete'],
    );
  });

  it('removes nothing if the pod could not be made', async () => {
    const other: Recorded['other'] = (_program, [word]) =>
      word === 'create' ? failed('Error from server (Forbidden): no\n') : ok('');
    const { code, stderr, calls } = await play(['test', '--pod', 'web'], {
      ...testBedOf(granted),
      other,
    });
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`^error: cannot create pod shop/${name}: `, 'm'));
    assert.deepEqual(
      calls.map(([, word]) => word),
      ['create'],
    );
  });

  it('removes what a call may have made that ended without an answer', async () => {
    for (const [created, removed, left] of [
      ['', '', undefined],
      [
        'Unable to connect to the server: EOF\n',
        'Unable to connect to the server: EOF\n',
        /^warning: pod shop\/nmi-test-\w+ may be left behind\. Delete it: /m,
      ],
    ] as const) {
      const other: Recorded['other'] = (_program, [word]) =>
        word === 'create' ? failed(created) : removed === '' ? ok('') : failed(removed);
      const { code, stderr, calls } = await play(['test', '--pod', 'web'], {
        ...testBedOf(granted),
        other,
      });
      assert.notEqual(code, 0);
      assert.deepEqual(
        calls.map(([, word]) => word),
        ['create', 'delete'],
      );
      assert.match(stderr, left ?? /^error: cannot create pod/m);
    }
  });

  it('fails with the answer if there is no token, and with the next step', async () => {
    const { code, stdout, calls } = await play(
      ['test', '--pod', 'web'],
      testBedOf(refused, 'Failed'),
    );
    assert.equal(code, 1);
    assert.match(
      stdout,
      /^No token came \(pod Failed\)\.\n {2}failed to acquire[^\n]+\nThen: kubectl nmi explain pod web -n shop/,
    );
    assert.equal(calls.at(-1)?.[1], 'delete');
  });

  it('removes its pod when the wait is over', async () => {
    const { stdout, calls } = await play(
      ['test', '--pod', 'web', '--timeout', '5'],
      testBedOf('', 'Pending'),
    );
    assert.match(stdout, /No token came \(pod Pending\)/);
    assert.equal(calls.at(-1)?.[1], 'delete');
  });

  it('ends when its pod is removed, with a warning if that fails', async () => {
    const { stderr } = await play(['test', '--pod', 'web'], {
      ...testBedOf(granted),
      other: async (_program, args) => {
        if (args[0] !== 'delete') return ok(args[0] === 'logs' ? granted : '');
        await nextTurn();
        return failed('Error from server (Forbidden): no\n');
      },
    });
    assert.equal(
      stderr,
      `pod ${name} is created in context dev, namespace shop, and deleted at the end\nwarning: pod shop/${name} is left behind. Delete it: kubectl --context=dev delete pods --namespace=shop ${name}\n`,
    );
  });

  it('refuses to guess missing input', async () => {
    assert.match((await play(['test'], testBedOf(''))).stderr, /test needs --pod/);
    const blind = { ...testBedOf(''), forbidden: { pods: 'other-namespaces' } as const };
    assert.match((await play(['test', '--pod', 'web'], blind)).stderr, /Give --image/);
  });
});

/** Seconds that `test` waits for a pod that never starts: it looks once a second. */
async function waitOf(timeout: readonly string[]) {
  let looks = 0;
  const status = { phase: 'Pending' };
  const web = createPod('web', { labels: { aadpodidbinding: 'orders' } });
  const pods = [web, createAgentPod('node-1'), createPod(name, { status })];
  const { code, stderr, inputs } = await play(['test', '--pod', 'web', ...timeout], {
    ...boundTestBed({ pods }),
    other: () => ok(''),
    onSleep: () => (looks += 1),
  });
  const deadline = Number(/activeDeadlineSeconds: (\d+)/.exec(inputs[0] ?? '')?.[1]);
  return { code, stderr, looks, deadline };
}

describe('the timeout of kubectl nmi test', () => {
  it('is written as in kubectl, or in seconds', async () => {
    const waits = [
      [['--timeout', '2m'], 120],
      [['--timeout=90s'], 90],
      [['--timeout', '1m30s'], 90],
      [['--timeout', '5'], 5],
      [[], 120],
    ] as const;
    for (const [words, seconds] of waits) {
      const { looks, deadline } = await waitOf(words);
      assert.deepEqual([looks, deadline], [seconds, seconds], words.join(' '));
    }
  });

  it('is anything else by mistake', async () => {
    for (const text of ['2 minutes', 'm', '-1s', '1d', '2M', '1e3', '90,5s', 'Infinity']) {
      const { code, stderr, looks } = await waitOf([`--timeout=${text}`]);
      assert.deepEqual([code, looks], [2, 0], text);
      assert.equal(
        stderr,
        `error: --timeout is "${text}", which is no duration\nWrite it as 90s, 2m or 1m30s; a number alone is seconds.\n`,
      );
    }
    assert.equal((await waitOf(['--timeout', '1', '--timeout', '2'])).code, 2);
    assert.equal((await waitOf(['--timeout'])).code, 2);
    assert.equal((await waitOf(['--timeout='])).code, 2);
  });
});
