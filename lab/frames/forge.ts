/**
 * Arguments: interface, source address, MAC of the gateway, destination address and port, request
 * target, and the source port unless any will do. With a range of ports, as `40000-40999`, it sends a SYN
 * from each, no faster than a node lets one source connect, and nothing else.
 */
import { randomInt } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { exitCodes, type Io } from '../../src/cli/io.ts';
import { forgeRequest } from './forged-request.ts';
import { openFrameWire } from './frame-wire.ts';
import { tcpFlags } from './tcp-frame.ts';

const syn = { flags: tcpFlags.syn, sequence: 1, acknowledge: 0, data: Buffer.alloc(0) };

export function forge(words: readonly string[], io: Io): number {
  const [name = '', fromIp = '', toMac = '', toIp = '', toPort = '', target = '/', port] = words;
  const fromMac = networkInterfaces()[name]?.[0]?.mac ?? '';
  using wire = openFrameWire(name);
  const [first, last] = (port ?? String(randomInt(40_000, 60_000))).split('-').map(Number);
  const fromPort = first ?? 0;
  const ends = { fromMac, toMac, fromIp, fromPort, toIp, toPort: Number(toPort) };
  if (last !== undefined) {
    const pause = new Int32Array(new SharedArrayBuffer(4));
    for (let each = fromPort; each <= last; each += 1) {
      wire.send({ ...ends, fromPort: each, ...syn });
      Atomics.wait(pause, 0, 0, 1);
    }
    return exitCodes.ok;
  }
  const head = [`GET ${target} HTTP/1.1`, `Host: ${toIp}`, 'Metadata: true', 'Connection: close'];
  const outcome = forgeRequest(wire, ends, `${head.join('\r\n')}\r\n\r\n`);
  io.stdout(outcome.kind === 'answered' ? outcome.text : `${outcome.why}\n`);
  return outcome.kind === 'answered' ? exitCodes.ok : exitCodes.failed;
}
