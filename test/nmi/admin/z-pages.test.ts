import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { flagsPage, statusPage } from '../../../src/nmi/admin/z-pages.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('/statusz', () => {
  it('shows version, age, redirect and failing conditions, only by name', () => {
    const clock = new HandClock(Date.parse('2026-11-27T10:00:00.500Z'));
    let problem: string | undefined = 'cannot list pods of node-1';
    const parts = [
      { conditions: [{ name: 'watches', problem: () => problem }] },
      {
        samples: () => [
          {
            metric: 'nmi_redirect_up' as const,
            labels: { mode: 'ebpf' },
            value: problem === undefined ? 1 : 0,
          },
        ],
      },
    ];
    const page = statusPage({ component: 'nmi', clock, parts });
    clock.advance(3_725_400);
    const text = page.text();
    assert.deepEqual(text.split('\n').slice(0, 2), ['', 'nmi statusz']);
    assert.match(text, /^Warning: This endpoint is not meant to be machine parseable/m);
    assert.match(text, /^Started: Fri, 27 Nov 2026 10:00:00 GMT$/m);
    assert.match(text, /^Up: 1 hr 02 min 05 sec$/m);
    assert.match(text, /^Redirect: ebpf \(not in place\)$/m);
    assert.match(text, /^Ready: false \(watches\)$/m);
    assert.match(text, /^Paths: .*\/readyz/m);
    assert.doesNotMatch(text, /node-1/);

    problem = undefined;
    assert.match(page.text(), /^Ready: true$/m);
    const { nodeVersion, binaryVersion, commit, paths, ...rest } = page.json() as Record<
      string,
      unknown
    >;
    assert.deepEqual(rest, {
      kind: 'Statusz',
      apiVersion: 'config.k8s.io/v1alpha1',
      metadata: { name: 'nmi' },
      startTime: '2026-11-27T10:00:00Z',
      uptimeSeconds: 3_725,
      redirect: 'ebpf',
      ready: true,
      unmetConditions: [],
    });
    assert.equal(nodeVersion, process.version);
    assert.deepEqual([typeof binaryVersion, typeof commit], ['string', 'string']);
    assert.ok(Array.isArray(paths));
  });

  it('shows no redirect when none is configured', () => {
    const page = statusPage({ component: 'nmi', clock: new HandClock(), parts: [{}] });
    assert.match(page.text(), /^Redirect: none$/m);
  });
});

describe('/flagz', () => {
  it('shows flags as text and as JSON, and no free text of an operator', () => {
    const parsed = parseConfig({ node: 'node-1', redirect: 'address', kubeconfig: '/etc/x' }, {});
    assert.ok(parsed.ok);
    const page = flagsPage('nmi', parsed.config);
    const lines = page.text().split('\n');
    assert.equal(lines[1], 'nmi flagz');
    assert.ok(lines.includes('redirect=address'), page.text());
    assert.ok(lines.includes('kubeconfig=<redacted>'), page.text());
    assert.doesNotMatch(page.text(), /node-1|etc\/x/);
    const { flags, ...rest } = page.json() as { readonly flags: Record<string, string> };
    assert.deepEqual(rest, {
      kind: 'Flagz',
      apiVersion: 'config.k8s.io/v1alpha1',
      metadata: { name: 'nmi' },
    });
    assert.deepEqual(
      Object.entries(flags).map(([name, value]) => `${name}=${value}`),
      lines.slice(4, -1),
    );
  });
});
