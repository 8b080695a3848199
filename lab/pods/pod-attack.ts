/** What a hostile pod does with all it has: connections and requests as fast as they go. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { PodAttack, PodAttackReport } from './pod-protocol.ts';

export interface AttackPlace {
  readonly host: string;
  readonly port: number;
  readonly localAddress?: string;
}

const afterFailureMs = 1;
const spinMs = 20;

/** Ends after `durationMs`, when all its connections are closed. */
export async function runAttack(attack: PodAttack, place: AttackPlace): Promise<PodAttackReport> {
  const report = { connects: 0, answers: 0, failures: 0 };
  const sockets = new Set<Socket>();
  let isOver = false;
  let turn = 0;
  let cgroups = 0;

  function nextRequest(): string {
    turn += 1;
    return attack.request.replaceAll('%N', String(turn)).replaceAll('%M', String(turn % 500));
  }

  function open(): void {
    if (isOver) return;
    if (attack.cgroup !== undefined) enterNewCgroup(attack.cgroup);
    const socket = connect({ ...place, noDelay: true });
    sockets.add(socket);
    socket.once('connect', () => {
      report.connects += 1;
      if (attack.style === 'hold') return;
      socket.write(nextRequest());
      if (attack.style === 'flood') keepFlooding(socket);
    });
    socket.on('data', () => {
      report.answers += 1;
      if (attack.style === 'renew') socket.resetAndDestroy();
      else if (!isOver) socket.write(nextRequest());
    });
    if (attack.style === 'flood') socket.pause();
    socket.on('error', () => (report.failures += 1));
    socket.once('close', (hadError) => {
      sockets.delete(socket);
      if (hadError) setTimeout(open, afterFailureMs);
      else setImmediate(open);
    });
  }

  /** Programs see the cgroup that a socket was made in. */
  function enterNewCgroup(parent: string): void {
    cgroups += 1;
    const folder = join(parent, `of-attack-${cgroups}`);
    mkdirSync(folder);
    writeFileSync(join(folder, 'cgroup.procs'), String(process.pid));
  }

  function keepFlooding(socket: Socket): void {
    const more = (): void => {
      while (socket.writable && socket.write(nextRequest()));
    };
    socket.on('drain', more);
    more();
  }

  /** Processor time and nothing else, for comparison. */
  function spin(): void {
    const untilMs = performance.now() + spinMs;
    while (performance.now() < untilMs);
    if (!isOver) setImmediate(spin);
  }

  if (attack.style === 'spin') spin();
  else for (let count = 0; count < attack.connections; count++) open();
  await new Promise((resolve) => setTimeout(resolve, attack.durationMs));
  isOver = true;
  for (const socket of sockets) socket.destroy();
  return report;
}
