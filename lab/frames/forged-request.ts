/**
 * One HTTP request over a TCP connection that no kernel opened: a SYN, an ACK and the request as
 * hand-crafted frames, from any source address. Answers arrive only if the network delivers packets
 * for that address here.
 */
import { tcpFlags, type Segment } from './tcp-frame.ts';

/** Sends and receives frames. */
export interface Wire {
  send(segment: Segment): void;
  /** The next segment to any address; undefined if none has arrived for a while. */
  receive(): Segment | undefined;
}

export type ForgedEnds = Omit<Segment, 'sequence' | 'acknowledge' | 'flags' | 'data'>;

export type ForgedOutcome =
  | { readonly kind: 'answered'; readonly text: string }
  | { readonly kind: 'failed'; readonly why: 'NO_ANSWER' | 'REFUSED' | 'RESET' };

/** More than any answer has; reading stops there. */
const maxSegments = 200;
const firstSequence = 1_000;

/** @param request The whole request; the answer ends when the peer closes or is silent. */
export function forgeRequest(wire: Wire, ends: ForgedEnds, request: string): ForgedOutcome {
  const nothing = Buffer.alloc(0);
  const say = (flags: number, sequence: number, acknowledge: number, data = nothing): void => {
    wire.send({ ...ends, flags, sequence, acknowledge, data });
  };
  const hear = (): Segment | undefined => {
    for (let tries = 0; tries < maxSegments; tries += 1) {
      const segment = wire.receive();
      if (segment === undefined || isFor(segment, ends)) return segment;
    }
    return undefined;
  };

  say(tcpFlags.syn, firstSequence, 0);
  const opening = hear();
  if (opening === undefined) return { kind: 'failed', why: 'NO_ANSWER' };
  if ((opening.flags & tcpFlags.syn) === 0) return { kind: 'failed', why: 'REFUSED' };
  let next = opening.sequence + 1;
  const asked = firstSequence + 1;
  say(tcpFlags.ack, asked, next);
  say(tcpFlags.ack | tcpFlags.push, asked, next, Buffer.from(request, 'latin1'));
  const after = asked + request.length;
  const parts: Buffer[] = [];
  for (let segments = 0; segments < maxSegments; segments += 1) {
    const segment = hear();
    if (segment === undefined) break;
    if ((segment.flags & tcpFlags.rst) !== 0) {
      if (parts.length === 0) return { kind: 'failed', why: 'RESET' };
      break;
    }
    // Ignore retransmissions.
    if (segment.sequence !== next >>> 0) continue;
    const isLast = (segment.flags & tcpFlags.fin) !== 0;
    if (segment.data.length > 0) parts.push(Buffer.from(segment.data));
    next += segment.data.length + (isLast ? 1 : 0);
    if (segment.data.length > 0 || isLast) say(tcpFlags.ack, after, next);
    if (!isLast) continue;
    say(tcpFlags.ack | tcpFlags.fin, after, next);
    break;
  }
  const text = Buffer.concat(parts).toString('latin1');
  return text === '' ? { kind: 'failed', why: 'NO_ANSWER' } : { kind: 'answered', text };
}

function isFor(segment: Segment, ends: ForgedEnds): boolean {
  return (
    segment.toIp === ends.fromIp &&
    segment.toPort === ends.fromPort &&
    segment.fromIp === ends.toIp &&
    segment.fromPort === ends.toPort
  );
}
