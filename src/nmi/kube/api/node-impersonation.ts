/**
 * In whose name calls are made: of the agent's own node, where the API server and the agent's rights
 * allow that, else of its account. As the node, the server holds the agent to the pods of this node, as it holds a
 * kubelet. All agents share one account: what its own rights allow, they allow for every node.
 *
 * Constrained impersonation (KEP-5284) is on by default from Kubernetes 1.36. The server knows the node from the
 * agent's token, which is bound to the agent's pod. No group may be named.
 */
import type { Log } from '../../../base/log.ts';
import { samplesBy, type Part } from '../../base/part.ts';
import { KubeError } from './kube-error.ts';

export type AskedAs = 'node' | 'account';

export interface NodeImpersonationOptions {
  /** Name of the node. */
  readonly node: string;
  /** What the calls are for; the rights for each are separate. */
  readonly purpose: 'pods' | 'tokens' | 'taint';
  readonly log: Log;
}

export class NodeImpersonation implements Pick<Required<Part>, 'samples'> {
  readonly #options: NodeImpersonationOptions;
  #name: AskedAs | undefined;

  constructor(options: NodeImpersonationOptions) {
    this.#options = options;
  }

  /** Undefined before the first answer. */
  get name(): AskedAs | undefined {
    return this.#name;
  }

  /**
   * Makes a call, and makes it again as the account if the server does not let the agent act as the node. After
   * that the account's own rights serve until they do not.
   * @param send `user` is the one to impersonate; undefined for the account itself.
   */
  async call<T>(send: (user: string | undefined) => Promise<T>): Promise<T> {
    if (this.#name === 'account') return this.#callAsAccount(send);
    try {
      const answer = await send(`system:node:${this.#options.node}`);
      this.#learn('node');
      return answer;
    } catch (error) {
      if (!(error instanceof KubeError) || error.code !== 'IMPERSONATION') throw error;
      return this.#callAsAccount(send);
    }
  }

  samples() {
    if (this.#name === undefined) return [];
    const { purpose } = this.#options;
    return samplesBy('nmi_acts_as_node', 'purpose', { [purpose]: this.#name === 'node' ? 1 : 0 });
  }

  async #callAsAccount<T>(send: (user: undefined) => Promise<T>): Promise<T> {
    try {
      const answer = await send(undefined);
      this.#learn('account');
      return answer;
    } catch (error) {
      // The rights may have changed: the next call is made as the node again.
      if (error instanceof KubeError && error.code === 'FORBIDDEN') this.#name = undefined;
      throw error;
    }
  }

  #learn(name: AskedAs): void {
    if (this.#name === name) return;
    this.#name = name;
    const { purpose, log } = this.#options;
    log.info({ purpose, name }, 'the API server is asked in this name');
  }
}
