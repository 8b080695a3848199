/** `nmi explain`, from the agent in this container. Exit code 0: the pod was explained. */
import { isExplanation } from '../nmi/explain/explanation.ts';
import { parseRecord, stringAt } from '../base/json-value.ts';
import { renderJson } from '../base/printable.ts';
import { askAgent } from './agent-socket.ts';
import { renderExplanation } from '../nmi/explain/explanation-text.ts';
import type { Args } from './flags.ts';
import { exitCodes, fail, type Io } from './io.ts';

export async function explain(args: Args, io: Io): Promise<number> {
  const { output = 'text', ...asked } = args.flags;
  if (output !== 'text' && output !== 'json') {
    const problem = `--output has the value "${output}"; allowed: text, json`;
    return fail(io, 'explain', problem, exitCodes.usage);
  }
  // The agent validates the other flags.
  const query = Object.entries(asked).map(([flag, text]) => [flag.replace('-', '_'), text]);
  const target = `/explain?${new URLSearchParams(query).toString()}`;
  const reply = await askAgent(io, 'explain', target);
  if (typeof reply === 'number') return reply;
  const body = parseRecord(reply.body);
  if (reply.status === 400) return fail(io, 'explain', stringAt(body, 'problem'), exitCodes.usage);
  if (reply.status !== 200) {
    const problem = stringAt(body, 'problem') || `the agent answers with status ${reply.status}`;
    return fail(io, 'explain', problem, exitCodes.failed);
  }
  // The agent is the same program; a reply with another schema comes from another version.
  if (!isExplanation(body)) {
    const problem = 'the agent is of another version; use its own nmi';
    return fail(io, 'explain', problem, exitCodes.failed);
  }
  io.stdout(output === 'json' ? renderJson(body) : renderExplanation(body));
  return body.kind === 'no-pod' ? exitCodes.failed : exitCodes.ok;
}
