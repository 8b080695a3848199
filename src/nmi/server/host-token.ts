/**
 * `/host/token`: a process of the host (the Key Vault CSI provider) requests a token for a pod that
 * it names in headers. Off by default, and served on loopback only, because every process that can
 * connect to loopback can name any pod of this node.
 */
import { answerToken } from '../base/answers.ts';
import type { Grant } from '../grants/grant.ts';
import { decideGrant, type GrantState } from '../grants/decide-grant.ts';
import type { Admit } from './decision-cache.ts';
import type { Exchange } from './request.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import type { Clock } from '../../base/time/clock.ts';
import { parseTokenQuery, type TokenQuery } from './token-query.ts';
import {
  refuseQuery,
  type TokenAnswer,
  type TokenEndpoint,
  type TokenJob,
} from './token-endpoint.ts';

export interface HostTokenOptions {
  readonly clusterState: GrantState;
  readonly policy: GrantPolicy;
  readonly admit: Admit;
  readonly clock: Clock;
  readonly endpoint: TokenEndpoint;
}

export class HostTokenEndpoint {
  readonly #options: HostTokenOptions;

  constructor(options: HostTokenOptions) {
    this.#options = options;
  }

  handle(exchange: Exchange, rawQuery: string): TokenAnswer | Promise<TokenAnswer> {
    const { endpoint, clock } = this.#options;
    if (!isLoopback(exchange.caller.ip)) {
      return refuseQuery(
        'host_only',
        'Access denied: /host/token answers processes of this host only.',
      );
    }
    const [namespace = ''] = exchange.headerValues('podns');
    const [name = ''] = exchange.headerValues('podname');
    if (namespace === '' || name === '') {
      return refuseQuery('parameter_missing', "missing 'podname' and 'podns' from request header");
    }
    const parsed = parseTokenQuery(rawQuery, false);
    if (parsed.kind === 'refused') return refuseQuery(parsed.reason, parsed.detail);
    const findGrant = () => this.#findGrant(namespace, name, parsed.query);
    const job: TokenJob = {
      exchange,
      query: parsed.query,
      findGrant,
      // On this route the replaced system returned the primary tenant's token only.
      render: (rendered, _auxiliary, grant) => {
        const clientId = grant.identity?.clientId || rendered.token.clientId;
        const body = rendered.body(clock.wallMs());
        return answerToken(`{"token":${body},"clientid":${JSON.stringify(clientId)}}`);
      },
    };
    return endpoint.serve(job, findGrant());
  }

  #findGrant(namespace: string, name: string, query: TokenQuery): Grant {
    const { clusterState, policy, admit, clock } = this.#options;
    const pod = clusterState.pods.byName(namespace, name);
    if (pod === undefined || !clusterState.isSynced()) {
      return {
        kind: 'refused',
        reason: 'pod_unknown',
        facts: { about: 'unknown-name' },
        isPending: true,
        pod: undefined,
      };
    }
    return admit(decideGrant(pod, query, clusterState, policy, clock.wallMs()), query.resource);
  }
}

function isLoopback(canonicalIp: string): boolean {
  return canonicalIp.startsWith('127.') || canonicalIp === '::1';
}
