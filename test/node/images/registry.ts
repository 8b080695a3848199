/** A registry on this machine with TLS, and skopeo, which copies to it. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createLabAuthority } from '../../../lab/fakes/authority.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { ownArchitecture, processors } from '../../../scripts/image/builder.ts';
import { unpackDebian } from '../../../scripts/image/debian-tree.ts';
import { freePort } from '../../../lab/fabric/free-ports.ts';
import { testCache } from '../../support/test-cache.ts';

export interface Registry extends AsyncDisposable {
  /** With its port. */
  readonly host: string;
  /** By which skopeo and helm trust it. */
  readonly env: NodeJS.ProcessEnv;
}

export async function serveRegistry(program: string, folder: string): Promise<Registry> {
  const place = (name: string): string => join(folder, name);
  mkdirSync(folder);
  const port = await freePort();
  const authority = await createLabAuthority();
  const { cert, key } = await authority.issueServer(['127.0.0.1']);
  writeFileSync(place('ca.crt'), authority.certificatePem);
  writeFileSync(place('tls.crt'), cert);
  writeFileSync(place('tls.key'), key);
  const config = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: place('content') } },
    http: {
      addr: `127.0.0.1:${port}`,
      tls: { certificate: place('tls.crt'), key: place('tls.key') },
    },
  };
  // YAML includes JSON.
  writeFileSync(place('config.yml'), JSON.stringify(config));
  const child = spawn(program, ['serve', place('config.yml')], {
    // Each blob that is not there yet is an error to it.
    stdio: ['ignore', 'ignore', openSync(place('log'), 'w')],
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  });
  const isUp = async (): Promise<void> => {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    socket.destroy();
  };
  await eventually(isUp).catch(() => {
    child.kill();
    throw new Error(`the registry does not start: ${readFileSync(place('log'), 'utf8')}`);
  });
  return {
    host: config.http.addr,
    env: { SSL_CERT_FILE: place('ca.crt') },
    async [Symbol.asyncDispose]() {
      child.kill();
      await once(child, 'exit');
    },
  };
}

/** Path of the one that is installed, or of Debian's with its libraries, unpacked in the tests' cache. */
export function provideSkopeo(): string {
  const installed = spawnSync('sh', ['-c', 'command -v skopeo'], {
    encoding: 'utf8',
  }).stdout.trim();
  if (installed !== '') return installed;
  const cache = join(testCache, 'skopeo');
  mkdirSync(cache, { recursive: true });
  const { folder } = unpackDebian({
    folder: join(cache, 'root'),
    architectures: [ownArchitecture],
    // The first has the links from /lib.
    packages: ['base-files', 'skopeo'],
  });
  const { loader, libraries } = processors[ownArchitecture];
  const policy = join(cache, 'policy.json');
  writeFileSync(policy, JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }));
  const program = join(cache, 'skopeo');
  const command = [join(folder, loader), '--library-path', join(folder, libraries)];
  const words = [...command, join(folder, 'usr/bin/skopeo'), `--policy=${policy}`];
  writeFileSync(program, `#!/bin/sh\nexec ${words.map((word) => `'${word}'`).join(' ')} "$@"\n`);
  chmodSync(program, 0o755);
  return program;
}
