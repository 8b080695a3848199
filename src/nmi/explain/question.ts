/** The query of `nmi explain`, from a request on the local socket. Pure. */
import type { IdentitySelector } from '../grants/choose-identity.ts';
import { printable } from '../../base/printable.ts';
import { parseTokenQuery } from '../server/token-query.ts';

export interface ExplainQuery {
  readonly who:
    | { readonly kind: 'node' }
    | { readonly kind: 'pod'; readonly namespace: string; readonly name: string };
  readonly selector: IdentitySelector;
  readonly resource: string | undefined;
}

export type ExplainQueryResult =
  | { readonly ok: true; readonly query: ExplainQuery }
  | { readonly ok: false; readonly problem: string };

const known = ['pod', 'resource', 'client_id'] as const;

export function parseExplainQuery(search: string): ExplainQueryResult {
  const given = new URLSearchParams(search);
  for (const name of given.keys()) {
    if (!known.some((each) => each === name)) return wrong(`${printable(name)} is not known`);
    if (given.getAll(name).length > 1) return wrong(`${name} is given twice`);
  }
  const who = parseWho(given.get('pod'));
  if (typeof who === 'string') return wrong(who);
  const [resource, clientId] = [given.get('resource'), given.get('client_id')];
  if (who.kind === 'node' && (resource !== null || clientId !== null)) {
    return wrong('resource and client_id are of a request of one pod; name it');
  }
  // It requires a resource, which does not matter to a grant.
  const tokenQuery = new URLSearchParams({
    resource: resource ?? 'any',
    client_id: clientId ?? '',
  });
  const parsed = parseTokenQuery(tokenQuery.toString(), false);
  if (parsed.kind === 'refused') return wrong(parsed.detail);
  const { selector } = parsed.query;
  return { ok: true, query: { who, selector, resource: resource ?? undefined } };
}

/** A string is the problem. */
function parseWho(pod: string | null): ExplainQuery['who'] | string {
  if (pod === null) return { kind: 'node' };
  const [namespace = '', name = '', ...rest] = pod.split('/');
  if (namespace === '' || name === '' || rest.length > 0) return 'pod is not NAMESPACE/NAME';
  return { kind: 'pod', namespace, name };
}

function wrong(problem: string): ExplainQueryResult {
  return { ok: false, problem };
}
