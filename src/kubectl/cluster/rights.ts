/** Rights, as the API server itself answers: `kubectl auth can-i`. */
import { classifyFailure, type KubectlFailure } from '../transport/kubectl-failure.ts';
import type { Kubectl } from '../transport/kubectl.ts';

export interface Right {
  readonly verb: string;
  /** With its group; a subresource follows a slash. */
  readonly resource: string;
  /** An agent that may do it as its own node needs no right of its own. */
  readonly mayBeAsNode?: boolean;
  /** The agent may have it in some namespaces only; which need it is not known. */
  readonly isPerNamespace?: boolean;
}

/** `as_node`: not as itself, but as its own node. */
export interface Answer<T extends Right> {
  readonly right: T;
  readonly kind: 'yes' | 'as_node' | 'no' | 'unknown';
  /** The question could not be asked. */
  readonly failure?: KubectlFailure;
}

export const everywhere = ['--all-namespaces'];

/**
 * @param where flags of kubectl; none is the namespace of its context. @param user to impersonate.
 */
export async function askRight<T extends Right>(
  kubectl: Kubectl,
  right: T,
  where: readonly string[],
  user?: string,
): Promise<Answer<T>> {
  const { verb, resource, mayBeAsNode = false } = right;
  // kubectl takes what follows a slash for the name of an object.
  const [kind = '', subresource] = resource.split('/');
  const run = await kubectl.run([
    ...['auth', 'can-i', verb, kind],
    ...(subresource === undefined ? [] : [`--subresource=${subresource}`]),
    ...where,
    ...(user === undefined ? [] : [`--as=${user}`]),
  ]);
  const [, word] = /^(yes|no)\b/.exec(run.stdout) ?? [];
  if (word === 'no' && mayBeAsNode) {
    const asNode = { verb: `impersonate-on:associated-node:${verb}`, resource };
    const answer = await askRight(kubectl, asNode, where, user);
    return answer.kind === 'yes' ? { right, kind: 'as_node' } : { ...answer, right };
  }
  if (word === 'yes' || word === 'no') return { right, kind: word };
  return { right, kind: 'unknown', failure: classifyFailure(run) };
}
