/** The objects for clusters in which Cilium controls the data path, and that they fit the chart. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { parseConfig } from '../../src/nmi/config/config.ts';
import { options } from '../../src/nmi/config/options.ts';
import { provideHelm } from '../cluster/support/binaries.ts';
import { agentOf, daemonSetOf, flagsOf, objectsOf, renderChart, specOf } from './chart-render.ts';

const folder = join(import.meta.dirname, '../../deploy/cilium');
const provided = provideHelm();

interface Place {
  readonly toPorts: readonly { readonly port: string; readonly protocol: string }[];
}

interface LocalRedirect {
  readonly redirectFrontend: { readonly addressMatcher: Place & { readonly ip: string } };
  readonly redirectBackend: Place & {
    readonly localEndpointSelector: { readonly matchLabels: Readonly<Record<string, string>> };
  };
}

function defaultOf(name: string): string {
  return String(options.find((option) => option.name === name)?.default);
}

describe('the redirect by Cilium', { skip: provided.missing ?? false }, async () => {
  const helm = provided.programs ?? '';
  const policies = objectsOf(await readFile(join(folder, 'local-redirect.yaml'), 'utf8'));
  const values = parse(await readFile(join(folder, 'values.yaml'), 'utf8')) as {
    readonly nmi: { readonly env: readonly { readonly name: string }[] };
  };
  const objects = objectsOf(renderChart({ helm, values }));

  it('leads to the pods of the chart, from the address and to the port of the agent', () => {
    const [policy] = policies;
    const daemonSet = objects.find(({ kind }) => kind === 'DaemonSet');
    assert.equal(policy?.metadata.namespace, daemonSet?.metadata.namespace);
    const { redirectFrontend, redirectBackend } = specOf(
      policies,
      'CiliumLocalRedirectPolicy',
    ) as LocalRedirect;
    const { ip, toPorts } = redirectFrontend.addressMatcher;
    assert.equal(ip, defaultOf('metadata-ip'));
    assert.deepEqual(toPorts, [{ port: defaultOf('metadata-port'), protocol: 'TCP' }]);
    assert.deepEqual(redirectBackend.toPorts, [{ port: defaultOf('nmi-port'), protocol: 'TCP' }]);
    const { labels } = daemonSetOf(objects).template.metadata;
    for (const [name, value] of Object.entries(redirectBackend.localEndpointSelector.matchLabels)) {
      assert.equal(labels[name], value);
    }
  });

  it('denies the address itself, and switches no other policy on', () => {
    assert.deepEqual(specOf(policies, 'CiliumClusterwideNetworkPolicy'), {
      endpointSelector: {},
      enableDefaultDeny: { egress: false, ingress: false },
      egressDeny: [{ toCIDR: [`${defaultOf('metadata-ip')}/32`] }],
    });
  });

  it('uses an agent that changes nothing and listens on the address of its node', () => {
    const agent = agentOf(objects);
    assert.deepEqual(agent.securityContext.capabilities, { drop: ['ALL'] });
    assert.deepEqual(
      agent.volumeMounts?.map(({ name, readOnly }) => [name, readOnly]),
      [
        ['bpf', true],
        ['kubelet-config', true],
        ['account', true],
      ],
    );
    const environment = Object.fromEntries(values.nmi.env.map(({ name }) => [name, '10.224.0.4']));
    const parsed = parseConfig(flagsOf(agent), environment);
    assert.ok(parsed.ok, JSON.stringify(parsed));
    assert.equal(parsed.config.redirect, 'none');
    assert.equal(parsed.config.listenIp, '10.224.0.4');
  });
});
