import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  environmentName,
  environmentNames,
  findIgnored,
  findOption,
  flagNames,
  hasFlag,
  options,
  spellings,
} from '../../../src/nmi/config/options.ts';

describe('the table of options', () => {
  const node = findOption('node');
  const listenAddress = findOption('nmi-listen-address');

  it('finds an option by every spelling of its flag', () => {
    assert.equal(node?.key, 'node');
    for (const option of options.filter(hasFlag)) {
      for (const spelling of spellings(option)) assert.equal(findOption(spelling), option);
    }
    assert.equal(findOption('Node'), undefined);
    assert.equal(findOption('enable-conntrack-deletion'), undefined);
    assert.ok(options.some(({ old }) => old !== undefined && flagNames.includes(old)));
  });

  it('has no flag for manifest-only settings', () => {
    const without = options.filter((option) => !hasFlag(option));
    assert.ok(without.length > 0);
    for (const { name, group } of without) {
      assert.equal(group, 'Environment only');
      assert.equal(findOption(name), undefined);
    }
  });

  it('has the flags without effect, and those of them without a value', () => {
    assert.equal(findIgnored('logtostderr')?.isBoolean, true);
    assert.equal(findIgnored('log_file')?.isBoolean, false);
    assert.match(findIgnored('MICNamespace')?.reason ?? '', /AzurePodIdentityException/);
    assert.match(findIgnored('pods-from')?.reason ?? '', /pods are read from the API server/);
    assert.equal(findIgnored('node'), undefined);
  });

  it('has for `nmi redirect` and `nmi conditions` the options that they read', () => {
    const namesWhere = (isMeant: (option: (typeof options)[number]) => boolean | undefined) =>
      options.filter(isMeant).map(({ name }) => name);
    const ofAll = [
      'http-probe-port',
      'prometheus-port',
      'prometheus-address',
      'log-format',
      'log-level',
    ];
    assert.deepEqual(
      namesWhere(({ isOfRedirect }) => isOfRedirect),
      [
        'nmi-listen-address',
        'nmi-port',
        'redirect',
        'ipt-update-interval-sec',
        'metadata-ip',
        'metadata-port',
        ...ofAll,
        'iptables-backend',
        'metadata-guard',
        'boot-guard-folder',
        'slot-folder',
      ],
    );
    assert.deepEqual(
      namesWhere(({ isOfConditions }) => isOfConditions),
      [
        'kubeconfig',
        'custom-user-agent',
        'identity-owners',
        'cloud',
        'entra-authority',
        'entra-audience',
        ...ofAll,
        'v',
        'max-watch-events-per-sec',
        'agent-daemonset',
        'agent-namespace',
      ],
    );
  });

  it('names variables after flags, with the prefix once or twice', () => {
    assert.ok(node !== undefined && listenAddress !== undefined);
    assert.equal(environmentName(listenAddress), 'NMI_LISTEN_ADDRESS');
    assert.deepEqual(environmentNames(listenAddress), [
      'NMI_LISTEN_ADDRESS',
      'NMI_NMI_LISTEN_ADDRESS',
    ]);
    const [own, ...others] = environmentNames(node);
    assert.equal(own, 'NMI_NODE');
    assert.deepEqual(others, node.otherVariables ?? []);
  });

  it('accepts an absolute path of the folder of the slots, or none', () => {
    const type = options.find(({ name }) => name === 'slot-folder')?.type;
    for (const text of ['/run/nmi-agent', '/a b']) assert.equal(type?.parse(text), text);
    assert.equal(type?.parse('off'), '');
    for (const text of ['', 'on', 'run/nmi', '/', '/a\0b'])
      assert.equal(type?.parse(text), undefined);
  });

  it('accepts the name of a node, and no invalid one', () => {
    assert.equal(node?.type.parse('aks-pool-1'), 'aks-pool-1');
    for (const text of ['', 'Node', 'a_b', '../x']) assert.equal(node?.type.parse(text), undefined);
  });
});
