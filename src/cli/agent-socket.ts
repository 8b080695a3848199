/** One question to the agent beside us, by HTTP over its Unix socket. */
import { request } from 'node:http';
import { networkCode } from '../nmi/base/network-code.ts';

export type SocketReply =
  | { readonly kind: 'answered'; readonly status: number; readonly body: string }
  /** Nobody is there, or not for us; `problem` is a sentence. */
  | { readonly kind: 'unavailable'; readonly problem: string }
  | { readonly kind: 'failed'; readonly problem: string };

const timeoutMs = 10_000;
const maxBodyBytes = 16 << 20;

/** Never rejects. */
export function askAgent(socketPath: string, target: string): Promise<SocketReply> {
  return new Promise((resolve) => {
    const fail = (error: unknown) => resolve(describeFailure(networkCode(error), socketPath));
    const signal = AbortSignal.timeout(timeoutMs);
    const asking = request({ socketPath, path: target, agent: false, signal }, (response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        length += chunk.length;
        if (length > maxBodyBytes) response.destroy(new RangeError('the answer is too long'));
      });
      response.on('error', fail);
      response.on('end', () => {
        const body = Buffer.concat(chunks).toString('utf8');
        resolve({ kind: 'answered', status: response.statusCode ?? 0, body });
      });
    });
    asking.on('error', fail);
    asking.end();
  });
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
    case 'AbortError':
    case 'TIMEOUT':
      return { kind: 'failed', problem: `the agent did not answer in ${timeoutMs / 1000} s` };
    default:
      return { kind: 'failed', problem: `the agent's answer broke off: ${code}` };
  }
}

function unavailable(problem: string): SocketReply {
  return { kind: 'unavailable', problem };
}
