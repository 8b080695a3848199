/** A node of network namespaces with the real redirect, and loads from its pod. */
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fabricAddresses, openFabric } from '../../lab/fabric/fabric.ts';
import {
  nodePorts,
  type FabricAnswer,
  type FabricOrder,
  type FabricPlan,
  type FabricReady,
} from './fabric-plan.ts';
import { controlCaller } from './controls.ts';
import type { Subject } from './rounds.ts';
import type { RunLoad } from './run-load.ts';
import { defaultTarget } from './stand.ts';

export interface FabricNode {
  /** The agent, or the other implementation, as the pod finds it. */
  readonly subject: (name: string) => Subject;
  /** The control, dialled without any redirect. */
  readonly control: (name: string, place?: 'pod' | 'outside') => Subject;
  /** Go's, dialled in the same way; undefined where Go is not installed. */
  readonly goControl: (name: string) => Subject | undefined;
  readonly ask: (order: FabricOrder) => Promise<FabricAnswer>;
}

/** @param name distinguishes this fabric from others of the process. Closed by the stack. */
export async function openFabricNode(
  name: string,
  options: Omit<FabricPlan, 'prefix'>,
  stack: AsyncDisposableStack,
): Promise<FabricNode> {
  const fabric = stack.use(await openFabric({ name }));
  const program = join(import.meta.dirname, '../programs/fabric-node.ts');
  const plan: FabricPlan = { ...options, prefix: fabric.prefix };
  const child = fabric.exec('azure', process.execPath, [program, JSON.stringify(plan)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError('its streams are not piped');
  const ended = once(child, 'exit');
  stack.defer(async () => {
    stdin.end();
    await ended;
  });
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const read = async (): Promise<unknown> => {
    const next = await lines.next();
    if (next.done === true) throw new Error(`the node ${name} has ended`);
    return JSON.parse(next.value);
  };
  const ready = (await read()) as FabricReady;
  const ask = async (order: FabricOrder): Promise<FabricAnswer> => {
    stdin.write(`${JSON.stringify(order)}\n`);
    return (await read()) as FabricAnswer;
  };
  const loadFrom =
    (isOutside: boolean): RunLoad =>
    async (loadPlan) => {
      const answer = await ask({ kind: 'load', plan: loadPlan, isOutside });
      if (answer.kind !== 'report') throw new TypeError(`a load was answered by ${answer.kind}`);
      return answer.report;
    };
  const { imdsIp, nodeIp } = fabricAddresses;
  const isDirect = plan.redirect === 'none';
  return {
    ask,
    subject: (as) => ({
      name: as,
      host: isDirect ? nodeIp : imdsIp,
      port: isDirect ? nodePorts.agent : 80,
      pids: [ready.agentPid],
      runLoad: loadFrom(false),
      callers: [{ target: defaultTarget, expect: { kind: 'identity', name: ready.identity } }],
    }),
    control: (as, place = 'pod') => ({
      name: as,
      host: nodeIp,
      port: nodePorts.control,
      pids: [ready.controlPid],
      runLoad: loadFrom(place === 'outside'),
      callers: [controlCaller],
    }),
    goControl: (as) =>
      ready.goPid === undefined
        ? undefined
        : {
            name: as,
            host: nodeIp,
            port: nodePorts.go,
            pids: [ready.goPid],
            runLoad: loadFrom(false),
            callers: [controlCaller],
          },
  };
}
