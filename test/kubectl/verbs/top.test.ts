import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAgentPod, failed, ok, play } from '../support/recorded-kubectl.ts';

const objects = { pods: [createAgentPod('node-1')] };

describe('kubectl nmi top', () => {
  it('has the most frequent reasons first', async () => {
    const page =
      'nmi_requests_total{route="token",reason="ok"} 70\nnmi_requests_total{route="host",reason="ok"} 1\nnmi_requests_total{route="token",reason="binding_missing"} 9\nnmi_requests_total{route="token",reason="idle"} 0\n';
    const { stdout } = await play(['top'], { objects, other: () => ok(page) });
    assert.equal(
      stdout,
      'REQUESTS  REASON           NAMESPACE  NODE\n71        ok               -          node-1\n9         binding_missing  -          node-1\n',
    );
  });

  it('groups by the namespaces of pods, and counts no request twice', async () => {
    const page = [
      'nmi_requests_total{route="token",reason="ok"} 70',
      'nmi_requests_total{route="host-token",reason="ok"} 3',
      'nmi_requests_total{route="passthrough",reason="ok"} 4',
      'nmi_token_requests_total{namespace="shop",reason="ok"} 72',
      'nmi_token_requests_total{namespace="other",reason="ok"} 1',
      'nmi_token_requests_total{namespace="shop",reason="binding_missing"} 9',
    ];
    const { stdout } = await play(['top', '-o', 'json'], {
      objects,
      other: () => ok(page.join('\n')),
    });
    const { rows } = JSON.parse(stdout) as { readonly rows: readonly Record<string, unknown>[] };
    assert.deepEqual(
      rows.map(({ namespace, reason, requests }) => [namespace, reason, requests]),
      [
        ['shop', 'ok', 72],
        ['shop', 'binding_missing', 9],
        ['', 'ok', 4],
        ['other', 'ok', 1],
      ],
    );
  });

  it('counts for an interval', async () => {
    let count = 100;
    const other = () => ok(`nmi_requests_total{reason="ok"} ${(count += 5)}\n`);
    const { stdout } = await play(['top', '--interval', '10'], { objects, other });
    assert.match(stdout, /^5 +ok/m);
  });

  it('reports once that an agent could not be read, beside the counts of the others', async () => {
    let count = 100;
    const { code, stdout } = await play(['top', '--interval', '10'], {
      objects: { pods: [createAgentPod('node-1'), createAgentPod('node-2')] },
      other: (_program, args) =>
        args.some((each) => each.includes('nmi-node-2'))
          ? failed('Error from server (ServiceUnavailable): no')
          : ok(`nmi_requests_total{reason="ok"} ${(count += 5)}\n`),
    });
    assert.equal(code, 0);
    assert.match(stdout, /^5 +ok +- +node-1$/m);
    assert.match(stdout, /\nNot checked:\n.*\n +cannot read the metrics of \S+nmi-node-2: .*\n$/);
  });

  it('fails where the user may not read metrics', async () => {
    const stderr =
      'Error from server (Forbidden): User "dev" cannot get resource "pods/proxy" in API group "" in the namespace "kube-system"';
    const { code, stderr: said } = await play(['top'], { objects, other: () => failed(stderr) });
    assert.equal(code, 77);
    assert.match(said, /pods\/proxy/);
  });
});
