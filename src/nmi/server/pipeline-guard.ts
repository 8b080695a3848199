/**
 * Checks each chunk before `node:http` parses it. Node parses all requests of a chunk at once and
 * cannot be stopped: 64 KiB of the shortest requests take 50 ms of the event loop, and a pod that
 * sent nothing else made all others wait for 4 s (Node 26.10, November 2026).
 */
import type { Socket } from 'node:net';

const headEnd = '\r\n\r\n';

/**
 * Call it right after Node has taken over the connection. From then on its data is read through
 * JavaScript, as for every connection of `node:https`.
 * @param most requests in one chunk. The connection is closed when there are more.
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

/** Head ends inside a body count, too: no client of ours sends a body with many. */
function countsMore(piece: Buffer, most: number): boolean {
  let from = 0;
  for (let count = 0; count <= most; count++) {
    from = piece.indexOf(headEnd, from, 'latin1') + headEnd.length;
    if (from < headEnd.length) return false;
  }
  return true;
}
