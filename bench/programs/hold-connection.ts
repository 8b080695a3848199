/** Opens a connection, prints the port it comes from, and holds it: `… hold-connection.ts HOST PORT`. */
import { connect } from 'node:net';

const [host = '', port = '80'] = process.argv.slice(2);
const socket = connect({ host, port: Number(port) }, () => {
  process.stdout.write(`${String(socket.localPort)}\n`);
});
