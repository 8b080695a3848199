/**
 * The national clouds: the address of Entra ID in each, and the audience of its federated
 * credentials. An identity may name only one of these authorities, or of the operator's list: a
 * client secret or an assertion is sent there. Pure.
 */
import { printable } from '../../../base/printable.ts';

export const cloudNames = ['public', 'usgovernment', 'china', 'usnat', 'ussec'] as const;

export type CloudName = (typeof cloudNames)[number];

export interface Cloud {
  /** An origin: scheme, host and, if it is not 443, port. */
  readonly authority: string;
  /** `aud` of the service account tokens that are exchanged there. */
  readonly audience: string;
}

interface CloudRow {
  /** The first is the authority; tokens are requested from the others under their own name. */
  readonly hosts: readonly [string, ...string[]];
  /** Former names of the authority, which must not be called any more. */
  readonly formerHosts?: readonly string[];
  readonly audience: string;
}

const rows = {
  public: {
    hosts: [
      'login.microsoftonline.com',
      'login.windows.net',
      'login.microsoft.com',
      'sts.windows.net',
    ],
    audience: 'api://AzureADTokenExchange',
  },
  usgovernment: {
    hosts: ['login.microsoftonline.us', 'login-us.microsoftonline.com'],
    audience: 'api://AzureADTokenExchangeUSGov',
  },
  china: {
    hosts: ['login.partner.microsoftonline.cn'],
    formerHosts: ['login.chinacloudapi.cn'],
    audience: 'api://AzureADTokenExchangeChina',
  },
  usnat: {
    hosts: ['login.microsoftonline.eaglex.ic.gov'],
    audience: 'api://AzureADTokenExchangeUSNat',
  },
  ussec: {
    hosts: ['login.microsoftonline.microsoft.scloud'],
    audience: 'api://AzureADTokenExchangeUSSec',
  },
} as const satisfies Record<CloudName, CloudRow>;

const knownHosts: ReadonlyMap<string, Cloud> = new Map(cloudNames.flatMap(hostsOf));

export function cloudOf(name: CloudName): Cloud {
  return { authority: originOf(rows[name].hosts[0]), audience: rows[name].audience };
}

export function parseOrigin(text: string): string | undefined {
  const host = /^https:\/\/([^/?#@\\]+)\/?$/i.exec(text)?.[1];
  return host !== undefined && isHost(host) ? URL.parse(text)?.origin : undefined;
}

export interface AuthorityQuestion {
  readonly adEndpoint: string;
  readonly cloud: CloudName;
  /** Lower case, with a port if it is not 443. */
  readonly allowedHosts: readonly string[];
}

/** `problem` completes "AzureIdentity x ...". */
export type AuthorityResult =
  | (Cloud & {
      readonly ok: true;
      /** Of service account tokens; the same unless the operator has set another. */
      readonly accountAudience: string;
    })
  | { readonly ok: false; readonly problem: string };

/**
 * 1. No authority is named: the authority of the node's cloud.
 * 2. Only https, and at most one slash after the host: any other part of a URL would be dropped
 * silently, or change where the credential is sent.
 * 3. A host of a known cloud has that cloud's audience, one of the operator's list the node's.
 */
export function resolveAuthority(question: AuthorityQuestion): AuthorityResult {
  const { cloud, allowedHosts } = question;
  const adEndpoint = question.adEndpoint.trim();
  if (adEndpoint === '') return resolved(cloudOf(cloud));
  const url = /^https:\/\/[^/?#@\\]+\/?$/i.test(adEndpoint) ? URL.parse(adEndpoint) : null;
  if (url === null) return misshapen(adEndpoint);
  const known = knownHosts.get(url.host);
  if (known !== undefined) return resolved(known);
  if (allowedHosts.includes(url.host)) {
    return resolved({ authority: url.origin, audience: rows[cloud].audience });
  }
  const allowed = [...allowedHosts, ...cloudNames.map((name) => rows[name].hosts[0])];
  return {
    ok: false,
    problem: `has the spec.adEndpoint ${printable(adEndpoint).slice(0, 80)}, which is not allowed (see --entra-authority); allowed are ${allowed.join(', ')}`,
  };
}

function resolved(cloud: Cloud): AuthorityResult {
  return { ok: true, ...cloud, accountAudience: cloud.audience };
}

function misshapen(adEndpoint: string): AuthorityResult {
  // The text before an at sign may be a password.
  const named = adEndpoint.includes('@') ? '' : ` ${printable(adEndpoint).slice(0, 80)}`;
  return {
    ok: false,
    problem: `has the spec.adEndpoint${named}, which is not an origin; allowed are origins like ${cloudOf('public').authority}, without path, query or user name`,
  };
}

function hostsOf(name: CloudName): readonly (readonly [string, Cloud])[] {
  const { hosts, formerHosts = [] }: CloudRow = rows[name];
  const cloud = cloudOf(name);
  return [
    ...hosts.map((host) => [host, { ...cloud, authority: originOf(host) }] as const),
    ...formerHosts.map((host) => [host, cloud] as const),
  ];
}

function originOf(host: string): string {
  return `https://${host}`;
}

function isHost(text: string): boolean {
  return /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i.test(text);
}
