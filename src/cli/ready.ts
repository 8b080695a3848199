/** `nmi ready`: for startup probes, while the probe port may belong to an earlier agent. */
import { asRecord, parseRecord } from '../base/json-value.ts';
import { askAgent } from './agent-socket.ts';
import { exitCodes, fail, type Io } from './io.ts';

export async function ready(io: Io): Promise<number> {
  const reply = await askAgent(io, 'ready', '/ready');
  if (typeof reply === 'number') return reply;
  if (reply.status === 200) {
    io.stdout('ready\n');
    return exitCodes.ok;
  }
  const missing = Object.entries(asRecord(parseRecord(reply.body)?.['missing']) ?? {});
  const problems = missing.map(([name, problem]) => `${name}: ${String(problem)}`);
  return fail(io, 'ready', problems.join('; ') || `status ${reply.status}`, exitCodes.failed);
}
