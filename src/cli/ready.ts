/**
 * `nmi ready`: whether the agent in the same container is ready, by its own socket. For startup probes:
 * while an agent takes over from an earlier one, the probe port still belongs to the earlier one.
 */
import { asRecord, parseRecord } from '../base/json-value.ts';
import { parseConfig } from '../nmi/config/config.ts';
import { askAgent } from './agent-socket.ts';
import { exitCodes, type Io } from './io.ts';

export async function ready(io: Io): Promise<number> {
  // The socket of an agent with the same environment.
  const parsed = parseConfig({ node: 'unnamed' }, io.environment);
  if (!parsed.ok) return fail(io, parsed.problems.join('\n'), exitCodes.usage);
  const { explainSocket } = parsed.config;
  if (explainSocket === '') {
    return fail(io, 'the agent has no socket: NMI_EXPLAIN_SOCKET is off', exitCodes.usage);
  }
  const reply = await askAgent(explainSocket, '/ready');
  if (reply.kind === 'unavailable') return fail(io, reply.problem, exitCodes.unavailable);
  if (reply.kind === 'failed') return fail(io, reply.problem, exitCodes.failed);
  if (reply.status === 200) {
    io.stdout('ready\n');
    return exitCodes.ok;
  }
  const missing = Object.entries(asRecord(parseRecord(reply.body)?.['missing']) ?? {});
  const problems = missing.map(([name, problem]) => `${name}: ${String(problem)}`);
  return fail(io, problems.join('; ') || `status ${reply.status}`, exitCodes.failed);
}

function fail(io: Io, problem: string, code: number): number {
  io.stderr(`nmi ready: ${problem}\n`);
  return code;
}
