/**
 * Looks at what comes before `node:http` does. Node parses every request of a piece at once, and what
 * is made of those cannot be stopped: 64 KiB of the shortest requests take 50 ms of the event loop,
 * and a pod that sent nothing else kept all others waiting for 4 s (Node 26.10, November 2026).
 */
import type { Socket } from 'node:net';

const headEnd = '\r\n\r\n';

/**
 * Of a connection that Node has just been given. Reading goes through JavaScript from then on, as it
 * does for every connection of `node:https`.
 * @param most requests in one piece. The connection is closed when more come.
 */
export function guardPipeline(socket: Socket, most: number): void {
  const parsers = socket.listeners('data');
  for (const parse of parsers) socket.off('data', parse);
  socket.on('data', (piece: Buffer<ArrayBuffer>) => {
    if (countsMore(piece, most)) {
      socket.destroy();
      return;
    }
    for (const parse of parsers) parse.call(socket, piece);
  });
}

/** Ends are counted also where they are in a body: no client of ours sends one with many. */
function countsMore(piece: Buffer, most: number): boolean {
  let from = 0;
  for (let count = 0; count <= most; count++) {
    from = piece.indexOf(headEnd, from, 'latin1') + headEnd.length;
    if (from < headEnd.length) return false;
  }
  return true;
}
