/** In place of node:http: Node's own server and parser, over the simulated network. */
import * as http from 'node:http';
import type { EventEmitter } from 'node:events';
import { currentProcess } from '../machine.ts';
import { giveListening } from './net.ts';

export * from 'node:http';

/** By the clock of this machine, Node would close slow connections. */
const never = 2 ** 31 - 1;

export function createServer(
  given: http.ServerOptions | http.RequestListener = {},
  onRequest?: http.RequestListener,
): http.Server {
  const options = typeof given === 'function' ? {} : given;
  const handler = typeof given === 'function' ? given : onRequest;
  const server = http.createServer({ ...options, connectionsCheckingInterval: never }, handler);
  checkTimeoutsOnce(server);
  const listening = giveListening(server as EventEmitter, true);
  const stopChecks = server.close.bind(server);
  currentProcess().onEnd.add(() => {
    server.removeAllListeners('close');
    stopChecks();
  });
  const close = (done?: () => void): http.Server => {
    listening.close(done);
    return server;
  };
  return Object.defineProperties(server, {
    connectionsCheckingInterval: { get: () => never, set: () => {} },
    listening: { get: () => listening.isOpen },
    listen: { value: (...all: readonly unknown[]) => (listening.listen(...all), server) },
    address: { value: () => listening.address },
    close: { value: close },
    [Symbol.asyncDispose]: {
      value: () => new Promise<void>((resolve) => void close(() => resolve())),
    },
  });
}

/**
 * Node's listener starts a timer at each call, and the agent calls it again when a connection closes: a timer of a
 * process that has ended would keep the whole run in memory.
 */
function checkTimeoutsOnce(server: http.Server): void {
  const [startChecks] = server.listeners('listening');
  let isStarted = false;
  server.removeAllListeners('listening').on('listening', () => {
    if (!isStarted) startChecks?.call(server);
    isStarted = true;
  });
}
