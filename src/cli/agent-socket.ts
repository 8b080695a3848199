/** One HTTP request to the agent in this container, over its Unix socket. */
import { networkCode } from '../base/network-code.ts';
import { httpGet } from './http-get.ts';

export type SocketReply =
  | { readonly kind: 'answered'; readonly status: number; readonly body: string }
  /** No agent listens, or it refuses this user; `problem` is a sentence. */
  | { readonly kind: 'unavailable'; readonly problem: string }
  | { readonly kind: 'failed'; readonly problem: string };

const timeoutMs = 10_000;
const maxBodyBytes = 16 << 20;

/** Never rejects. */
export async function askAgent(socketPath: string, target: string): Promise<SocketReply> {
  try {
    const reply = await httpGet({ socketPath, path: target }, { timeoutMs, maxBodyBytes });
    return { kind: 'answered', status: reply.status, body: reply.body };
  } catch (error) {
    return describeFailure(networkCode(error), socketPath);
  }
}

function describeFailure(code: string, socketPath: string): SocketReply {
  switch (code) {
    case 'ENOENT':
      return unavailable(
        `there is no socket ${socketPath}: the agent is not running here, cannot write there (its ` +
          'log says so) or has another NMI_EXPLAIN_SOCKET',
      );
    case 'ECONNREFUSED':
      return unavailable(`nobody answers at ${socketPath}: the agent is not running`);
    case 'EACCES':
    case 'EPERM':
      return unavailable(`${socketPath} is for the user of the agent alone`);
    case 'ABORT_ERR':
      return { kind: 'failed', problem: `the agent did not answer in ${timeoutMs / 1000} s` };
    default:
      return { kind: 'failed', problem: `the agent's answer broke off: ${code}` };
  }
}

function unavailable(problem: string): SocketReply {
  return { kind: 'unavailable', problem };
}
