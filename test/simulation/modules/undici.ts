/**
 * In place of undici: its own pools, connected by the simulated network. TLS is left out. Its own timeouts
 * are off: they run by the clock of this machine, and the deadlines of the agent end requests earlier.
 */
import * as undici from 'undici';
import { connect as connectTcp } from './net.ts';

type Connector = undici.buildConnector.connector;

function connectorOf(given: unknown): Connector {
  if (typeof given === 'function') return given as Connector;
  return ({ hostname, port, protocol }, callback) => {
    const usual = protocol === 'https:' ? 443 : 80;
    const socket = connectTcp({ host: hostname, port: port === '' ? usual : Number(port) });
    const fail = (error: Error): void => callback(error, null);
    socket.once('error', fail);
    socket.once('connect', () => {
      socket.off('error', fail);
      callback(null, socket as never);
    });
  };
}

/** The longest that a timer takes. */
const neverMs = 2 ** 31 - 1;

const untimed = {
  headersTimeout: 0,
  bodyTimeout: 0,
  keepAliveTimeout: neverMs,
  keepAliveMaxTimeout: neverMs,
  // It is subtracted from what a server asks for: without it, connections were closed after three seconds.
  keepAliveTimeoutThreshold: -neverMs,
};

export class Pool extends undici.Pool {
  constructor(origin: string | URL, options: undici.Pool.Options = {}) {
    super(origin, { ...options, ...untimed, connect: connectorOf(options.connect) });
  }
}

export class Agent extends undici.Agent {
  constructor(options: undici.Agent.Options = {}) {
    super({ ...options, ...untimed, connect: connectorOf(options.connect) });
  }
}

export * from 'undici';
