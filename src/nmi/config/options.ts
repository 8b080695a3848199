/** The only table of options: flags, environment, help, docs and the chart are derived from it. */
import { isDnsSubdomain } from '../../base/dns-name.ts';
import { cloudNames, parseOrigin } from '../sources/entra/clouds.ts';
import {
  alwaysTrue,
  anyText,
  boolean,
  choice,
  durationOrNever,
  integer,
  ipOrAll,
  ipv4,
  list,
  matching,
  path,
  pathOrOff,
  port,
  portOrOff,
  seconds,
  type OptionType,
} from './option-types.ts';

interface OptionRow {
  /** The spelling of the replaced system, if it differs. */
  readonly old?: string;
  /** Field of `Config`, if it is not the name in camel case. */
  readonly key?: string;
  readonly type: OptionType<unknown>;
  /** As written by a user; without a default, the empty text. */
  readonly default?: string;
  readonly help: string;
  readonly isOfRedirect?: true;
  /** The option also applies to `nmi conditions`, or only to it in the group `Conditions`. */
  readonly isOfConditions?: true;
  /** Further environment variables; the first that is set is used. */
  readonly otherVariables?: readonly string[];
}

export interface Option extends OptionRow {
  /** Kebab-case; gives the names of flag and environment variable. */
  readonly name: string;
  readonly key: string;
  readonly default: string;
  readonly group: string;
}

/** Areas of the metadata service that are closed to pods by default. */
const metadataAreas = choice(['attested', 'scheduledevents', 'loadbalancer']);
/** {@link parseOrigin} looks more closely. */
const origin = /^https:\/\/(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?\/?$/;

const table = {
  Kubernetes: {
    node: {
      type: {
        kind: 'string',
        allowed: 'the name of this Kubernetes node; set it from spec.nodeName',
        parse: (text: string) => (isDnsSubdomain(text) ? text : undefined),
      },
      help: 'Name of this Kubernetes node. The agent watches and serves only its pods. Required.',
    },
    'operation-mode': {
      type: choice(['managed'], 'managed (there is no standard mode: only NMI runs)'),
      default: 'managed',
      help: 'Mode of operation.',
    },
    'force-namespaced': {
      old: 'forceNamespaced',
      type: alwaysTrue('matching is always namespaced'),
      default: 'true',
      help: 'Pods use identities of their own namespace only. Always on; `false` is refused.',
    },
    kubeconfig: {
      key: 'kubeconfigPath',
      isOfConditions: true,
      type: anyText,
      otherVariables: ['KUBECONFIG'],
      help: 'Path of a kubeconfig file. Default: `KUBECONFIG`, then the in-cluster configuration.',
    },
    'allow-network-plugin-kubenet': {
      key: 'allowKubenet',
      type: boolean,
      default: 'false',
      help: "Start on a kubenet node, where a pod can take over another pod's address by ARP.",
    },
    'kubelet-config': {
      key: 'kubeletConfigPath',
      // Not empty: the check would find nothing, and report nothing.
      type: path,
      default: '/etc/default/kubelet',
      help: 'File that the kubenet check reads.',
    },
    'custom-user-agent': {
      isOfConditions: true,
      type: matching(/^[\x20-\x7e]{0,200}$/, 'up to 200 printable ASCII characters'),
      help: 'Text to append to the user agent of all outgoing requests.',
    },
    'address-staleness-limit': {
      key: 'addressStalenessLimitMs',
      // A watch under check needs a second or two to be proven current, and may be checked once in
      // 5 s.
      type: durationOrNever('10s', '24h'),
      // Usually an outage of the API server is over by then, and readiness has been false for long.
      default: '15m',
      help: 'Maximum age of pod information when callers are known by address only (all modes but eBPF). When it is older, these pods get 503, because the address may belong to another pod by now. 0 turns the limit off.',
    },
    'rights-staleness-limit': {
      key: 'rightsStalenessLimitMs',
      type: durationOrNever('10s', '168h'),
      default: '24h',
      help: 'Maximum age of what the API server said of pods, identities, bindings, exceptions and grants. When it is older, no pod gets a token (503): what was deleted meanwhile would be granted on. 0 turns the limit off.',
    },
  },
  Listener: {
    'nmi-listen-address': {
      key: 'listenIp',
      isOfRedirect: true,
      type: ipv4,
      default: '169.254.25.79',
      help: 'Listen address and target of the redirect. The agent adds it to a link of its own.',
    },
    'nmi-port': {
      key: 'listenPort',
      isOfRedirect: true,
      type: integer(1, 65_534),
      default: '2579',
      help: 'Port of the listen address. The next port is for a second agent, during an update.',
    },
    'enable-host-token': {
      key: 'hostToken',
      type: boolean,
      default: 'false',
      help: 'Serve `/host/token` on 127.0.0.1. Any process on the host can then get tokens of any pod of this node.',
    },
  },
  Redirect: {
    redirect: {
      isOfRedirect: true,
      type: {
        ...choice(['auto', 'ebpf', 'iptables', 'pinned', 'none']),
        removed: {
          choice: 'address',
          allowed:
            'auto, ebpf or iptables, which serve a node without a metadata service too; nothing else has to change there',
        },
      },
      default: 'auto',
      help: "How pods' connections reach the agent. `auto`: eBPF if the kernel supports it and pods are in the cgroup2 tree, iptables otherwise. `pinned`: `nmi redirect run` in another container maintains the redirect, and this one needs no rights. `none`: no redirect.",
    },
    'ipt-update-interval-sec': {
      key: 'redirectIntervalMs',
      isOfRedirect: true,
      type: seconds(1, 3600),
      default: '10',
      help: 'Interval between checks of the redirect, in seconds.',
    },
  },
  Answers: {
    'host-network': {
      type: choice(['serve', 'refuse']),
      default: 'serve',
      help: 'Pods on the host network, with eBPF. `serve`: a pod with the label of a binding gets its own identity, any other reaches the metadata service itself. `refuse`: none gets a token.',
    },
    'unrecorded-callers': {
      type: choice(['by-link', 'refuse']),
      default: 'by-link',
      help: 'Connections that the eBPF programs could not record: from sandboxes (gVisor, Kata), from containers inside a pod, through a proxy of another pod. `by-link`: identified by source address and network link, where each pod has a link of its own. `refuse`: no token.',
    },
    'metadata-header-required': {
      type: boolean,
      default: 'true',
      help: 'Refuse requests without `Metadata: true`, as IMDS does.',
    },
    'block-instance-metadata': {
      type: boolean,
      default: 'false',
      help: 'Refuse `/metadata/instance` for all pods.',
    },
    'allow-metadata': {
      key: 'allowedAreas',
      type: list(
        `any of ${metadataAreas.allowed}`,
        metadataAreas.parse,
        /^(?:attested|scheduledevents|loadbalancer)$/,
      ),
      help: 'More areas of the metadata service to relay.',
    },
    'strict-identity': {
      type: boolean,
      default: 'false',
      help: 'Refuse a request that names no identity when the pod has several, instead of using the oldest.',
    },
    'identity-owners': {
      isOfConditions: true,
      type: choice(['off', 'warn', 'enforce']),
      default: 'warn',
      help: 'What happens to an AzureIdentity that no AzureIdentityGrant gives to its namespace: `enforce` refuses it, `warn` serves and reports it, `off` serves it. Without `enforce`, everyone who can write an AzureIdentity gets any identity of the node.',
    },
  },
  Upstream: {
    'metadata-ip': {
      isOfRedirect: true,
      type: ipv4,
      default: '169.254.169.254',
      help: 'Address of the instance metadata service.',
    },
    'metadata-port': {
      isOfRedirect: true,
      type: port,
      default: '80',
      help: 'Port of the instance metadata service.',
    },
    'workload-identity': {
      type: boolean,
      default: 'false',
      help: 'Serve pods that are set up for Workload Identity and have no binding, by federation.',
    },
    'workload-identity-tenant': {
      type: matching(
        /^(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?:[a-zA-Z0-9][a-zA-Z0-9-]{0,62}\.)+[a-zA-Z]{2,63})?$/,
        'a tenant id or domain name',
      ),
      help: 'Tenant of service accounts without the annotation `azure.workload.identity/tenant-id`.',
    },
  },
  Cloud: {
    cloud: {
      isOfConditions: true,
      type: choice(cloudNames),
      default: 'public',
      help: 'Azure cloud of this cluster. Sets authority and audience, unless the next two options do.',
    },
    'entra-authority': {
      key: 'entraAuthorities',
      isOfConditions: true,
      type: list('origins like https://login.example.com', parseOrigin, origin),
      help: "Origins of Entra ID, for a cloud that --cloud does not know. Identities without `adEndpoint` use the first. `adEndpoint` may name any of them, and those of Microsoft's clouds.",
    },
    'entra-audience': {
      isOfConditions: true,
      type: matching(/^[\x21-\x7e]{0,512}$/, 'visible ASCII without blanks'),
      help: "Audience of service account tokens for federation, instead of the cloud's.",
    },
    'entra-ca-file': {
      type: anyText,
      help: 'PEM file of certificate authorities for Entra ID, in addition to the built-in ones.',
    },
    'aks-cluster-id': {
      type: matching(/^[\w-]{0,63}$/, 'letters, digits and hyphens'),
      help: 'Cluster id for `federation: binding`, if the certificate of the API server does not name it.',
    },
  },
  Operation: {
    'http-probe-port': {
      key: 'probePort',
      isOfRedirect: true,
      isOfConditions: true,
      type: portOrOff,
      default: '8080',
      help: 'Port of `/healthz`, `/livez` and `/readyz` on all interfaces. 0 turns it off.',
    },
    'prometheus-port': {
      key: 'metricsPort',
      isOfRedirect: true,
      isOfConditions: true,
      type: portOrOff,
      default: '9090',
      help: 'Port of `/metrics` on all interfaces, unless --prometheus-address is set. 0 turns it off. May equal the probe port.',
    },
    'prometheus-address': {
      key: 'metricsAddress',
      isOfRedirect: true,
      isOfConditions: true,
      type: ipOrAll,
      help: 'Address at which `/metrics` is served, on a port of its own. Default: all addresses of the node.',
    },
    'old-metrics': {
      type: boolean,
      default: 'true',
      help: 'Export the four metrics of the replaced system (`aadpodidentity_*`) under their names.',
    },
    'identity-metrics': {
      type: boolean,
      default: 'false',
      help: 'Export `nmi_identity_token_requests_total`, with series for each AzureIdentity in use.',
    },
    'log-format': {
      isOfRedirect: true,
      isOfConditions: true,
      type: choice(['json', 'text']),
      default: 'json',
      help: "Log format. `text` has the shape of the replaced system's log.",
    },
    'log-level': {
      isOfRedirect: true,
      isOfConditions: true,
      type: choice(['error', 'warn', 'info', 'debug', 'trace']),
      default: 'info',
      help: 'Minimum log level.',
    },
    v: {
      key: 'verbosity',
      isOfConditions: true,
      type: integer(0, 10),
      default: '0',
      help: 'Log verbosity as in the replaced system: 4 and up means debug, 6 and up trace.',
    },
    events: {
      type: boolean,
      default: 'true',
      help: "Write Events: refusals on the pod and its identity, changes of readiness on the agent's own pod. Needs the right to create events.",
    },
    'audit-log': {
      type: matching(/^(?:stdout|\/[^\0]+)?$/, 'an absolute path, or stdout'),
      help: 'Where to write the audit stream, a JSON line for each request: which pod, attested how, which identity and resource, the outcome and the object versions that decided. A file is reopened after rotation. Default: nowhere.',
    },
    'startup-taint': {
      type: matching(
        /^(?:[a-z0-9A-Z](?:[-a-zA-Z0-9._/]{0,315}[a-zA-Z0-9])?)?$/,
        'the key of a taint',
      ),
      help: 'Taint that the agent removes from its node when it is ready. Needs the rights to get and patch nodes.',
    },
  },
  Conditions: {
    'max-watch-events-per-sec': {
      isOfConditions: true,
      type: integer(1, 1_000_000),
      default: '5000',
      help: 'Only `nmi conditions`: watch events that all nodes together receive from writes of status conditions, in a second. Writes are at most ten a second, and at least one in ten seconds.',
    },
    'agent-daemonset': {
      key: 'agentDaemonSet',
      isOfConditions: true,
      type: matching(/^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/, 'the name of a DaemonSet'),
      default: 'nmi',
      help: 'Only `nmi conditions`: DaemonSet of the agents, whose status has the number of nodes.',
    },
    'agent-namespace': {
      isOfConditions: true,
      type: matching(/^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/, 'the name of a namespace'),
      default: 'kube-system',
      help: 'Only `nmi conditions`: namespace of that DaemonSet.',
    },
  },
  Advanced: {
    'iptables-backend': {
      isOfRedirect: true,
      type: choice(['auto', 'nft', 'legacy']),
      default: 'auto',
      help: "iptables backend. `auto` uses that of the kubelet's own chains.",
    },
    'metadata-guard': {
      isOfRedirect: true,
      type: boolean,
      default: 'true',
      help: 'Policy routing rules that keep pods off the real metadata service even if all iptables rules are flushed.',
    },
    'boot-guard-folder': {
      isOfRedirect: true,
      type: matching(/^(?:\/[^\0]+)?$/, 'an absolute path'),
      help: "Only of `nmi redirect`: mount of the host's `/etc/systemd/system`. `guard-boot` writes a unit there that blocks the metadata service for pods from boot until the agent has started; `unguard-boot` and `remove` delete it.",
    },
    'fast-path': {
      type: boolean,
      default: 'true',
      help: "Answer usual requests for cached tokens without Node's HTTP parser. `false` makes them slower.",
    },
  },
  /** No flags: the manifest sets them. */
  'Environment only': {
    'pod-uid': {
      type: matching(/^(?:[0-9a-z][0-9a-z-]{0,62})?$/, 'the UID of a pod'),
      help: "UID of the agent's own pod, with eBPF. All its containers reach the real metadata service. Default: only the agent's own container does.",
    },
    'cgroup-root': {
      type: matching(/^(?:\/[^\0]*)?$/, 'an absolute path'),
      help: "Path of the cgroup2 mount that contains the kubelet's cgroups, or of a parent of it, with eBPF. Default: detected.",
    },
    'bpf-pin-folder': {
      type: matching(/^\/[^\0]+\/[^\0/]+$/, 'an absolute path of two parts or more'),
      default: '/sys/fs/bpf/nmi',
      help: 'Folder of the BPF file system for pinned programs and maps, with eBPF.',
    },
    'shared-folder': {
      type: matching(/^\/[^\0]+$/, 'an absolute path'),
      default: '/run/nmi',
      help: 'Folder in which `nmi redirect run` and an agent with `--redirect=pinned` exchange files. It must be shared by these two containers only.',
    },
    'slot-folder': {
      isOfRedirect: true,
      type: pathOrOff(/^(?:off|\/[^\0]+)$/, 'an absolute path, or off'),
      default: 'off',
      help: 'Folder on the host in which two agents of a node agree who has which port, so that an update refuses no connection. Only root may write there. `off`: the only agent of the node.',
    },
    'explain-socket': {
      // Longer ones have no room in the address of a socket.
      type: pathOrOff(
        /^(?:off|\/[\x21-\x7e]{1,106})$/,
        'an absolute path of at most 107 characters, or off',
      ),
      // The only path that a container with a read-only root can always write to.
      default: '/dev/shm/nmi/explain.sock',
      help: "Unix socket for `nmi explain`; only the agent's own user can open it. `off` for none.",
    },
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, OptionRow>>>>;

export const options: readonly Option[] = Object.entries(table).flatMap(([group, rows]) =>
  Object.entries<OptionRow>(rows).map(([name, row]) => {
    return { name, key: camelCase(name), default: '', ...row, group };
  }),
);

type Group = (typeof table)[keyof typeof table];
type NameOf<G> = G extends Group ? keyof G & string : never;
type Row<N extends string> = Extract<Group, Readonly<Record<N, OptionRow>>>[N];
type KeyOf<N extends string> =
  Row<N> extends { readonly key: infer K extends string } ? K : CamelCase<N>;
type CamelCase<T extends string> = T extends `${infer A}-${infer B}`
  ? `${A}${Capitalize<CamelCase<B>>}`
  : T;

/** One readonly value in base units for each row: milliseconds, choices as unions. */
export type Config = {
  readonly [N in NameOf<Group> as KeyOf<N>]: NonNullable<ReturnType<Row<N>['type']['parse']>>;
};

export interface IgnoredFlag {
  readonly name: string;
  readonly reason: string;
  /** The flag needs no value. */
  readonly isBoolean: boolean;
}

/** By reason; `=` marks a flag that needs a value. */
const ignored = {
  'connections that predate the redirect are always cut': 'enable-conntrack-deletion',
  'transient states are always answered 503 with Retry-After, permanent ones never':
    'set-retry-after-header',
  'no pod is excepted for its name; use an AzurePodIdentityException': 'MICNamespace=',
  'pods are read from the API server': 'pods-from=',
  'it filtered a watch of standard mode': 'enableScaleFeatures',
  'it served Go profiles': 'enableProfile',
  'it tuned the wait loop of standard mode':
    'retry-attempts-for-created= retry-attempts-for-assigned= find-identity-retry-interval=',
  'logs go to standard output':
    'logtostderr alsologtostderr skip_headers skip_log_headers add_dir_header one_output vmodule= stderrthreshold= log_dir= log_file= log_file_max_size= log_backtrace_at=',
};

/** Old flags, most of the replaced system, that change nothing here: accepted, and logged at start. */
export const ignoredFlags: readonly IgnoredFlag[] = Object.entries(ignored).flatMap(
  ([reason, flags]) =>
    flags.split(' ').map((flag) => {
      return { name: flag.replace('=', ''), reason, isBoolean: !flag.endsWith('=') };
    }),
);

/** By spelling, without dashes. */
const byFlag: ReadonlyMap<string, Option> = new Map(
  options
    .filter(hasFlag)
    .flatMap((option) => spellings(option).map((spelling) => [spelling, option] as const)),
);
const ignoredByFlag = new Map(ignoredFlags.map((flag) => [flag.name, flag]));

export const flagNames: readonly string[] = [...byFlag.keys()];

export function hasFlag({ group }: Option): boolean {
  return group !== 'Environment only';
}

export function findOption(flag: string): Option | undefined {
  return byFlag.get(flag);
}

export function findIgnored(flag: string): IgnoredFlag | undefined {
  return ignoredByFlag.get(flag);
}

export function spellings({ name, old }: Option): readonly string[] {
  return old === undefined ? [name] : [name, old];
}

/** Its environment variable: `NMI_` and the name in upper snake case, without a second `NMI_`. */
export function environmentName({ name }: Option): string {
  return `NMI_${upperSnake(name.replace(/^nmi-/, ''))}`;
}

/** All variables that it is read from, in order of precedence. */
export function environmentNames(option: Option): readonly string[] {
  return [
    ...new Set([environmentName(option), `NMI_${upperSnake(option.name)}`]),
    ...(option.otherVariables ?? []),
  ];
}

function camelCase(name: string): string {
  return name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function upperSnake(name: string): string {
  return name.replaceAll('-', '_').toUpperCase();
}
