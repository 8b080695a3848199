/**
 * The one table of everything that can be set. From it come the command line, the `NMI_*`
 * environment variables, `--help`, the flag table of the README and, later, the chart's schema.
 *
 * Spelling: `name` is kebab-case and names the environment variable mechanically; `old` is the
 * exact spelling of the system this replaces where it differs. `noEffect` flags are accepted so
 * that an existing manifest starts unchanged; using one is logged once with the reason.
 */

import { cloudNames, parseAuthorityHosts } from '../sources/entra/clouds.ts';

interface Base {
  readonly name: string;
  readonly old?: string;
  readonly group: 'Kubernetes' | 'Listener' | 'Redirect' | 'Answers' | 'Upstream' | 'Operation';
  readonly help: string;
  /** Why setting it changes nothing. */
  readonly noEffect?: string;
  /** New here; the replaced system has no such flag. */
  readonly isNew?: true;
}

interface StringOption extends Base {
  readonly type: 'string';
  readonly default: string;
  readonly pattern?: { readonly test: RegExp; readonly allowed: string };
}
interface IpOption extends Base {
  readonly type: 'ip';
  readonly default: string;
}
interface IntegerOption extends Base {
  readonly type: 'integer';
  readonly default: number;
  readonly min: number;
  readonly max: number;
}
interface BooleanOption extends Base {
  readonly type: 'boolean';
  readonly default: boolean;
}
interface ChoiceOption extends Base {
  readonly type: 'choice';
  readonly default: string;
  readonly choices: readonly string[];
  /** Known values that are refused, each with the reason. */
  readonly refused?: Readonly<Record<string, string>>;
}
interface ListOption extends Base {
  readonly type: 'list';
  readonly default: readonly string[];
  readonly items: { readonly isRight: (item: string) => boolean; readonly allowed: string };
}

export type Option =
  StringOption | IpOption | IntegerOption | BooleanOption | ChoiceOption | ListOption;

export const redirectChoices = ['auto', 'ebpf', 'iptables', 'address', 'pinned', 'none'] as const;
export const hostNetworkChoices = ['serve', 'refuse'] as const;
export const backendChoices = ['auto', 'nft', 'legacy'] as const;
/** Parts of the metadata service that are closed to pods unless opened. */
export const metadataAreas = ['attested', 'scheduledevents', 'loadbalancer'] as const;
export const logFormats = ['json', 'text'] as const;
export const logLevels = ['error', 'warn', 'info', 'debug', 'trace'] as const;

function isMetadataArea(item: string): boolean {
  return (metadataAreas as readonly string[]).includes(item);
}

function isAuthorityHost(item: string): boolean {
  return parseAuthorityHosts([item]).ok;
}

const standardMode = 'only NMI runs nowadays; there is no standard mode, see "managed"';
const retriesOfStandardMode = 'it tuned the wait loop of standard mode';
const glogFile = 'logs go to standard output';

export const options = [
  {
    name: 'node',
    group: 'Kubernetes',
    type: 'string',
    default: '',
    pattern: {
      test: /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/,
      allowed: 'the name of this Kubernetes node; set it from spec.nodeName',
    },
    help: 'Name of this Kubernetes node: only its pods are watched and served. Mandatory.',
  },
  {
    name: 'operation-mode',
    group: 'Kubernetes',
    type: 'choice',
    default: 'managed',
    choices: ['managed'],
    refused: { standard: standardMode },
    help: 'Mode of operation.',
  },
  {
    name: 'force-namespaced',
    old: 'forceNamespaced',
    group: 'Kubernetes',
    type: 'boolean',
    default: true,
    help: 'A pod uses identities of its own namespace only. Always so; `false` is refused.',
  },
  {
    name: 'kubeconfig',
    group: 'Kubernetes',
    type: 'string',
    default: '',
    isNew: true,
    help: 'Path of a kubeconfig file; else `KUBECONFIG`, else the in-cluster configuration.',
  },
  {
    name: 'allow-network-plugin-kubenet',
    group: 'Kubernetes',
    type: 'boolean',
    default: false,
    help: 'Start on a kubenet node, where a pod can take over another pod’s address by ARP.',
  },
  {
    name: 'kubelet-config',
    group: 'Kubernetes',
    type: 'string',
    default: '/etc/default/kubelet',
    help: 'File that the kubenet check reads.',
  },
  {
    name: 'custom-user-agent',
    group: 'Kubernetes',
    type: 'string',
    default: '',
    pattern: { test: /^[\x20-\x7e]{0,200}$/, allowed: 'up to 200 printable ASCII characters' },
    help: 'Text appended to the user agent of all outgoing calls.',
  },
  {
    name: 'watch-staleness-limit-sec',
    group: 'Kubernetes',
    type: 'integer',
    // Missed three times: a watch that works is proven current every 101 s at the latest.
    default: 300,
    min: 120,
    max: 86_400,
    isNew: true,
    help: 'Not ready once pods or custom resources were not proven current for so long. What is known is served on; for pods see --address-staleness-limit-sec.',
  },
  {
    name: 'address-staleness-limit-sec',
    group: 'Kubernetes',
    type: 'integer',
    // An outage of the API server is over by then as a rule, and readiness has been false for long.
    default: 900,
    min: 0,
    max: 86_400,
    isNew: true,
    help:
      'Pods known by address only (any mode but eBPF) get 503 once the pods of this node were not proven ' +
      'current for so long, for the address may be another pod’s by now; 0 for never, else from 10 on.',
  },
  {
    name: 'nmi-listen-address',
    group: 'Listener',
    type: 'ip',
    default: '169.254.25.79',
    help: 'Address the agent listens on and the redirect leads to; held by a link of our own.',
  },
  {
    name: 'nmi-port',
    group: 'Listener',
    type: 'integer',
    default: 2579,
    min: 1,
    max: 65535,
    help: 'Port of that address.',
  },
  {
    name: 'enable-host-token',
    group: 'Listener',
    type: 'boolean',
    default: false,
    isNew: true,
    help: 'Serve `/host/token` on 127.0.0.1: any process of the host can then ask for any pod of this node.',
  },
  {
    name: 'http-probe-port',
    group: 'Operation',
    type: 'integer',
    default: 8080,
    min: 0,
    max: 65535,
    help: 'Port of `/healthz`, `/livez` and `/readyz` on all interfaces; 0 turns it off.',
  },
  {
    name: 'prometheus-port',
    group: 'Operation',
    type: 'integer',
    default: 9090,
    min: 0,
    max: 65535,
    help: 'Port of `/metrics` on all interfaces; 0 turns it off; may equal the probe port.',
  },
  {
    name: 'explain-socket',
    group: 'Operation',
    type: 'string',
    // Of what a container with a read-only root always has, the one place that can be written.
    default: '/dev/shm/nmi/explain.sock',
    // Longer ones have no room in the address of a socket.
    pattern: {
      test: /^(?:\/[\x21-\x7e]{1,106})?$/,
      allowed: 'an absolute path of at most 107 characters, or nothing',
    },
    isNew: true,
    help: 'Unix socket that `nmi explain` asks, for the agent’s own user alone; empty turns it off.',
  },
  {
    name: 'metadata-ip',
    group: 'Upstream',
    type: 'ip',
    default: '169.254.169.254',
    help: 'Address of the instance metadata service: what pods dial and what the agent asks.',
  },
  {
    name: 'metadata-port',
    group: 'Upstream',
    type: 'integer',
    default: 80,
    min: 1,
    max: 65535,
    help: 'Port of that address.',
  },
  {
    name: 'imds-timeout-ms',
    group: 'Upstream',
    type: 'integer',
    default: 10_000,
    min: 100,
    max: 120_000,
    isNew: true,
    help: 'Longest time one token fetch may take upstream, tries and waiting included.',
  },
  {
    name: 'cloud',
    group: 'Upstream',
    type: 'choice',
    default: 'public',
    choices: cloudNames,
    isNew: true,
    help: 'Azure cloud of this cluster: where Entra ID is for identities without `adEndpoint`.',
  },
  {
    name: 'entra-authority',
    group: 'Upstream',
    type: 'string',
    default: '',
    pattern: {
      test: /^(?:https:\/\/(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?\/?)?$/i,
      allowed: 'an origin like https://login.example.com',
    },
    isNew: true,
    help: 'Entra ID of a cloud that --cloud has no name for.',
  },
  {
    name: 'federation-audience',
    group: 'Upstream',
    type: 'string',
    default: '',
    pattern: { test: /^[\x21-\x7e]{0,512}$/, allowed: 'visible ASCII without blanks' },
    isNew: true,
    help: 'Audience of the service account tokens for federation, instead of the cloud’s.',
  },
  {
    name: 'authority-hosts',
    group: 'Upstream',
    type: 'list',
    default: [],
    items: {
      isRight: isAuthorityHost,
      allowed: 'host names with an optional port',
    },
    isNew: true,
    help: 'Further authorities that an AzureIdentity may name in `adEndpoint`, beside Microsoft’s.',
  },
  {
    name: 'entra-ca-file',
    group: 'Upstream',
    type: 'string',
    default: '',
    isNew: true,
    help: 'PEM file of authorities to trust for Entra ID beside the built-in ones.',
  },
  {
    name: 'entra-timeout-ms',
    group: 'Upstream',
    type: 'integer',
    default: 10_000,
    min: 500,
    max: 30_000,
    isNew: true,
    help: 'Longest time for one token from Entra ID, the reading of its credential included.',
  },
  {
    name: 'workload-identity',
    group: 'Upstream',
    type: 'boolean',
    default: false,
    isNew: true,
    help: 'Serve pods without a binding that are set up for Workload Identity, by federation.',
  },
  {
    name: 'workload-identity-tenant',
    group: 'Upstream',
    type: 'string',
    default: '',
    pattern: {
      test: /^(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?:[a-z0-9][a-z0-9-]{0,62}\.)+[a-z]{2,63})?$/i,
      allowed: 'a tenant id or domain name',
    },
    isNew: true,
    help: 'Tenant of service accounts without the annotation `azure.workload.identity/tenant-id`.',
  },
  {
    name: 'token-cache-size',
    group: 'Upstream',
    type: 'integer',
    default: 20_000,
    min: 1,
    max: 1_000_000,
    isNew: true,
    help: 'Most tokens kept in memory.',
  },
  {
    name: 'redirect',
    group: 'Redirect',
    type: 'choice',
    default: 'auto',
    choices: redirectChoices,
    isNew: true,
    help:
      'How pods’ connections are brought here. `auto`: by eBPF where this kernel has it and pods are ' +
      'in the cgroup2 tree, else by iptables. `address`: the node has no metadata service of its ' +
      'own and holds the metadata address itself. `pinned`: by eBPF, kept by `nmi redirect run` in ' +
      'another container, so that this one needs no rights. `none` leaves the node alone.',
  },
  {
    name: 'pod-uid',
    group: 'Redirect',
    type: 'string',
    default: '',
    pattern: { test: /^(?:[0-9a-z][0-9a-z-]{0,62})?$/, allowed: 'the UID of a pod' },
    isNew: true,
    help:
      'With eBPF: the pod that the agent is, all of whose containers reach the real endpoint; else ' +
      'this container alone.',
  },
  {
    name: 'cgroup-root',
    group: 'Redirect',
    type: 'string',
    default: '',
    pattern: { test: /^(?:\/[^\0]*)?$/, allowed: 'an absolute path' },
    isNew: true,
    help:
      'With eBPF: folder of the cgroup2 tree that has the kubelet’s, or one that it is mounted below; ' +
      'else where it is mounted.',
  },
  {
    name: 'bpf-pin-folder',
    group: 'Redirect',
    type: 'string',
    default: '/sys/fs/bpf/nmi',
    pattern: { test: /^\/[^\0]+\/[^\0/]+$/, allowed: 'an absolute path of two parts or more' },
    isNew: true,
    help: 'With eBPF: the folder of the BPF file system that programs and maps are pinned in.',
  },
  {
    name: 'host-network',
    group: 'Answers',
    type: 'choice',
    default: 'serve',
    choices: hostNetworkChoices,
    isNew: true,
    help:
      'With eBPF, pods on the host network: `serve` gives one with a binding its identity and any ' +
      'other the node’s own, as ever.',
  },
  {
    name: 'iptables-backend',
    group: 'Redirect',
    type: 'choice',
    default: 'auto',
    choices: backendChoices,
    isNew: true,
    help: 'Which iptables; `auto` follows the kubelet’s own chains.',
  },
  {
    name: 'metadata-guard',
    group: 'Redirect',
    type: 'boolean',
    default: true,
    isNew: true,
    help: 'Policy routing rules that keep pods off the real endpoint even when every iptables rule is flushed.',
  },
  {
    name: 'ipt-update-interval-sec',
    group: 'Redirect',
    type: 'integer',
    default: 10,
    min: 1,
    max: 3600,
    help: 'Seconds between two checks of the redirect.',
  },
  {
    name: 'enable-conntrack-deletion',
    group: 'Redirect',
    type: 'boolean',
    default: true,
    noEffect: 'connections that predate the redirect are always cut',
    help: 'Accepted for compatibility.',
  },
  {
    name: 'metadata-header-required',
    group: 'Answers',
    type: 'boolean',
    default: true,
    help: 'Refuse requests without `Metadata: true`, as the real service does.',
  },
  {
    name: 'block-instance-metadata',
    group: 'Answers',
    type: 'boolean',
    default: false,
    help: 'Refuse `/metadata/instance` to all pods.',
  },
  {
    name: 'allow-metadata',
    group: 'Answers',
    type: 'list',
    default: [],
    items: { isRight: isMetadataArea, allowed: `any of ${metadataAreas.join(', ')}` },
    isNew: true,
    help: 'Further parts of the metadata service to pass through, comma separated.',
  },
  {
    name: 'strict-identity',
    group: 'Answers',
    type: 'boolean',
    default: false,
    isNew: true,
    help: 'Refuse a request that names no identity when several are bound, instead of taking the oldest.',
  },
  {
    name: 'binding-grace-sec',
    group: 'Answers',
    type: 'integer',
    default: 60,
    min: 0,
    max: 3600,
    isNew: true,
    help: 'While a pod, its label or its binding is younger, a missing object is answered 503, later 400.',
  },
  {
    name: 'late-object-wait-ms',
    group: 'Answers',
    type: 'integer',
    default: 2_000,
    min: 0,
    max: 10_000,
    isNew: true,
    help: 'How long a request waits for a pod or binding that is not known yet.',
  },
  {
    name: 'set-retry-after-header',
    group: 'Answers',
    type: 'boolean',
    default: false,
    noEffect: 'passing states are always answered 503 with Retry-After, permanent ones never',
    help: 'Accepted for compatibility.',
  },
  {
    name: 'log-format',
    group: 'Operation',
    type: 'choice',
    default: 'json',
    choices: logFormats,
    help: 'Log lines as JSON, or as text in the shape of the replaced system.',
  },
  {
    name: 'log-level',
    group: 'Operation',
    type: 'choice',
    default: 'info',
    choices: logLevels,
    isNew: true,
    help: 'Least level that is logged.',
  },
  {
    name: 'v',
    group: 'Operation',
    type: 'integer',
    default: 0,
    min: 0,
    max: 10,
    help: 'Verbosity in the old way: 4 and up means debug, 6 and up trace.',
  },
  {
    name: 'startup-taint',
    group: 'Operation',
    type: 'string',
    default: '',
    pattern: {
      test: /^(?:[a-z0-9A-Z](?:[-a-zA-Z0-9._/]{0,315}[a-zA-Z0-9])?)?$/,
      allowed: 'the key of a taint',
    },
    isNew: true,
    help: 'Taint that the agent takes off its own node when it is ready. Needs get and patch of nodes.',
  },
  {
    name: 'drain-timeout-sec',
    group: 'Operation',
    type: 'integer',
    default: 10,
    min: 0,
    max: 600,
    isNew: true,
    help: 'Longest wait for requests under way at shutdown.',
  },
  {
    name: 'mic-namespace',
    old: 'MICNamespace',
    group: 'Operation',
    type: 'string',
    default: 'default',
    noEffect: 'no pod is excepted for its name; use an AzurePodIdentityException',
    help: 'Accepted for compatibility.',
  },
  {
    name: 'enable-scale-features',
    old: 'enableScaleFeatures',
    group: 'Operation',
    type: 'boolean',
    default: true,
    noEffect: 'it filtered a watch of standard mode',
    help: 'Accepted for compatibility.',
  },
  {
    name: 'enable-profile',
    old: 'enableProfile',
    group: 'Operation',
    type: 'boolean',
    default: false,
    noEffect: 'it served Go profiles',
    help: 'Accepted for compatibility.',
  },
  {
    name: 'retry-attempts-for-created',
    group: 'Operation',
    type: 'integer',
    default: 16,
    min: 0,
    max: 1_000_000,
    noEffect: retriesOfStandardMode,
    help: 'Accepted for compatibility.',
  },
  {
    name: 'retry-attempts-for-assigned',
    group: 'Operation',
    type: 'integer',
    default: 4,
    min: 0,
    max: 1_000_000,
    noEffect: retriesOfStandardMode,
    help: 'Accepted for compatibility.',
  },
  {
    name: 'find-identity-retry-interval',
    group: 'Operation',
    type: 'integer',
    default: 5,
    min: 0,
    max: 1_000_000,
    noEffect: retriesOfStandardMode,
    help: 'Accepted for compatibility.',
  },
  ...glogStrings(['vmodule', 'stderrthreshold', 'log_dir', 'log_file', 'log_backtrace_at']),
  ...glogBooleans([
    'logtostderr',
    'alsologtostderr',
    'skip_headers',
    'skip_log_headers',
    'add_dir_header',
    'one_output',
  ]),
  {
    name: 'log-file-max-size',
    old: 'log_file_max_size',
    group: 'Operation',
    type: 'integer',
    default: 1800,
    min: 0,
    max: 1_000_000_000,
    noEffect: glogFile,
    help: 'Accepted for compatibility.',
  },
] as const satisfies readonly Option[];

function glogStrings(names: readonly string[]): readonly StringOption[] {
  return names.map((name) => ({ ...glog(name), type: 'string', default: '' }));
}

function glogBooleans(names: readonly string[]): readonly BooleanOption[] {
  return names.map((name) => ({ ...glog(name), type: 'boolean', default: false }));
}

function glog(spelling: string) {
  const name = spelling.replaceAll('_', '-');
  return {
    name,
    ...(name === spelling ? {} : { old: spelling }),
    group: 'Operation',
    noEffect: glogFile,
    help: 'Accepted for compatibility.',
  } as const;
}

/** `NMI_` and the name in upper snake case; never guessed from anything else. */
export function environmentName(option: Option): string {
  return `NMI_${option.name.replaceAll('-', '_').toUpperCase()}`;
}
