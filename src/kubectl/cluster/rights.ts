/** Rights, as the API server itself answers: `kubectl auth can-i`. */
import { classifyFailure, type KubectlFailure } from '../transport/kubectl-failure.ts';
import type { Kubectl } from '../transport/kubectl.ts';

export interface Right {
  readonly verb: string;
  /** With its group; a subresource follows a slash. */
  readonly resource: string;
}

/** `failure`: the question could not be asked, so neither yes nor no is known. */
export type Answer =
  { readonly kind: 'yes' | 'no' } | { readonly kind: 'unknown'; readonly failure: KubectlFailure };

export const everywhere = ['--all-namespaces'];

/**
 * @param where flags of kubectl; none is the namespace of its context.
 * @param user whom to impersonate; undefined is the user.
 */
export async function askRight(
  kubectl: Kubectl,
  { verb, resource }: Right,
  where: readonly string[],
  user?: string,
): Promise<Answer> {
  // kubectl takes what follows a slash for the name of an object.
  const [kind = '', subresource] = resource.split('/');
  const run = await kubectl.run([
    ...['auth', 'can-i', verb, kind],
    ...(subresource === undefined ? [] : [`--subresource=${subresource}`]),
    ...where,
    ...(user === undefined ? [] : [`--as=${user}`]),
  ]);
  const [, word] = /^(yes|no)\b/.exec(run.stdout) ?? [];
  if (word === 'yes' || word === 'no') return { kind: word };
  return { kind: 'unknown', failure: classifyFailure(run) };
}
