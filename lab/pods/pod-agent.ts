/**
 * The process inside a pod's namespace: one command per line on stdin, one reply per line on
 * stdout. It exits when stdin ends. It outputs tokens only in the reply to the request.
 */
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

import type { PodCommand, PodReply } from './pod-protocol.ts';
import { openPodSession, type PodSession } from './pod-session.ts';

/** Serves until stdin ends; requests in flight are then dropped. */
export async function runPodAgent(stdin: Readable, stdout: Writable): Promise<void> {
  using session = openPodSession({ host: '169.254.169.254', port: 80 });
  const reply = (line: PodReply): void => {
    stdout.write(`${JSON.stringify(line)}\n`);
  };
  // The reader has exited; stdin will end too.
  stdout.on('error', () => undefined);
  reply({ kind: 'ready' });
  for await (const line of createInterface({ input: stdin, crlfDelay: Infinity })) {
    const command: unknown = JSON.parse(line);
    if (!isPodCommand(command)) throw new TypeError('not a pod command');
    void obey(session, command).then(reply);
  }
}

function isPodCommand(value: unknown): value is PodCommand {
  return (
    typeof value === 'object' &&
    value !== null &&
    'id' in value &&
    typeof value.id === 'number' &&
    'command' in value &&
    typeof value.command === 'string'
  );
}

async function obey(session: PodSession, command: PodCommand): Promise<PodReply> {
  const { id } = command;
  switch (command.command) {
    case 'request':
      return { kind: 'answer', id, answer: await session.request(command.request) };
    case 'load':
      return { kind: 'report', id, report: await session.load(command.load) };
    case 'attack':
      return { kind: 'attacked', id, report: await session.attack(command.attack) };
    case 'close':
      session.closeConnection(command.connection);
      return { kind: 'closed', id };
  }
}
