/**
 * The fake metadata service as a separate server, requested directly: a token from plain Node code,
 * without an agent. node bench/servers/fake-imds.ts HOST PORT IDENTITY
 */
import { openFakeImds } from '../../lab/fakes/imds/fake-imds.ts';
import { createBenchIdentity } from '../fixture/objects.ts';

const [host = '127.0.0.1', port = '0', name = ''] = process.argv.slice(2);
await openFakeImds({
  host,
  port: Number(port),
  nodeIps: [host],
  systemAssigned: createBenchIdentity(name),
  recordLimit: 100,
});
process.stdout.write('ready\n');
