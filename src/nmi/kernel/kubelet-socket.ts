/**
 * Connections to the socket at which the kubelet serves its pods, to root only. The container that keeps the
 * redirect is root: it connects, and passes the connection to the agent in the other container, which has no way
 * to the node's files. Any process that reaches the folder of both containers gets one, and can only read pods with it.
 */
import { closeSync } from 'node:fs';
import { connect, createServer, Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { nativeModule } from '../../redirect/native/addon.ts';
import { networkCode } from '../../base/network-code.ts';
import { KubeError } from '../kube/api/kube-error.ts';
import type { ConnectKubelet } from '../kube/kubelet/pods-api.ts';
import { askHolder, awaitNote, descriptorOf, noteOf, notes } from './listener-notes.ts';
import { listenForAgent } from './local-socket.ts';

/** Below the kubelet's default root. */
const kubeletSocket = '/var/lib/kubelet/pods-api/pods-api.sock';
/** The agent, and its successor during an update. */
const maxClients = 4;
const noteMs = 2_000;

/** Beside the socket for look-ups. */
function passingPath(callerSocket: string): string {
  return join(dirname(callerSocket), 'kubelet.sock');
}

/**
 * For the agent: connects, with its own rights or those of the other container.
 * @param isSplit there is another container.
 */
export function kubeletConnector(
  callerSocket: string,
  isSplit: boolean,
  socket = kubeletSocket,
): ConnectKubelet {
  return async () => {
    if (!isSplit) return connect({ path: socket });
    const path = passingPath(callerSocket);
    try {
      const { descriptor, connection } = await askHolder(nativeModule(), path);
      connection.destroy();
      if (descriptor !== undefined) {
        return new Socket({ fd: descriptor, readable: true, writable: true });
      }
    } catch (cause) {
      throw new KubeError('NETWORK', `cannot connect to ${path}: ${networkCode(cause)}`, { cause });
    }
    throw new KubeError('NETWORK', 'nmi redirect run cannot connect to the kubelet');
  };
}

/** For the container with rights: connects for the agent. */
export async function openKubeletPassing(
  callerSocket: string,
  socket = kubeletSocket,
): Promise<AsyncDisposable> {
  // Node must not read: its reads discard the descriptor of a message.
  const server = createServer({ pauseOnConnect: true }, (client) => {
    client.on('error', () => client.destroy());
    void pass(client, socket)
      .catch(() => undefined)
      .finally(() => client.destroy());
  });
  server.maxConnections = maxClients;
  await listenForAgent(server, passingPath(callerSocket), 'connections to the kubelet');
  return server;
}

async function pass(client: Socket, path: string): Promise<void> {
  const native = nativeModule();
  const local = descriptorOf(client);
  const note = await awaitNote(native, local, () => client.destroyed, noteMs);
  if (note === undefined) return;
  if (note.descriptor !== undefined) closeSync(note.descriptor);
  let connection: number | undefined;
  try {
    connection = native.connectLocal(path);
    native.sendNote(local, notes.alone, connection);
  } catch (error) {
    native.sendNote(local, noteOf(networkCode(error)));
  } finally {
    if (connection !== undefined) closeSync(connection);
  }
}
