/**
 * The query of a token request: parameters checked in IMDS's order. Pure, never throws.
 *
 * 1. A name that is given twice is refused, even an unknown one.
 * 2. `api-version` is required and must look like a date.
 * 3. `resource` is required; it is kept byte for byte, since clients use the echoed value as their
 *    cache key.
 * 4. At most one of `client_id`, `object_id`, `msi_res_id`, `mi_res_id`; an empty one is absent.
 * 5. A misspelt selector (`clientid`) is refused: ignoring it would silently return the token of
 *    another identity than requested. All other unknown names are ignored.
 */
import type { RequestedId } from '../../cache/token/token.ts';
import type { IdentitySelector } from '../grants/choose-identity.ts';
import { printable } from '../../base/printable.ts';

export interface TokenQuery {
  readonly resource: string;
  readonly selector: IdentitySelector;
  /** The token must be fetched anew from the upstream. */
  readonly bypassCache: boolean;
  /** SHA-256 of a token that must not be the answer, in lower-case hex. */
  readonly badTokenSha256: string | undefined;
}

/** The request needs more than a cache look-up. */
export function wantsOtherToken({ bypassCache, badTokenSha256 }: TokenQuery): boolean {
  return bypassCache || badTokenSha256 !== undefined;
}

export interface RefusedQuery {
  readonly kind: 'refused';
  readonly reason:
    'parameter_missing' | 'parameter_duplicate' | 'parameter_invalid' | 'selector_conflict';
  /** Names the parameter and what is wrong with it. */
  readonly detail: string;
}

export type TokenQueryResult = { readonly kind: 'ok'; readonly query: TokenQuery } | RefusedQuery;

/** The requested id that the answer repeats, as the real service does: any but a client id. */
export function askedIdOf({ selector }: TokenQuery): RequestedId | undefined {
  if (selector.kind === 'none' || selector.kind === 'client_id') return undefined;
  return { kind: selector.kind, value: selector.value };
}

const maxResourceLength = 2048;
const maxSelectorLength = 1024;
const controlCharacter = /\p{Cc}/u;

const selectorKinds: ReadonlyMap<string, 'client_id' | 'object_id' | 'resource_id'> = new Map([
  ['client_id', 'client_id'],
  ['object_id', 'object_id'],
  ['msi_res_id', 'resource_id'],
  ['mi_res_id', 'resource_id'],
]);

/** Selector names without case and separators, to recognize look-alikes. */
const misspelt: ReadonlyMap<string, string> = new Map([
  ['clientid', 'client_id'],
  ['objectid', 'object_id'],
  ['principalid', 'object_id'],
  ['msiresid', 'msi_res_id'],
  ['miresid', 'mi_res_id'],
  ['resourceid', 'msi_res_id'],
]);

/**
 * @param query the part behind the question mark, as sent.
 * @param requireApiVersion false on `/host/token`, where clients send none.
 */
export function parseTokenQuery(query: string, requireApiVersion = true): TokenQueryResult {
  const parameters = new Map<string, string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decodeFormPart(equals < 0 ? pair : pair.slice(0, equals));
    const value = equals < 0 ? '' : decodeFormPart(pair.slice(equals + 1));
    if (name === undefined || value === undefined) {
      return refuse('parameter_invalid', 'the query has a broken percent escape');
    }
    if (parameters.has(name)) {
      return refuse('parameter_duplicate', `query variable '${printable(name)}' is given twice`);
    }
    parameters.set(name, value);
  }
  return check(parameters, requireApiVersion);
}

function check(parameters: ReadonlyMap<string, string>, requireApiVersion: boolean) {
  const apiVersion = parameters.get('api-version') ?? '';
  if (apiVersion === '' && requireApiVersion) {
    return refuse('parameter_missing', "Required query variable 'api-version' is missing");
  }
  if (apiVersion !== '' && !/^\d{4}-\d{2}-\d{2}$/.test(apiVersion)) {
    return refuse('parameter_invalid', "query variable 'api-version' must look like 2018-02-01");
  }
  const resource = parameters.get('resource') ?? '';
  if (resource === '') {
    return refuse('parameter_missing', "Required query variable 'resource' is missing");
  }
  if (resource.length > maxResourceLength || controlCharacter.test(resource)) {
    return refuse('parameter_invalid', "query variable 'resource' is not an App ID URI or GUID");
  }
  return checkSelectors(parameters, resource);
}

function checkSelectors(
  parameters: ReadonlyMap<string, string>,
  resource: string,
): TokenQueryResult {
  let selector: IdentitySelector = { kind: 'none' };
  let chosen: string | undefined;
  for (const [name, value] of parameters) {
    const kind = selectorKinds.get(name);
    if (kind === undefined) {
      const meant = misspelt.get(name.toLowerCase().replaceAll(/[-_]/g, ''));
      if (meant === undefined) continue;
      return refuse(
        'parameter_invalid',
        `query variable '${printable(name)}' is unknown, did you mean '${meant}'?`,
      );
    }
    if (value === '') continue;
    if (chosen !== undefined) {
      return refuse(
        'selector_conflict',
        `query variables '${chosen}' and '${name}' exclude each other`,
      );
    }
    if (value.length > maxSelectorLength || controlCharacter.test(value)) {
      return refuse('parameter_invalid', `query variable '${name}' is not an identity's id`);
    }
    chosen = name;
    selector = { kind, value };
  }
  const bypassCache = parameters.get('bypass_cache')?.toLowerCase() === 'true';
  const badTokenSha256 = parseSha256(parameters.get('token_sha256_to_refresh'));
  return { kind: 'ok', query: { resource, selector, bypassCache, badTokenSha256 } };
}

/** A value that is no hash is ignored, as IMDS ignores the whole parameter. */
function parseSha256(text: string | undefined): string | undefined {
  return text !== undefined && /^[0-9a-f]{64}$/i.test(text) ? text.toLowerCase() : undefined;
}

function refuse(reason: RefusedQuery['reason'], detail: string): RefusedQuery {
  return { kind: 'refused', reason, detail };
}

function decodeFormPart(text: string): string | undefined {
  const spaced = text.includes('+') ? text.replaceAll('+', ' ') : text;
  if (!spaced.includes('%')) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    return undefined;
  }
}
