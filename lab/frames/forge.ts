/**
 * Arguments: interface, source address, MAC of the gateway, destination address and port, request
 * target, and the source port unless any will do.
 */
import { randomInt } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { exitCodes, type Io } from '../../src/cli/io.ts';
import { forgeRequest } from './forged-request.ts';
import { openFrameWire } from './frame-wire.ts';

export function forge(words: readonly string[], io: Io): number {
  const [name = '', fromIp = '', toMac = '', toIp = '', toPort = '', target = '/', port] = words;
  const fromMac = networkInterfaces()[name]?.[0]?.mac ?? '';
  using wire = openFrameWire(name);
  const fromPort = port === undefined ? randomInt(40_000, 60_000) : Number(port);
  const ends = { fromMac, toMac, fromIp, fromPort, toIp, toPort: Number(toPort) };
  const head = [`GET ${target} HTTP/1.1`, `Host: ${toIp}`, 'Metadata: true', 'Connection: close'];
  const outcome = forgeRequest(wire, ends, `${head.join('\r\n')}\r\n\r\n`);
  io.stdout(outcome.kind === 'answered' ? outcome.text : `${outcome.why}\n`);
  return outcome.kind === 'answered' ? exitCodes.ok : exitCodes.failed;
}
