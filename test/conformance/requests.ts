/** Requests to the token path, spelled as a case needs them. */
import type { Target } from './target.ts';

export const tokenPath = '/metadata/identity/oauth2/token';
export const metadata: readonly (readonly [string, string])[] = [['Metadata', 'true']];

export interface RequestOptions {
  readonly method?: string;
  /** Besides `Host`. Default: `Metadata: true`. */
  readonly fields?: readonly (readonly [name: string, value: string])[];
  readonly version?: '1.0' | '1.1';
  readonly body?: string;
  /** Null leaves the field out. */
  readonly host?: string | null;
}

/** In UTF-8, so that a target can contain the raw bytes of a careless client. */
export function renderRequest(target: string, options: RequestOptions = {}): Buffer {
  const { method = 'GET', fields = metadata, version = '1.1', body } = options;
  const { host = '169.254.169.254' } = options;
  const lines = [
    `${method} ${target} HTTP/${version}`,
    ...(host === null ? [] : [`Host: ${host}`]),
    ...fields.map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined ? [] : [`Content-Length: ${Buffer.byteLength(body)}`]),
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`);
}

/** `resource=…` verbatim, so that a case can choose the encoding. */
export function tokenQuery(resource: string, more = ''): string {
  return `api-version=2018-02-01&resource=${resource}${more === '' ? '' : `&${more}`}`;
}

/** The usual token request of the target's caller. */
export function tokenTarget({ resource }: Target, more = ''): string {
  return `${tokenPath}?${tokenQuery(encodeURIComponent(resource), more)}`;
}
