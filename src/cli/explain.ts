/**
 * `nmi explain`: requests from the agent in the same container what a pod's requests get, and why.
 * Exit code 0 means that the pod was explained, not that it gets a token.
 */
import { explanationSchema, type Explanation } from '../nmi/explain/explanation.ts';
import { parseRecord, stringAt } from '../base/json-value.ts';
import { renderJson } from '../base/printable.ts';
import { askAgent, fail } from './agent-socket.ts';
import { renderExplanation } from '../nmi/explain/explanation-text.ts';
import type { Args } from './flags.ts';
import { exitCodes, type Io } from './io.ts';

/** The flags that the agent validates, with their names in the query. */
const queryNames = new Map([
  ['pod', 'pod'],
  ['resource', 'resource'],
  ['client-id', 'client_id'],
]);

interface Question {
  readonly target: string;
  readonly output: 'text' | 'json';
}

export async function explain(args: Args, io: Io): Promise<number> {
  const question = parse(args);
  if (typeof question === 'string') return fail(io, 'explain', question, exitCodes.usage);
  const reply = await askAgent(io, 'explain', question.target);
  if (typeof reply === 'number') return reply;
  const body = parseRecord(reply.body);
  if (reply.status === 400) return fail(io, 'explain', stringAt(body, 'problem'), exitCodes.usage);
  if (reply.status !== 200) {
    const problem = stringAt(body, 'problem') || `the agent answers with status ${reply.status}`;
    return fail(io, 'explain', problem, exitCodes.failed);
  }
  if (!isExplanation(body)) {
    return fail(
      io,
      'explain',
      'the agent is of another version; use its own nmi',
      exitCodes.failed,
    );
  }
  io.stdout(question.output === 'json' ? renderJson(body) : renderExplanation(body));
  return body.kind === 'no-pod' ? exitCodes.failed : exitCodes.ok;
}

/** A returned text is the problem. */
function parse(args: Args): Question | string {
  const query = new URLSearchParams();
  let output = 'text';
  for (const [flag, text] of Object.entries(args.flags)) {
    const name = queryNames.get(flag);
    if (name !== undefined) query.set(name, text);
    else if (flag === 'output') output = text;
  }
  if (output !== 'text' && output !== 'json') {
    return `--output has the value "${output}"; allowed: text, json`;
  }
  return { target: `/explain?${query.toString()}`, output };
}

/** The agent is the same program; a reply with another schema comes from another version. */
function isExplanation(value: object | undefined): value is Explanation {
  return value !== undefined && 'schema' in value && value.schema === explanationSchema;
}
