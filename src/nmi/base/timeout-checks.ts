/**
 * Checks the timeouts of a server's requests only while it parses connections. Node does it from the first
 * `listen` on, at an interval that wakes an idle process once or twice a second.
 */
import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/** The longest delay of a timer, 25 days. */
const neverMs = 0x7fff_ffff;

/**
 * Removes Node's handler of new connections and returns it: the caller decides which ones are parsed.
 * @param checkMs interval of the checks. Node documents neither the property nor the handler that applies it.
 */
export function takeParser(
  server: Server & { connectionsCheckingInterval?: number },
  checkMs: number,
): (socket: Socket) => void {
  const [parseHttp] = server.listeners('connection');
  const [restartChecks] = server.listeners('listening');
  server.removeAllListeners('connection');
  server.connectionsCheckingInterval = neverMs;
  let parsed = 0;
  const checkEvery = (ms: number): void => {
    server.connectionsCheckingInterval = ms;
    restartChecks?.call(server);
  };
  return (socket) => {
    parsed += 1;
    if (parsed === 1) checkEvery(checkMs);
    socket.once('close', () => {
      parsed -= 1;
      if (parsed === 0) checkEvery(neverMs);
    });
    parseHttp?.call(server, socket);
  };
}
