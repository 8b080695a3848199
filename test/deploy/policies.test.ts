/** The policies name what the agent and its manifests really use. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { options } from '../../src/nmi/config/options.ts';
import { cloudNames, cloudOf } from '../../src/nmi/sources/entra/clouds.ts';
import { bindingAudience } from '../../src/nmi/sources/entra/identity-use.ts';
import { policiesAgainst } from '../../src/kubectl/findings/network-policy.ts';
import { objectsOf, specOf, type KubeObject } from './chart-render.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const load = async (path: string): Promise<readonly KubeObject[]> =>
  objectsOf(await readFile(join(deploy, path), 'utf8'));

function defaultOf(name: string): string {
  return String(options.find((option) => option.name === name)?.default);
}

describe('the policies', () => {
  it('each come with the binding that enables them', async () => {
    const files = await readdir(join(deploy, 'policies'));
    for (const file of files.filter((name) => !/^(?:network|gatekeeper)-/.test(name))) {
      const objects = await load(`policies/${file}`);
      assert.equal(objects.length, 2, file);
      const policy = specOf(objects, 'ValidatingAdmissionPolicy') as { failurePolicy: string };
      assert.equal(policy.failurePolicy, 'Fail');
      const binding = specOf(objects, 'ValidatingAdmissionPolicyBinding') as {
        policyName: string;
        validationActions: string[];
      };
      assert.equal(binding.policyName, objects[0]?.metadata.name);
      assert.deepEqual(binding.validationActions, [file.startsWith('warn-') ? 'Warn' : 'Deny']);
    }
  });

  it("protect the agent's own service account, and the audiences that it requests", async () => {
    const text = await readFile(join(deploy, 'rights-federation-before-1.36.yaml'), 'utf8');
    const objects = await load('nmi.yaml');
    const { template } = specOf(objects, 'DaemonSet') as {
      template: { spec: { serviceAccountName: string } };
    };
    const account = objects.find(
      ({ kind, metadata }) =>
        kind === 'ServiceAccount' && metadata.name === template.spec.serviceAccountName,
    )?.metadata;
    assert.ok(account?.namespace !== undefined);
    assert.ok(text.includes(`'system:serviceaccount:${account.namespace}:${account.name}'`));
    assert.ok(text.includes(`request.namespace == '${account.namespace}'`));
    assert.ok(text.includes(`request.name == '${account.name}'`));
    const audiences = [...text.matchAll(/'(api:\/\/[^']+)'/g)].map(([, audience]) => audience);
    const known = [...cloudNames.map((name) => cloudOf(name).audience), bindingAudience];
    assert.deepEqual(audiences, known);
    const held = await load('rights-federation.yaml');
    const role = held.find(({ metadata }) => metadata.name.endsWith('-audiences'));
    const rules = role?.['rules'] as readonly { readonly resources: readonly string[] }[];
    assert.deepEqual(rules[0]?.resources, known);
  });

  it('have a Gatekeeper rule for the same pods', async () => {
    const objects = await load('policies/gatekeeper-drop-net-raw.yaml');
    const { crd } = specOf(objects, 'ConstraintTemplate') as {
      crd: { spec: { names: { kind: string } } };
    };
    const { kind } = crd.spec.names;
    assert.equal(objects[0]?.metadata.name, kind.toLowerCase());
    const { match } = specOf(objects, kind) as { match: { labelSelector: object } };
    const { matchResources } = specOf(
      await load('policies/drop-net-raw.yaml'),
      'ValidatingAdmissionPolicyBinding',
    ) as { matchResources: { objectSelector: object } };
    assert.deepEqual(match.labelSelector, matchResources.objectSelector);
  });

  it('allow traffic to the redirect’s target', async () => {
    const listen = `${defaultOf('nmi-listen-address')}/32`;
    const metadata = `${defaultOf('metadata-ip')}/32`;
    const policy = await load('policies/network-policy.yaml');
    const { egress } = specOf(policy, 'NetworkPolicy') as {
      egress: { to: { ipBlock: { cidr: string } }[]; ports: { port: number }[] }[];
    };
    assert.deepEqual(
      egress.map(({ to, ports }) => [to[0]?.ipBlock.cidr, String(ports[0]?.port)]),
      [
        [metadata, defaultOf('metadata-port')],
        [listen, defaultOf('nmi-port')],
      ],
    );
    const cilium = await readFile(join(deploy, 'policies/network-policy-cilium.yaml'), 'utf8');
    assert.ok(cilium.includes(metadata));
    assert.ok(cilium.includes(`port: '${defaultOf('nmi-port')}'`));
  });

  it('keep all but labelled pods from the metadata service and the agent, and from nothing else', async () => {
    const targets = [
      { ip: defaultOf('metadata-ip'), port: Number(defaultOf('metadata-port')) },
      { ip: defaultOf('nmi-listen-address'), port: Number(defaultOf('nmi-port')) },
      { ip: defaultOf('nmi-listen-address'), port: Number(defaultOf('nmi-port')) + 1 },
    ];
    const [policy] = await load('policies/network-policy-imds.yaml');
    assert.ok(policy !== undefined);
    const namespaced = { ...policy, metadata: { name: 'no-imds', namespace: 'default' } };
    const against = (labels: object, target: { readonly ip: string; readonly port: number }) => {
      const pod = { metadata: { name: 'p', namespace: 'default', labels }, spec: {} };
      return policiesAgainst(pod, [namespaced], target, false);
    };
    for (const target of targets) {
      assert.deepEqual(against({ app: 'web' }, target), ['no-imds']);
      assert.deepEqual(against({ aadpodidbinding: 'web' }, target), []);
    }
    // Entra ID, and the DNS cache of a node.
    for (const ip of ['20.190.128.1', '169.254.20.10']) {
      assert.deepEqual(against({ app: 'web' }, { ip, port: 443 }), []);
    }
    const cilium = specOf(
      await load('policies/network-policy-imds-cilium.yaml'),
      'CiliumClusterwideNetworkPolicy',
    );
    const portsOf = (of: readonly { readonly port: number }[]) => [
      { ports: of.map(({ port }) => ({ port: String(port), protocol: 'TCP' })) },
    ];
    const [metadata = assert.fail(), ...agents] = targets;
    assert.deepEqual(cilium, {
      endpointSelector: {
        matchExpressions: [{ key: 'aadpodidbinding', operator: 'DoesNotExist' }],
      },
      enableDefaultDeny: { egress: false, ingress: false },
      egressDeny: [
        { toCIDR: [`${metadata.ip}/32`], toPorts: portsOf([metadata]) },
        { toEntities: ['host'], toPorts: portsOf(agents) },
      ],
    });
  });

  it('keep pods from the ports of 168.63.129.16 that serve secrets, and leave its DNS open', async () => {
    const wireserver = '168.63.129.16/32';
    const { podSelector, egress } = specOf(
      await load('policies/network-policy-wireserver.yaml'),
      'NetworkPolicy',
    ) as {
      podSelector: object;
      egress: {
        to: { ipBlock?: { cidr: string; except?: string[] } }[];
        ports?: { port: number }[];
      }[];
    };
    assert.deepEqual(podSelector, {}, 'every pod of the namespace');
    for (const { to, ports } of egress) {
      for (const { ipBlock } of to) {
        if (ipBlock?.cidr === wireserver)
          assert.deepEqual(
            ports?.map(({ port }) => port),
            [53, 53],
          );
        if (ipBlock?.cidr === '0.0.0.0/0') assert.deepEqual(ipBlock.except, [wireserver]);
      }
    }
    const cidrs = egress.flatMap(({ to }) => to.map(({ ipBlock }) => ipBlock?.cidr));
    assert.deepEqual(cidrs, ['0.0.0.0/0', '::/0', undefined, wireserver]);
    const cilium = specOf(
      await load('policies/network-policy-wireserver-cilium.yaml'),
      'CiliumClusterwideNetworkPolicy',
    );
    assert.deepEqual(cilium, {
      endpointSelector: {},
      enableDefaultDeny: { egress: false, ingress: false },
      egressDeny: [
        {
          toCIDR: [wireserver],
          toPorts: [
            {
              ports: [
                { port: '80', protocol: 'TCP' },
                { port: '32526', protocol: 'TCP' },
              ],
            },
          ],
        },
      ],
    });
  });
});
