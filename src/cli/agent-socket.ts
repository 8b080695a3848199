/** One HTTP request to the agent in this container, over its Unix socket. */
import { networkCode } from '../base/network-code.ts';
import { parseConfig } from '../nmi/config/config.ts';
import { httpGet, type Reply } from './http-get.ts';
import { exitCodes, fail, type Io } from './io.ts';

const timeoutMs = 10_000;
const maxBodyBytes = 16 << 20;

/** Never rejects. @returns the reply, or the exit code after the problem was printed. */
export async function askAgent(io: Io, verb: string, target: string): Promise<Reply | number> {
  const parsed = parseConfig({ node: 'unnamed' }, io.environment);
  if (!parsed.ok) return fail(io, verb, parsed.problems.join('\n'), exitCodes.usage);
  const { explainSocket: socketPath } = parsed.config;
  if (socketPath === '') {
    return fail(io, verb, 'the agent has no socket: NMI_EXPLAIN_SOCKET is off', exitCodes.usage);
  }
  try {
    return await httpGet({ socketPath, path: target }, { timeoutMs, maxBodyBytes });
  } catch (error) {
    const code = networkCode(error);
    if (code === 'ABORT_ERR' || code === 'ECONNRESET') {
      return fail(io, verb, `the agent did not answer (${code})`, exitCodes.failed);
    }
    const problem = `no agent answers at ${socketPath} (${code}): it is not running here, is another user's, cannot write there (its log says so) or has another NMI_EXPLAIN_SOCKET`;
    return fail(io, verb, problem, exitCodes.unavailable);
  }
}
